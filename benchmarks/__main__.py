"""The command: `python -m benchmarks [NAME ...] [--rounds N] [--seconds T] [--list]`, from the checkout."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from benchmarks import report
from benchmarks.echo import ECHO, ECHO_TLS
from benchmarks.ftp import tables as ftp
from benchmarks.harness import BenchmarkError, Settings, build_load, choose_cores, run
from benchmarks.http import client, files, hello, uploads, websocket
from benchmarks.idle import IDLE
from benchmarks.import_time import IMPORT_TIME
from benchmarks.send_file import SEND_FILE
from benchmarks.smtp import relay
from benchmarks.smtp import tables as smtp

BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        ECHO,
        ECHO_TLS,
        IDLE,
        SEND_FILE,
        IMPORT_TIME,
        hello.ASGI,
        hello.TLS,
        websocket.WEBSOCKET,
        files.FILES,
        files.FILE_1G,
        uploads.UPLOAD,
        uploads.CHUNKS,
        client.CLIENT,
        *ftp.TABLES,
        *smtp.TABLES,
        relay.RELAY,
    )
}

MAX_ROUNDS = 100
MAX_SECONDS = 60


def main() -> int:
    options = parse_command_line()
    if options.list:
        for benchmark in BENCHMARKS.values():
            print(f"{benchmark.name:15} {benchmark.title}")
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # so that children and scratch files go too
    with tempfile.TemporaryDirectory(prefix="asyncnet-bench-") as scratch:
        server_core, load_core = choose_cores()
        settings = Settings(options.seconds, server_core, load_core, build_load(), Path(scratch))
        troubles = 0
        for name in options.names or BENCHMARKS:
            outcomes = run(BENCHMARKS[name], settings, options.rounds)
            print(report.write(BENCHMARKS[name], outcomes, settings, options.rounds), end="\n\n", flush=True)
            troubles += sum(outcome.failed for outcome in outcomes.values())
    return 1 if troubles else 0


def parse_command_line() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure asyncnet beside its peers. Tables are kept under benchmarks/results/.",
        epilog="Exit status: 0; 1 where a candidate failed; 2 where nothing can be measured. A missed target is a 0.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which benchmarks, of those --list names (all)")
    parser.add_argument("--rounds", type=int, default=5, help="how often each candidate is measured (5)")
    parser.add_argument("--seconds", type=int, default=3, help="how long a rate is measured each time (3)")
    parser.add_argument("--list", action="store_true", help="name the benchmarks, and end")
    options = parser.parse_args()
    for name in options.names:
        if name not in BENCHMARKS:
            parser.error(f"no benchmark {name!r}: there are {', '.join(BENCHMARKS)}")
    if not 1 <= options.rounds <= MAX_ROUNDS:
        parser.error(f"--rounds takes 1 to {MAX_ROUNDS}")
    if not 1 <= options.seconds <= MAX_SECONDS:
        parser.error(f"--seconds takes 1 to {MAX_SECONDS}")
    return options


if __name__ == "__main__":
    if sys.platform != "linux":
        sys.exit("the benchmarks pin processes to cores and read /proc: they run on Linux alone")
    try:
        sys.exit(main())
    except BenchmarkError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)

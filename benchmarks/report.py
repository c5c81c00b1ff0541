"""What a run found, as a table for the terminal, as Markdown and as JSON under benchmarks/results/."""

from __future__ import annotations

import json
import os
import platform
import re
import ssl
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from itertools import chain

from benchmarks.harness import CHECKOUT, HERE, SATURATED, Benchmark, Outcome, Sample, Settings, Target


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text, the first of them the head."""

    rows: list[list[str]]

    def plain(self) -> str:
        widths = [max(map(len, column)) for column in zip(*self.rows, strict=True)]
        return "\n".join(
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in self.rows
        )

    def markdown(self) -> str:
        head, *body = ("| " + " | ".join(row) + " |" for row in self.rows)
        return "\n".join([head, "|---" + "|--:" * (len(self.rows[0]) - 1) + "|", *body])


def tabulate(benchmark: Benchmark, outcomes: dict[str, Outcome]) -> Table:
    """The medians of each candidate, the spread of what is compared, and asyncnet's ratio to it."""
    first = benchmark.columns[0]
    rows = [["", *(column.title for column in benchmark.columns), "lowest to highest", "asyncnet / this"]]
    own = outcomes[benchmark.candidates[0].name]
    for name, outcome in outcomes.items():
        if outcome.trouble:
            state = "failed" if outcome.failed else outcome.trouble
            rows.append([name, state, *[""] * (len(benchmark.columns) + 1)])
            continue
        medians = outcome.medians
        values = [sample[first.key] for sample in outcome.samples]
        rows.append(
            [
                name,
                *(column.form.format(medians[column.key]) for column in benchmark.columns),
                f"{first.form.format(min(values))} to {first.form.format(max(values))}",
                "" if own.trouble else f"{own.medians[first.key] / medians[first.key]:.2f}",
            ]
        )
    return Table(rows)


def remarks(benchmark: Benchmark, outcomes: dict[str, Outcome]) -> list[str]:
    """Which targets are met, and what makes a figure doubtful: a target that rests on one is neither met nor missed."""
    medians = {name: outcome.medians for name, outcome in outcomes.items() if not outcome.trouble}
    busy = {name: sample.get("server_busy", 1.0) for name, sample in medians.items()}
    sound = {name: sample for name, sample in medians.items() if busy[name] >= SATURATED}
    lines = [verdict(target, medians, sound) for target in benchmark.targets]
    lines += [f"failed: {name}: {outcome.trouble}" for name, outcome in outcomes.items() if outcome.failed]
    lines += [
        f"doubtful: {name} used only {busy[name]:.0%} of its core: the load or a neighbour held it up"
        for name in medians
        if name not in sound
    ]
    return lines


def verdict(target: Target, medians: dict[str, Sample], sound: dict[str, Sample]) -> str:
    """What became of a target. `sound` are those of the medians that are not doubtful."""
    try:
        value = target.value(medians)
    except KeyError as error:
        return f"not known: {target.text} ({error.args[0]} was not measured)"
    try:
        target.value(sound)
    except KeyError as error:
        return f"doubtful: {target.text} ({value:.2f}, and {error.args[0]} is doubtful)"
    return f"{'met' if target.met(value) else 'MISSED'}: {target.text} ({value:.2f})"


def facts(benchmark: Benchmark, settings: Settings) -> dict[str, str | int]:
    """What of the machine a reader needs to place the figures, and the versions of all that was compared."""
    found: dict[str, str | int] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "processor": processor(),
        "cores": os.cpu_count() or 0,
        "server core": settings.server_core,
        "load core": settings.load_core,
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "OpenSSL": ssl.OPENSSL_VERSION,
    }
    distributions = metadata.packages_distributions()
    for module in dict.fromkeys(
        ["trio", *chain.from_iterable(candidate.requires for candidate in benchmark.candidates)]
    ):
        found |= {name: metadata.version(name) for name in distributions.get(module, ())} or {module: "not installed"}
    for program in dict.fromkeys(chain.from_iterable(candidate.programs for candidate in benchmark.candidates)):
        found[program] = version_of(program)
    return found


def version_of(program: str) -> str:
    """What a program says of its version."""
    try:
        said = subprocess.run([program, "-v"], capture_output=True, text=True)
    except FileNotFoundError:
        return "not installed"
    number = re.search(r"\d+\.\d[-+.\w]*", said.stdout + said.stderr)
    return number[0] if number else "unknown"


def processor() -> str:
    with open("/proc/cpuinfo") as lines:
        for line in lines:
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.machine()


def commit() -> str:
    """The commit that was measured, marked where the checkout differs from it."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--exclude=*"], cwd=CHECKOUT, capture_output=True, text=True
        )
    except FileNotFoundError:
        return "unknown"
    return described.stdout.strip() or "unknown"


def write(benchmark: Benchmark, outcomes: dict[str, Outcome], settings: Settings, rounds: int) -> str:
    """Keeps the run under benchmarks/results/, and returns what the terminal shows of it."""
    table, lines = tabulate(benchmark, outcomes), remarks(benchmark, outcomes)
    circumstances = {"rounds": rounds, "seconds": settings.seconds} | facts(benchmark, settings)
    folder = HERE / "results"
    folder.mkdir(exist_ok=True)
    markdown = [
        f"# {benchmark.title}",
        table.markdown(),
        "\n".join(f"- {line}" for line in lines),
        benchmark.notes,
        "Medians over all rounds. How and where it was measured:",
        "\n".join(f"- {name}: {value}" for name, value in circumstances.items()),
    ]
    (folder / f"{benchmark.name}.md").write_text("\n\n".join(filter(None, markdown)) + "\n")
    samples = {name: outcome.trouble or outcome.samples for name, outcome in outcomes.items()}
    kept = {"benchmark": benchmark.name, "circumstances": circumstances, "samples": samples}
    (folder / f"{benchmark.name}.json").write_text(json.dumps(kept, indent=2) + "\n")
    return "\n".join([benchmark.title, "", table.plain(), "", *lines, *filter(None, [benchmark.notes])])

"""The relay is ended again and again while it passes mail on to smtp-sink: all that it has taken arrives.

`tests/faults/test_relay_kills.py` kills it many more times, with a server of ours behind it.
"""

from __future__ import annotations

import signal
import smtplib
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from email import message_from_bytes
from functools import partial
from pathlib import Path

from asyncnet.relay.runner import RelayLimits
from tests.cli.command import DEADLINE
from tests.cli.test_serve_smtp import until
from tests.interop.mail_servers import Peer, smtp_sink
from tests.interop.relaying import ANNA, CARL, Relay, letter, relaying

MESSAGES, CLIENTS = 300, 4


def send_all(relay: Relay, left: deque[str], taken: set[str]) -> None:
    """Send what is left until nothing is, or until the relay is gone; note what it has taken."""
    try:
        with smtplib.SMTP(relay.host, relay.port, timeout=DEADLINE) as smtp:
            while left:
                subject = left.popleft()
                smtp.sendmail(ANNA, [CARL], letter(subject))
                taken.add(subject)
    except (OSError, IndexError):  # which smtplib's own errors are, too; another client had the last one
        pass


def relay_all(folder: Path, sink: Peer, number: int, ends: Sequence[int]) -> tuple[set[str], list[str]]:
    """Send all through a relay that gets a signal whenever it has taken so many as `ends` says.

    Returns the subjects of what it has taken, and of what has arrived.
    """
    left, taken = deque(f"number {number}" for number in range(MESSAGES)), set[str]()
    for count in ends:
        with relaying(folder, "--relay-to", sink.url()) as relay, ThreadPoolExecutor(CLIENTS) as clients:
            for _ in range(CLIENTS):
                clients.submit(send_all, relay, left, taken)
            until(partial(has, taken, count))
            status, _ = relay.end(number)
            assert status == (0 if number == signal.SIGTERM else -number)
    with relaying(folder, "--relay-to", sink.url()) as relay:
        send_all(relay, left, taken)
        assert not left
        relay.wait_until_empty()
        assert relay.returned == []
    contents = sink.contents()
    subjects = [str(message_from_bytes(content)["Subject"]) for content in contents]
    for subject, content in zip(subjects, contents, strict=True):
        assert content.endswith(letter(subject).replace(b"\r\n", b"\n"))
    return taken, subjects


def has(taken: set[str], count: int) -> bool:
    return len(taken) >= count


def test_what_was_taken_arrives_though_the_relay_is_killed(tmp_path: Path) -> None:
    ends = range(40, MESSAGES - 40, 40)
    with smtp_sink() as sink:
        taken, arrived = relay_all(tmp_path, sink, signal.SIGKILL, ends)
    assert taken <= set(arrived)
    # RFC 5321 section 6.1: those that were being handed over, and not crossed off yet.
    twice = len(arrived) - len(set(arrived))
    assert twice <= len(ends) * RelayLimits().per_destination, f"{twice} came twice"


def test_a_relay_that_is_asked_to_end_hands_over_nothing_twice(tmp_path: Path) -> None:
    with smtp_sink("-W", ".:1:10") as sink:  # one in ten replies takes a second or more
        taken, arrived = relay_all(tmp_path, sink, signal.SIGTERM, [100, 200])
    assert taken <= set(arrived)
    assert len(arrived) == len(set(arrived))

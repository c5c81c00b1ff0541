"""The relay is killed again and again while it passes mail on to smtp-sink: all that it has taken arrives.

`tests/faults/test_relay_kills.py` does the same many times, against a server of ours.
"""

from __future__ import annotations

import smtplib
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from email import message_from_bytes
from functools import partial
from pathlib import Path

from asyncnet.relay.runner import RelayLimits
from tests.cli.command import DEADLINE
from tests.cli.test_serve_smtp import until
from tests.interop.mail_servers import smtp_sink
from tests.interop.relaying import ANNA, CARL, Relay, letter, relaying

MESSAGES, CLIENTS = 300, 4
KILLS = range(40, MESSAGES - 40, 40)
"""How many messages have been taken when the relay is killed."""


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


def test_what_was_taken_arrives_though_the_relay_is_killed(tmp_path: Path) -> None:
    left, taken = deque(f"number {number}" for number in range(MESSAGES)), set[str]()
    with smtp_sink() as sink:
        for count in KILLS:
            with relaying(tmp_path, "--relay-to", sink.url()) as relay, ThreadPoolExecutor(CLIENTS) as clients:
                for _ in range(CLIENTS):
                    clients.submit(send_all, relay, left, taken)
                until(partial(has, taken, count))
                relay.kill()
        with relaying(tmp_path, "--relay-to", sink.url()) as relay:
            send_all(relay, left, taken)
            assert not left
            relay.wait_until_empty()
            assert relay.returned == []
        contents = sink.contents()
    subjects = [str(message_from_bytes(content)["Subject"]) for content in contents]
    for subject, content in zip(subjects, contents, strict=True):
        assert content.endswith(letter(subject).replace(b"\r\n", b"\n"))
    assert taken <= set(subjects)
    twice = len(subjects) - len(set(subjects))
    # RFC 5321 section 6.1: those that were being handed over, and not crossed off yet.
    assert twice <= len(KILLS) * RelayLimits().per_destination, f"{twice} came twice"


def has(taken: set[str], count: int) -> bool:
    return len(taken) >= count

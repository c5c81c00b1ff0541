"""`asyncnet serve smtp` as a relay between a client here and a server of somebody else's."""

from __future__ import annotations

import mailbox
import smtplib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from email import message_from_string
from email.message import Message
from pathlib import Path

from asyncnet.relay.admin import Listed, Selection, open_admin
from tests.cli.command import DEADLINE, serving
from tests.cli.test_serve_smtp import until

ANNA, CARL = "anna@example.org", "carl@example.com"
"""She sends, and what comes back to her is kept by the relay itself; he is elsewhere."""

LETTER = b"""\
From: anna@example.org\r
To: carl@example.com\r
Date: Thu, 01 Jan 2026 12:00:00 +0000\r
Message-ID: <%b@example.org>\r
Subject: hello\r
\r
how are you?\r
"""


def letter(subject: str) -> bytes:
    """A short message that has all that a server might add."""
    return LETTER.replace(b"hello", subject.encode()) % subject.encode()


@dataclass
class Relay:
    """A relay that runs. Whoever is here may send to anybody."""

    host: str
    port: int
    spool: Path
    box: Path
    """Anna's Maildir."""
    end: Callable[[int], tuple[int, str]]
    """Ends it by a signal; returns its exit status and what it has said on standard error."""

    def send(
        self,
        recipients: Sequence[str],
        content: bytes,
        options: Sequence[str] = (),
        wishes: Sequence[str] = (),
        *,
        sender: str = ANNA,
    ) -> None:
        """Hand it a message, with parameters of MAIL and of each RCPT; it is taken when this returns."""
        with smtplib.SMTP(self.host, self.port, timeout=DEADLINE) as smtp:
            smtp.ehlo("client.example")
            assert smtp.sendmail(sender, list(recipients), content, list(options), list(wishes)) == {}

    @property
    def queue(self) -> list[Listed]:
        """What is in its queue."""
        with open_admin(self.spool) as queue:
            return list(queue.find(Selection()))

    @property
    def returned(self) -> list[Message]:
        """What has come back to Anna."""
        return [*mailbox.Maildir(self.box, create=False)] if (self.box / "cur").is_dir() else []

    # Where several tests share a relay, each has a recipient of its own.

    def reply_for(self, recipient: str) -> str | None:
        """Why the mail for a recipient is still there: "" before the first attempt, None if it is not there."""
        everybody = (each for _, recipients in self.queue for each in recipients)
        found = next((each for each in everybody if str(each.recipient.address) == recipient), None)
        return None if found is None else str(found.reply or "")

    def told_of(self, recipient: str) -> list[dict[str, str]]:
        """What Anna has been told about a recipient."""
        return [told[recipient] for report in self.returned if recipient in (told := fates(report))]

    # Where one has it for itself.

    def wait_until_empty(self) -> None:
        """Wait until all that it has taken is delivered, or has come back."""
        until(lambda: not self.queue)

    def wait_until_put_off(self) -> str:
        """Wait until its only message has been tried for its only recipient; returns why it stays in the queue."""
        until(lambda: any(recipient.reply for _, recipients in self.queue for recipient in recipients))
        ((_, (recipient,)),) = self.queue
        return str(recipient.reply)

    def wait_for_report(self) -> Message:
        """The first thing that comes back to Anna, and the only one."""
        until(lambda: bool(self.returned))
        (report,) = self.returned
        return report


@contextmanager
def relaying(
    folder: Path, *options: object, host: str = "127.0.0.1", port: int = 0, listens_on: str | None = None
) -> Iterator[Relay]:
    """A relay with its files in `folder`, which may be an earlier one's. It is found at `host`."""
    box = folder / "mail" / "anna"
    box.mkdir(parents=True, exist_ok=True)
    fixed = ("--spool", folder / "spool", "--local", f"example.org={folder}/mail", "--trust", host)
    with serving(
        "smtp", f"tcp://{listens_on or host}:{port}", *fixed, "--hostname", "relay.example.org", *options
    ) as service:
        yield Relay(host, service.ports[0], folder / "spool", box, service.end)


def fates(report: Message) -> dict[str, dict[str, str]]:
    """The fields of RFC 3464 in a report for each recipient, by the recipient's address."""
    assert report.get_content_type() == "multipart/report"
    parts = report.get_payload()
    assert isinstance(parts, list)
    status = parts[1]
    assert isinstance(status, Message)
    assert status.get_content_type() in ("message/delivery-status", "message/global-delivery-status")
    _, *groups = status.as_bytes().decode().partition("\n\n")[2].strip().split("\n\n")
    found = [{name: str(value) for name, value in message_from_string(group).items()} for group in groups]
    return {each["Final-Recipient"].partition(";")[2].strip(): each for each in found}

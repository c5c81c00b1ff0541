"""The three-digit reply that FTP and SMTP share: RFC 959 section 4.2, RFC 5321 section 4.2. No I/O.

    multi-line, FTP   "211-Features:" CRLF  " SIZE" CRLF  "211 End" CRLF
    multi-line, SMTP  "250-mail.example" CRLF  "250-SIZE" CRLF  "250 HELP" CRLF

A reader knows by the space behind the code which line is the last. In FTP the lines between are free text, so that a
line of digits could end the reply before its time: there each is sent with a space in front, as RFC 959 asks for.
Servers use `Reply.encode`, clients `ReplyParser`; what a client raises for a reply that it has not hoped for is made by
`error_for`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from asyncnet.errors import AsyncnetError, LocalProtocolError, RemoteProtocolError
from asyncnet.printable import printable

MAX_REPLY = 64 * 1024
"""How long a whole reply may be, in bytes: a STAT of a folder is the longest that real servers send."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply: its code, and its lines without the code. Bytes that are no UTF-8 are surrogates (PEP 383)."""

    code: int
    lines: tuple[str, ...] = ("",)
    _sent: tuple[bool, bytes] | None = field(default=None, init=False, repr=False, compare=False)  # last time, and how

    @classmethod
    def of(cls, code: int, *lines: str) -> Reply:
        """`Reply.of(220, "ready")`."""
        return cls(code, lines or ("",))

    @property
    def text(self) -> str:
        """All lines, a newline between each."""
        return "\n".join(self.lines)

    @property
    def enhanced(self) -> str | None:
        """The enhanced code (RFC 3463) in front of the text, "5.1.1"; None: there is none, or one of another class than
        the reply. SMTP alone has them (RFC 2034)."""
        match = _match_enhanced(self.lines[0])
        return match[1] if match is not None and match[1][0] == str(self.code // 100) else None

    @property
    def is_preliminary(self) -> bool:
        """1xx: it has begun, another reply follows."""
        return self.code // 100 == 1

    @property
    def is_success(self) -> bool:
        """2xx: it is done."""
        return self.code // 100 == 2

    @property
    def asks_for_more(self) -> bool:
        """3xx: another command belongs to it."""
        return self.code // 100 == 3

    @property
    def is_transient_failure(self) -> bool:
        """4xx: the same may succeed later."""
        return self.code // 100 == 4

    @property
    def is_permanent_failure(self) -> bool:
        """5xx: the same will fail again."""
        return self.code // 100 == 5

    def __str__(self) -> str:
        return f"{self.code} {' / '.join(line.strip() for line in self.lines)}".rstrip()

    def encode(self, *, every_line_coded: bool) -> bytes:
        """As it is sent: with the code in each line (SMTP), or a space in front of those between (FTP).

        Raises `LocalProtocolError` if a line holds a CR, an LF or a NUL, or the code is none.
        """
        if self._sent is not None and self._sent[0] is every_line_coded:
            return self._sent[1]
        encoded = self._encode(every_line_coded)
        object.__setattr__(self, "_sent", (every_line_coded, encoded))  # servers say the same again and again
        return encoded

    def _encode(self, every_line_coded: bool) -> bytes:
        if not 100 <= self.code <= 599:
            raise LocalProtocolError(f"{self.code} is no reply code")
        for line in self.lines:
            if not _is_sendable(line):
                raise LocalProtocolError(f"a line of a reply holds a line end or NUL: {line!r}")
        *before, last = self.lines
        sent = []
        for index, line in enumerate(before):
            sent.append(f"{self.code}-{line}\r\n" if every_line_coded or not index else f" {line}\r\n")
        sent.append(f"{self.code} {last}\r\n")
        return "".join(sent).encode("utf-8", "surrogateescape")


_match_enhanced = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?: |$)").match
_is_sendable = re.compile(r"[^\r\n\0]*").fullmatch

# RFC 959 section 4.2, RFC 5321 section 4.2: the first digit is 1 to 5, the second 0 to 5. Servers of FTP go beyond that
# (RFC 2228 has 6yz), and some leave the text and its space out.
_match_line = re.compile(rb"([1-6][0-9]{2})(?:([ -])(.*))?", re.DOTALL).fullmatch


class ReplyParser:
    """Puts replies together from lines. With `every_line_coded` each line has to begin with the reply's code (SMTP)."""

    def __init__(self, *, every_line_coded: bool, limit: int = MAX_REPLY) -> None:
        self._every_line_coded = every_line_coded
        self._limit = limit
        self._code = b""  # of the reply that has begun
        self._lines: list[str] = []
        self._size = 0

    @property
    def is_between(self) -> bool:
        """Whether no reply has begun that has not ended."""
        return not self._code

    def feed(self, line: bytes) -> Reply | None:
        """The next line, with or without its end; returns the reply that it completes.

        Raises `RemoteProtocolError` for what is no reply, and for one that is too long.
        """
        line = line.rstrip(b"\r\n")
        self._size += len(line) + 2
        if self._size > self._limit:
            raise RemoteProtocolError(f"a reply of more than {self._limit} bytes")
        match = _match_line(line)
        if not self._code:
            if match is None:
                raise RemoteProtocolError(f"no reply: {line[:100]!r}")
            self._code = match[1]
        elif match is None or match[1] != self._code:
            if self._every_line_coded:
                raise RemoteProtocolError(f"a line of another reply within {self._code.decode()}: {line[:100]!r}")
            self._lines.append(line.decode("utf-8", "surrogateescape"))
            return None
        self._lines.append((match[3] or b"").decode("utf-8", "surrogateescape"))
        if match[2] == b"-":
            return None
        reply = Reply(int(self._code), tuple(self._lines))
        self._code, self._lines, self._size = b"", [], 0
        return reply


# What a client raises

_SHOWN = 300
"""How much of a server's words stands in an exception, in characters."""


class ReplyError(AsyncnetError):
    """The server has refused, or said something else than was to be expected. `reply` is what, `command` to what."""

    def __init__(self, reply: Reply, command: str = "") -> None:
        self.reply = reply
        self.command = command
        said = printable(str(reply))
        said = said if len(said) <= _SHOWN else f"{said[:_SHOWN]}…"
        super().__init__(f"{printable(command)}: the server says {said}" if command else f"the server says {said}")

    @property
    def code(self) -> int:
        return self.reply.code

    @property
    def enhanced(self) -> str | None:
        """The enhanced code (RFC 3463), "5.1.1", where the reply has one."""
        return self.reply.enhanced


class TransientReplyError(ReplyError):
    """4yz: the same may succeed later."""


class PermanentReplyError(ReplyError):
    """5yz: the same will fail again."""


class ServiceClosing(TransientReplyError):
    """421: the server closes the connection, and so did we."""


def error_for(reply: Reply, command: str = "") -> ReplyError:
    """The exception that fits `reply`."""
    kind = ReplyError
    if reply.code == 421:
        kind = ServiceClosing
    elif reply.is_transient_failure:
        kind = TransientReplyError
    elif reply.is_permanent_failure:
        kind = PermanentReplyError
    return kind(reply, command)

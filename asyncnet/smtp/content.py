"""The content behind DATA: transparency dots, the end, and its line ends. RFC 5321 sections 2.3.8, 4.1.1.4, 4.5.2.

Two servers that see the end of one message in different places can be made to take a part of it for commands: SMTP
smuggling (CVE-2023-51764 and its kin). So the end is CR LF "." CR LF and nothing that looks like it; a CR without an
LF, or an LF without a CR, is no content, and is never sent. The end of such a message is found all the same, so that
the reply that refuses it comes in its place.

Pieces of any size go in and pieces come out; all of it is searched by `bytes.find` and `replace`, never line by line.
No I/O. Server (`DataDecoder`, `LineCheck`) and client (`DataEncoder`) use it.
"""

from __future__ import annotations

import enum

from asyncnet.errors import LocalProtocolError

MAX_TEXT_LINE = 65536
"""The longest line that is taken, in bytes. RFC 5321 section 4.5.3.1.6 has 1000, programs that write HTML in one line
go far beyond; whoever reads mail line by line needs a bound."""

_END = b"\r\n.\r\n"


class Fault(enum.Enum):
    """What is wrong with a content; the values are what a reply says."""

    BARE_LINE_END = "a CR without LF, or an LF without CR"
    LONG_LINE = "a line that is too long"


def has_bare_line_end(data: bytes) -> bool:
    """Whether a CR or LF stands alone in `data`. A CR at its end stands alone, too."""
    pairs = data.count(b"\r\n")
    return data.count(b"\n") != pairs or data.count(b"\r") != pairs


def with_line_ends(data: bytes) -> bytes:
    """`data` with CR LF for each CR, LF and CR LF. A regular expression would take seconds for empty lines alone."""
    if not has_bare_line_end(data):
        return data
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")


class LineCheck:
    """Looks at a content that comes in pieces: `fault` is the first thing that was wrong with it."""

    def __init__(self, line_limit: int = MAX_TEXT_LINE) -> None:
        self.fault: Fault | None = None
        self._limit = line_limit
        self._length = 0  # of the line that has not ended
        self._ends_with_cr = False

    def feed(self, data: bytes) -> None:
        """The next piece."""
        if self.fault is not None or not data:
            return
        whole = b"\r" + data if self._ends_with_cr else data
        self._ends_with_cr = data.endswith(b"\r")
        if has_bare_line_end(whole[:-1] if self._ends_with_cr else whole):
            self.fault = Fault.BARE_LINE_END
        elif self._has_long_line(data):
            self.fault = Fault.LONG_LINE

    def finish(self) -> None:
        """That was all."""
        if self._ends_with_cr and self.fault is None:
            self.fault = Fault.BARE_LINE_END

    def _has_long_line(self, data: bytes) -> bool:
        """Go through `data` in steps of nearly a line's limit: in each of them a line has to end."""
        begin, room = 0, self._limit - self._length
        while len(data) - begin > room:
            end = data.rfind(b"\n", begin, begin + room)
            if end < 0:
                return True
            begin, room = end + 1, self._limit
        last = data.rfind(b"\n", begin)
        self._length = len(data) - last - 1 if last >= 0 else self._limit - room + len(data) - begin
        return False


class DataDecoder:
    """Takes the transparency out of what follows DATA, and finds its end.

    With `normalises`, line ends that are no CR LF become one, for peers who are known to know no better. The end
    is CR LF "." CR LF even then.
    """

    def __init__(self, *, normalises: bool = False, line_limit: int = MAX_TEXT_LINE) -> None:
        self.is_complete = False
        """Whether the end has come."""
        self.rest = b""
        """What came behind the end: the next commands."""
        self._check = LineCheck(line_limit)
        self._normalises = normalises
        self._held = b"\r\n"  # a dot at the very beginning is at the beginning of a line
        self._is_first = True

    @property
    def fault(self) -> Fault | None:
        """What is wrong with the content so far. All that `feed` returns is to be thrown away then."""
        return self._check.fault

    def feed(self, data: bytes) -> bytes:
        """The next bytes that came; returns content, maybe none. Nothing can be fed after the end."""
        assert not self.is_complete, "fed after the end"
        data = self._held + data
        first_dot = data.find(b"\r\n.")
        end = data.find(_END, first_dot) if first_dot >= 0 else -1
        if end >= 0:
            self.is_complete = True
            self.rest = data[end + len(_END) :]
            content = data[: end + 2]
        else:
            kept = len(data) - self._undecided(data)
            self._held = data[kept:]
            content = data[:kept]
        if self._normalises:
            content = with_line_ends(content)
            first_dot = content.find(b"\r\n.")
        if 0 <= first_dot < len(content) - 2:  # not only that of the end
            content = content.replace(b"\r\n.", b"\r\n")
        if self._is_first and content:
            self._is_first = False
            content = content[2:]  # the line end that nobody has sent
        self._check.feed(content)
        return content

    def _undecided(self, data: bytes) -> int:
        """How many bytes at the end of `data` may belong to the end of the content, or to a line end before a dot."""
        for length in (4, 3, 2, 1):
            if data.endswith(_END[:length]):
                return length
        return 1 if self._normalises and data.endswith(b"\n") else 0


class DataEncoder:
    """Puts the transparency into what follows DATA: `feed` each piece of the content, then `finish`."""

    def __init__(self) -> None:
        self._begins_line = True
        self._held = b""  # a CR, whose LF has yet to come

    def feed(self, data: bytes) -> bytes:
        """The next piece; returns what is to be sent. Raises `LocalProtocolError` for a CR or LF that stands alone."""
        data = self._held + data
        self._held = b"\r" if data.endswith(b"\r") else b""
        if self._held:
            data = data[:-1]
        if not data:
            return b""
        if has_bare_line_end(data):
            raise LocalProtocolError("a CR or LF that stands alone cannot be sent behind DATA")
        encoded = data.replace(b"\r\n.", b"\r\n..") if b"\r\n." in data else data
        if self._begins_line and data.startswith(b"."):
            encoded = b"." + encoded
        self._begins_line = data.endswith(b"\r\n")
        return encoded

    def finish(self) -> bytes:
        """The end, behind a line end of its own if the content has none. Raises `LocalProtocolError`, as `feed`."""
        if self._held:
            raise LocalProtocolError("a CR that stands alone cannot be sent behind DATA")
        return b".\r\n" if self._begins_line else _END

"""The exceptions that every layer of asyncnet raises.

Two faces: `RemoteProtocolError` is the peer's fault (a handler answers it in its protocol and the log stays quiet),
`LocalProtocolError` is the caller's (raised before a byte is sent). A connection that breaks is
`trio.BrokenResourceError`, one that was closed on this side `trio.ClosedResourceError`, as everywhere in Trio.
"""

from __future__ import annotations


class AsyncnetError(Exception):
    """The base of asyncnet's own exceptions."""


class RemoteProtocolError(AsyncnetError):
    """The peer broke the rules of the protocol."""


class LocalProtocolError(AsyncnetError):
    """This side was about to break the rules of the protocol: nothing was sent."""


class EndOfStream(RemoteProtocolError):
    """The peer ended its side at a point where nothing had been begun."""


class IncompleteRead(RemoteProtocolError):
    """The peer ended its side in the middle of an item.

    `partial` holds the bytes that did arrive; `expected` is the count that was asked for, or None for a delimiter.
    """

    def __init__(self, partial: bytes, expected: int | None = None) -> None:
        self.partial = partial
        self.expected = expected
        wanted = "the delimiter" if expected is None else f"{expected} bytes"
        super().__init__(f"the stream ended after {len(partial)} bytes, before {wanted}")


class LimitExceeded(RemoteProtocolError):
    """The peer sent more than `limit` bytes for one item. The read buffer is as it was before the call."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(f"more than {limit} bytes without the end of the item")


class ReceiveTimeout(AsyncnetError, TimeoutError):
    """A receive was still waiting at the stream's deadline. No bytes are lost, and the sending side works."""


class Draining(AsyncnetError):
    """The service is going out of service and an idle wait was ended. `connection.idle()` catches it."""


class PlaintextAfterUpgrade(RemoteProtocolError):
    """Bytes had arrived in the clear behind the command that starts TLS: an injection. The connection is closed."""


class EndpointError(AsyncnetError, ValueError):
    """An endpoint string is wrong. `text` is the string, `position` the index of the character at fault.

    The message shows the string with a caret beneath the place, each unprintable character as U+FFFD: it is made for
    a terminal.
    """

    def __init__(self, text: str, position: int, problem: str) -> None:
        self.text = text
        self.position = position
        self.problem = problem
        shown = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
        super().__init__(f"{problem}\n  {shown}\n  {' ' * position}^")


class FileShrankError(AsyncnetError):
    """A file that was being sent ended before what was promised of it: somebody has shortened it."""


class ConfigurationError(AsyncnetError):
    """Something that the user set is wrong: a missing file, a port in use, a certificate that does not load.

    The message is one line that says what to do; the command prints it and exits with status 2.
    """


class TunnelError(AsyncnetError, OSError):
    """A proxy refused to connect us, or did not speak its protocol."""

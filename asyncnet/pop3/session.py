"""What a POP3 session knows, and which command it allows next. RFC 1939 sections 3 to 6, RFC 2595 section 4. No I/O.

The rules of the game
=====================

A session is without a mailbox first (AUTHORIZATION): USER gives a name, PASS a password; AUTH does both; STLS begins
TLS, and then the session begins anew, whatever it was. With the login it has a mailbox (TRANSACTION), and what is in it
is settled: numbers and sizes stay what they are, whatever is delivered or vanishes meanwhile. DELE only marks; QUIT
removes what is marked (UPDATE), and nothing else does.

    phase           CAPA, QUIT   USER   PASS                STLS, AUTH   all others
    AUTHORIZATION   yes          yes    directly after USER yes          no
    TRANSACTION     yes          no     no                  no           yes
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from asyncnet.errors import RemoteProtocolError
from asyncnet.mailbox.storage import Message
from asyncnet.pop3.wire import Reply, err, parse_number


class Phase(enum.Enum):
    """RFC 1939 section 3 calls it a state."""

    AUTHORIZATION = enum.auto()
    TRANSACTION = enum.auto()


_ALWAYS = frozenset({"CAPA", "QUIT"})
_BEFORE_LOGIN = frozenset({"USER", "PASS", "AUTH", "STLS"})


@dataclass(slots=True)
class Session:
    """The state of a connection since its beginning, or since STLS."""

    phase: Phase = Phase.AUTHORIZATION
    name: str | None = None
    """What USER said."""
    messages: Sequence[Message] = ()
    """All that was there at the login; their numbers begin with 1."""
    deleted: set[int] = field(default_factory=set)
    """Numbers of messages that QUIT is to remove."""
    retrieved: set[int] = field(default_factory=set)
    """Numbers of those that were sent as a whole."""
    size: int = 0
    """Bytes in the messages that are not deleted: counted along, since who floods us with STAT may have many."""
    whole_size: int = 0
    """Bytes in all of them."""

    def check(self, verb: str) -> Reply | None:
        """The reply that refuses `verb` in this state; None: it is legal. What USER said is for PASS alone."""
        if verb in _ALWAYS:
            return None
        if verb in _BEFORE_LOGIN and self.phase is Phase.TRANSACTION:
            return err("You are logged in already.")
        if verb not in _BEFORE_LOGIN and self.phase is Phase.AUTHORIZATION:
            return err("Log in first.")
        name, self.name = self.name, None
        if verb == "PASS":
            if name is None:
                return err("USER comes first.")
            self.name = name
        return None

    def log_in(self, messages: Sequence[Message]) -> None:
        """The mailbox is theirs, and holds these."""
        self.phase, self.messages = Phase.TRANSACTION, messages
        self.size = self.whole_size = sum(message.size for message in messages)

    def number(self, text: str) -> int:
        """The number of a message that is there. Raises `RemoteProtocolError` for anything else."""
        number = parse_number(text)
        if number is None:
            raise RemoteProtocolError("A message has a number from 1 on")
        if number > len(self.messages):
            raise RemoteProtocolError(f"There is no such message: the last is {len(self.messages)}")
        if number in self.deleted:
            raise RemoteProtocolError("That message is deleted")
        return number

    def message(self, number: int) -> Message:
        return self.messages[number - 1]

    @property
    def count(self) -> int:
        """How many messages there are that are not deleted."""
        return len(self.messages) - len(self.deleted)

    def left(self) -> Iterator[tuple[int, Message]]:
        """Those messages, with their numbers."""
        return ((number, one) for number, one in enumerate(self.messages, 1) if number not in self.deleted)

    def delete(self, number: int) -> None:
        """Mark a message to be removed."""
        self.deleted.add(number)
        self.size -= self.message(number).size

    def reset(self) -> None:
        """No message is marked."""
        self.deleted.clear()
        self.size = self.whole_size

"""What an SMTP session knows, and which command it allows next. RFC 5321 section 4.1.4, RFC 3030, 3207, 4954. No I/O.

The rules of the game
=====================

A session begins with a greeting (EHLO or HELO, in LMTP LHLO), which may come again and then ends a transaction, as RSET
does. A transaction goes MAIL, RCPT for each recipient, and DATA or any number of BDAT.

    phase        hello    MAIL      RCPT         DATA     BDAT               RSET     STARTTLS   AUTH
    NEW          READY    503       503          503      503                NEW      503        503
    READY        READY    SENDER    503          503      503                READY    NEW        READY
    SENDER       READY    503       RECIPIENTS   503      503                READY    NEW        503
    RECIPIENTS   READY    503       RECIPIENTS   READY    CHUNKS, READY      READY    NEW        503
    CHUNKS       READY    503       503          503      CHUNKS, READY      READY    NEW        503

RCPT that is refused leaves the phase as it was, so that DATA needs one that was accepted. The last BDAT, and one that
fails, lead back to READY; those that a client has sent behind it are refused. What is BINARYMIME comes by BDAT alone.

NOOP, HELP, VRFY, EXPN, RSET and QUIT may come at any time. STARTTLS forgets everything, whoever has logged in as well.
Where TLS is demanded, only the commands that lead to it are heard before it: else 530; where a login is, no mail is
taken before it, and no address looked at.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from asyncnet.auth.identity import Identity
from asyncnet.replies import Reply
from asyncnet.smtp.envelope import Body, Envelope
from asyncnet.smtp.wire import coded


class Phase(enum.Enum):
    """How far session and transaction have come."""

    NEW = enum.auto()
    READY = enum.auto()
    SENDER = enum.auto()
    RECIPIENTS = enum.auto()
    CHUNKS = enum.auto()


_LEGAL = {
    "MAIL": (Phase.READY,),
    "RCPT": (Phase.SENDER, Phase.RECIPIENTS),
    "DATA": (Phase.RECIPIENTS,),
    "BDAT": (Phase.RECIPIENTS, Phase.CHUNKS),
    "AUTH": (Phase.READY,),
    "STARTTLS": (Phase.READY, Phase.SENDER, Phase.RECIPIENTS, Phase.CHUNKS),
}
_COMES_FIRST = {
    Phase.NEW: "A greeting comes first: EHLO, HELO or LHLO.",
    Phase.READY: "MAIL comes first.",
    Phase.SENDER: "RCPT comes first, and has to be accepted.",
    Phase.RECIPIENTS: "A message has begun: RSET gives it up.",
    Phase.CHUNKS: "BDAT has begun: it goes on, or RSET gives it up.",
}
_BEFORE_TLS = frozenset({"NOOP", "EHLO", "LHLO", "STARTTLS", "QUIT"})  # RFC 3207 section 4
_FOR_USERS = frozenset({"MAIL", "VRFY", "EXPN"})


def _out_of_order(verb: str, phase: Phase) -> Reply:
    if verb in ("MAIL", "AUTH") and phase is Phase.SENDER:
        phase = Phase.RECIPIENTS  # it is not for want of a recipient
    return coded(503, "5.5.1", _COMES_FIRST[phase])


@dataclass(slots=True)
class Session:
    """The state of one connection since its beginning, or since STARTTLS."""

    secured: bool = False
    """Whether there is TLS."""
    tls_required: bool = False
    """Whether nothing is done without it."""
    login_required: bool = False
    """Whether only users may send."""
    phase: Phase = Phase.NEW
    client_name: str = ""
    """What the client calls itself."""
    is_extended: bool = False
    """Whether it said so by EHLO or LHLO."""
    identity: Identity | None = None
    """Who has logged in."""
    envelope: Envelope | None = None
    """Of the transaction, if there is one."""
    messages: int = 0
    """How many transactions have begun."""

    def check(self, verb: str) -> Reply | None:
        """The reply that refuses `verb` in this state; None: it is legal."""
        if self.tls_required and not self.secured and verb not in _BEFORE_TLS:
            return coded(530, "5.7.0", "STARTTLS comes first.")
        legal = _LEGAL.get(verb)
        if legal is not None and self.phase not in legal:
            return _out_of_order(verb, self.phase)
        if verb in _FOR_USERS and self.login_required and self.identity is None:
            return coded(530, "5.7.0", "A login comes first: AUTH.")
        if verb == "AUTH" and self.identity is not None:
            return coded(503, "5.5.1", "Somebody is logged in already.")
        if verb == "STARTTLS" and self.secured:
            return coded(503, "5.5.1", "TLS has begun already.")
        if verb == "DATA" and self.envelope is not None and self.envelope.body is Body.BINARY:
            return coded(503, "5.5.1", "BODY=BINARYMIME comes by BDAT.")
        return None

    def greet(self, name: str, *, is_extended: bool) -> None:
        """EHLO, HELO or LHLO: whatever transaction there was is over."""
        self.phase, self.client_name, self.is_extended, self.envelope = Phase.READY, name, is_extended, None

    def begin(self, envelope: Envelope) -> None:
        """MAIL was accepted."""
        self.phase, self.envelope = Phase.SENDER, envelope
        self.messages += 1

    def recipient_accepted(self) -> None:
        """RCPT was accepted."""
        self.phase = Phase.RECIPIENTS

    def chunk_accepted(self) -> None:
        """BDAT was accepted, and was not the last."""
        self.phase = Phase.CHUNKS

    def reset(self) -> None:
        """The transaction is over, completed or not."""
        if self.phase is not Phase.NEW:
            self.phase, self.envelope = Phase.READY, None

    def secured_anew(self) -> Session:
        """The session after STARTTLS: as at the beginning (RFC 3207 section 4.2)."""
        return Session(secured=True, tls_required=self.tls_required, login_required=self.login_required)

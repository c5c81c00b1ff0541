"""What an FTP session knows, and which command it allows next. RFC 959 section 5.4, RFC 2228, 2428, 3659, 4217. No I/O.

The rules of the game
=====================

A session begins without a name. USER gives one, and asks for a password where the name needs one; PASS makes the login
complete. Both may come again at any time before that, and USER also after it: the one who was logged in is out then, as
with REIN. AUTH begins TLS, and then the session begins anew, whatever it was.

    phase             USER              PASS                        REIN           AUTH
    NAME_WANTED       PASSWORD_WANTED   503                         NAME_WANTED    NAME_WANTED
    PASSWORD_WANTED   PASSWORD_WANTED   LOGGED_IN or NAME_WANTED    NAME_WANTED    NAME_WANTED
    LOGGED_IN         PASSWORD_WANTED   503                         NAME_WANTED    NAME_WANTED

Commands that do not say otherwise need LOGGED_IN: else 530.

Three commands announce another: RNFR the RNTO that has to come next; REST and ALLO the transfer. A client may ask for
its data connection between REST and the transfer, and set the type; anything else forgets what was announced. PBSZ
comes before PROT, both after AUTH. After EPSV ALL no other way to a data connection is open (RFC 2428 section 4).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from asyncnet.ftp.storage import HashAlgorithm, Path
from asyncnet.replies import Reply

FACTS = ("type", "size", "modify", "perm", "unique", "unix.mode")
"""The facts of MLSD and MLST (RFC 3659 section 7.5), all of which are sent unless OPTS says otherwise."""


class Phase(enum.Enum):
    """How far the login has come."""

    NAME_WANTED = enum.auto()
    PASSWORD_WANTED = enum.auto()
    LOGGED_IN = enum.auto()


_KEEP_ANNOUNCEMENTS = frozenset(
    # What may come between REST or ALLO and their transfer; NOOP and STAT change nothing.
    {"PASV", "EPSV", "PORT", "EPRT", "TYPE", "MODE", "STRU", "PROT", "PBSZ", "NOOP", "STAT", "REST", "ALLO", "SIZE"}
)
_DATA_COMMANDS = frozenset({"PASV", "PORT", "EPRT"})


@dataclass(slots=True)
class Session:
    """The state of one control connection since its beginning, or since AUTH or REIN."""

    secured: bool = False
    """Whether the control connection has TLS."""
    protected: bool = False
    """Whether data connections are to have it (PROT P)."""
    buffer_size_set: bool = False
    """Whether PBSZ came."""
    phase: Phase = Phase.NAME_WANTED
    name: str = ""
    """What USER said."""
    folder: Path = ()
    """The working folder."""
    is_ascii: bool = True
    """TYPE A, which is what a session begins with (RFC 959 section 3.1.1.1), or TYPE I."""
    offset: int = 0
    """Where the next transfer begins (REST)."""
    allocated: int | None = None
    """How many bytes the next upload will have at least (ALLO)."""
    rename_from: Path | None = None
    """What RNTO gives another name."""
    only_extended_passive: bool = False
    """EPSV ALL has come."""
    facts: tuple[str, ...] = FACTS
    """What MLSD and MLST tell of each entry."""
    hash_algorithm: HashAlgorithm = HashAlgorithm.SHA256
    hash_range: tuple[int, int | None] = field(default=(0, None))
    """The bytes that HASH takes (RANG); None: to the end."""

    def check(self, verb: str, *, before_login: bool) -> Reply | None:
        """The reply that refuses `verb` in this state; None: it is legal, and what it does not keep is forgotten."""
        if not before_login and self.phase is not Phase.LOGGED_IN:
            return Reply.of(530, "Log in with USER and PASS first.")
        if verb == "RNTO" and self.rename_from is None:
            return Reply.of(503, "RNFR comes first.")
        if verb == "PASS" and self.phase is not Phase.PASSWORD_WANTED:
            return Reply.of(503, "USER comes first." if self.phase is Phase.NAME_WANTED else "Already logged in.")
        if verb in ("PBSZ", "PROT") and not self.secured:
            return Reply.of(503, "AUTH TLS comes first.")
        if verb == "PROT" and not self.buffer_size_set:
            return Reply.of(503, "PBSZ 0 comes first.")
        if self.only_extended_passive and verb in _DATA_COMMANDS:
            return Reply.of(501, "EPSV ALL was said: only EPSV is left.")
        if verb != "RNTO":
            self.rename_from = None
        return None

    def finish(self, verb: str, *, is_transfer: bool) -> None:
        """`verb` was done: forget what was announced, unless that is for something to come."""
        if is_transfer or verb not in _KEEP_ANNOUNCEMENTS:
            self.offset = 0
            self.allocated = None

    def log_in(self) -> None:
        """The password was right, or none was needed."""
        self.phase = Phase.LOGGED_IN

    def name_given(self, name: str) -> None:
        """USER: whoever was logged in is out; what was said about TLS and transfers holds."""
        self.phase, self.name, self.folder = Phase.PASSWORD_WANTED, name, ()
        self.rename_from = None

    def log_in_failed(self) -> None:
        """The password was wrong."""
        self.phase, self.name = Phase.NAME_WANTED, ""

    def restarted(self) -> Session:
        """The session after REIN: as at the beginning, with the TLS that there is (RFC 4217 section 11)."""
        return Session(self.secured, self.protected, self.buffer_size_set)

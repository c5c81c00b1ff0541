"""`FTPHandler`: an FTP server, for `serve` and `run`.

The conversation is in `control.py`, the commands in `commands_access.py`, `commands_files.py` and
`commands_transfer.py`, each a function with a declaration above it.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import time
from collections.abc import Sequence

import trio

from asyncnet.auth.guard import LoginGuard
from asyncnet.auth.identity import Authenticator
from asyncnet.errors import ConfigurationError
from asyncnet.ftp import commands_access, commands_files, commands_transfer
from asyncnet.ftp.accounts import Accounts
from asyncnet.ftp.control import Control
from asyncnet.ftp.events import Changed, Events, Listener, LoggedIn, Moved
from asyncnet.ftp.limits import FTPLimits, FTPTimeouts
from asyncnet.ftp.local_files import LocalFiles
from asyncnet.ftp.storage import Path, Storage
from asyncnet.ftp.transfer import Transfer
from asyncnet.ftp.transfer_log import transfer_logger, xferlog_line
from asyncnet.ftp.wire import show
from asyncnet.stream import Stream
from asyncnet.transports.certificates import ServerTLS

_COMMANDS_ARE_DECLARED = (commands_access, commands_files, commands_transfer)


class FTPHandler:
    """Serves files by FTP (RFC 959 and its successors), with TLS where it is given a certificate (RFC 4217).

    `files` is a folder's path, or any `Storage`; users whose entry names a `root` have another. Who may come:
    `anonymous` users, who may read, and with `anonymous_writes` do everything; and `users`, an `Authenticator` such as
    `UserFile("users.toml")`, whose entries say what each may (docs/ftp.md). At least one of the two is needed.

    `tls` lets clients begin TLS (AUTH TLS); on `tls://` endpoints it is there from the start. `tls_for_login` and
    `tls_for_data` demand it; `session_required` has data connections resume the control connection's session.
    `insecure_auth`: passwords may pass in the clear.

    `passive_ports` are the ports of data connections that clients make, `masquerade` the IPv4 address that they are
    told where this server is behind a NAT. `active` allows connections that we make, to the client alone. `fsync`: an
    upload is on the disk when it is answered.

    The `on_...` are awaited: see `asyncnet.ftp.events`. Raises ConfigurationError if the folder is none, or nobody
    could log in.
    """

    name = "ftp"
    alpn = ("ftp",)
    url_schemes = ("ftp", "ftps")
    refusal = b"421 There are too many connections: please come again.\r\n"

    def __init__(
        self,
        files: str | os.PathLike[str] | Storage | None = None,
        *,
        users: Authenticator | None = None,
        anonymous: bool = False,
        anonymous_writes: bool = False,
        tls: ServerTLS | None = None,
        tls_for_login: bool = False,
        tls_for_data: bool = False,
        session_required: bool = False,
        insecure_auth: bool = False,
        passive_ports: Sequence[int] = (),
        masquerade: str | None = None,
        active: bool = True,
        fsync: bool = False,
        greeting: str = "asyncnet is ready.",
        guard: LoginGuard | None = None,
        limits: FTPLimits = FTPLimits(),
        timeouts: FTPTimeouts = FTPTimeouts(),
        on_login: Listener[LoggedIn] | None = None,
        on_stored: Listener[Moved] | None = None,
        on_retrieved: Listener[Moved] | None = None,
        on_removed: Listener[Changed] | None = None,
        on_renamed: Listener[Changed] | None = None,
        on_folder_made: Listener[Changed] | None = None,
        on_folder_removed: Listener[Changed] | None = None,
    ) -> None:
        if users is None and not anonymous:
            raise ConfigurationError("nobody could log in: anonymous=True lets everybody read, users=… names users")
        if anonymous and files is None:
            raise ConfigurationError("anonymous users need files: a folder, or a storage")
        folder = os.fspath(files) if isinstance(files, (str, os.PathLike)) else None
        storage = LocalFiles(folder, fsync=fsync) if folder is not None else files
        assert not isinstance(storage, (str, os.PathLike)), "a path has become a storage"
        self.users = users
        self.anonymous = anonymous
        self.accounts = Accounts(storage, folder, anonymous_writes=anonymous_writes, fsync=fsync)
        self.tls = tls if tls is None or tls.alpn else tls.copy(alpn=self.alpn)
        self.tls_for_login = tls_for_login
        self.tls_for_data = tls_for_data
        self.session_required = self.tls_context_each = session_required
        self.insecure_auth = insecure_auth
        self.passive_ports = passive_ports
        self.masquerade = None if masquerade is None else _ipv4(masquerade)
        self.active = active
        self.greeting = greeting
        self.guard = guard or LoginGuard()
        self.ftp_limits = limits
        self.ftp_timeouts = timeouts
        self.events = Events(
            on_login, on_stored, on_retrieved, on_removed, on_renamed, on_folder_made, on_folder_removed
        )

    async def __call__(self, stream: trio.abc.Stream) -> None:
        """Talk to one client."""
        await Control(self, Stream.of(stream)).run()

    def log_transfer(self, control: Control, transfer: Transfer, direction: str, *, is_complete: bool) -> None:
        """Write a line of the transfer log for a file that came or went, or did not quite."""
        self._log(
            control,
            transfer.path,
            direction,
            size=transfer.moved,
            seconds=trio.current_time() - transfer.started,
            is_complete=is_complete,
        )

    def log_removal(self, control: Control, path: Path) -> None:
        """The same for a file that was deleted."""
        self._log(control, path, "d", size=0, seconds=0.0, is_complete=True)

    def _log(
        self, control: Control, path: Path, direction: str, *, size: int, seconds: float, is_complete: bool
    ) -> None:
        if not transfer_logger.isEnabledFor(logging.INFO):
            return
        account = control.account
        line = xferlog_line(
            now=time.time(),
            seconds=seconds,
            host=control.stream.peer.host or str(control.stream.peer),
            size=size,
            path=show(path),
            is_ascii=control.session.is_ascii,
            direction=direction,
            user=control.user,
            is_anonymous=account is not None and account.is_anonymous,
            is_complete=is_complete,
        )
        transfer_logger.info("%s", line)


def _ipv4(text: str) -> str:
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        raise ConfigurationError(f"masquerade is an IPv4 address, not {text!r}") from None

"""A control connection: its commands one after the other, and those that are heard while a transfer runs.

Theory of operation
===================

One task reads a command, does it and answers. A transfer that takes longer than a moment has a second task, which goes
on hearing: ABOR ends the transfer, STAT and NOOP are answered, whatever else comes is given back and waits. What could
go wrong, and why it does not:

- *The client vanishes during an upload.* The second task sees the control connection end and cancels the transfer: what
  was being stored never gets its name. Before it gets it, the connection is looked at once more.
- *Two tasks answer at once.* Whoever speaks holds `_speaking`.
- *A transfer takes hours.* `busy()` keeps the service from taking the still control connection for an idle one.
- *A data connection that ends like a whole file and is none.* It has to end without a reset, under TLS with its closing
  message, and with as many bytes as ALLO has promised.
"""

from __future__ import annotations

import errno
import logging
import math
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from contextvars import copy_context
from typing import TYPE_CHECKING, TypeVar

import trio

from asyncnet.alarms import set_alarm
from asyncnet.auth.guard import Logins
from asyncnet.connection import busy, dress, idle
from asyncnet.errors import FileShrankError, LimitExceeded, ReceiveTimeout, RemoteProtocolError
from asyncnet.ftp.accounts import Account
from asyncnet.ftp.data import DataFailed, DataSource, protect
from asyncnet.ftp.declarations import COMMANDS, Argument, Declaration, Permission
from asyncnet.ftp.session import Phase, Session
from asyncnet.ftp.storage import Path, Storage
from asyncnet.ftp.transfer import Hearing, Transfer
from asyncnet.ftp.wire import Command, parse_command, resolve
from asyncnet.replies import Reply
from asyncnet.stream import Stream
from asyncnet.transports.base import TruncatedError

if TYPE_CHECKING:
    from asyncnet.ftp.server import FTPHandler

logger = logging.getLogger("asyncnet.ftp")

T = TypeVar("T")

HEAR_AFTER = 0.02
"""When a transfer begins to be interrupted, in seconds: most are over by then, and save the second task, which costs as
much as all the rest of a small one."""

_LONG = 16 * 1024
"""Which replies are long, in bytes: of shorter ones there is always room for a few."""

_READ_AHEAD = 64 * 1024
"""How much of the commands behind a transfer is read to see whether the client is still there, in bytes."""


class Control:
    """The conversation on one control connection. Commands are functions of it and their argument."""

    def __init__(self, server: FTPHandler, stream: Stream) -> None:
        self.server = server
        self.stream = stream
        self.session = Session(secured=stream.tls is not None, protected=stream.tls is not None)
        self.session.buffer_size_set = self.session.secured  # with implicit TLS all is settled
        self._logins: Logins | None = None
        self.account: Account | None = None
        self.source: DataSource | None = None
        """Where the next data connection comes from."""
        self.transfer: Transfer | None = None
        """The one that runs."""
        self.is_ending = False
        """Whether the connection ends behind the next reply."""
        self._login_by = self._next_login_by()
        self._errors = 0
        self._speaking = trio.Lock()
        self._has_alarm = False
        self._said_goodbye = False

    def _next_login_by(self) -> float:
        """When the login is to be complete that comes next."""
        return trio.current_time() + self.server.ftp_timeouts.login

    # What commands use

    @property
    def logins(self) -> Logins:
        """What attempts to log in pass through. Anonymous users need none."""
        if self._logins is None:
            self._logins = self.server.guard.connection(self.stream.peer)
        return self._logins

    @property
    def files(self) -> Storage:
        """The files of whoever has logged in."""
        assert self.account is not None, "the command needs a login"
        return self.account.files

    @property
    def user(self) -> str:
        """Who has logged in, for logs and events."""
        return self.account.name if self.account is not None else ""

    def may(self, permission: Permission) -> bool:
        """Whether the user is allowed that."""
        return self.account is not None and permission in self.account.permissions

    def resolve(self, path: str) -> Path:
        """What a path of the client's means."""
        return resolve(self.session.folder, path)

    def log_in(self, account: Account) -> None:
        """The session is `account`'s from now on."""
        self.account = account
        self.session.log_in()

    def log_out(self) -> None:
        """Whoever was logged in is out, and nothing that was prepared for them is left."""
        self.drop_source()
        account, self.account = self.account, None
        if account is not None:
            self.server.accounts.leave(account)
            self._login_by = self._next_login_by()

    def drop_source(self) -> None:
        """The data connection that was prepared will not come."""
        source, self.source = self.source, None
        if source is not None:
            source.close()

    async def say(self, reply: Reply) -> None:
        """Queue a reply. It leaves when the next command is waited for."""
        self._said_goodbye = reply.code == 221
        # Telnet's IAC is doubled (RFC 854).
        data = reply.encode(every_line_coded=False).replace(b"\xff", b"\xff\xff")
        if len(data) > _LONG:
            await self.stream.flush()  # there may be no room for it behind what is queued
        self.stream.write(data)

    async def say_now(self, reply: Reply) -> None:
        """Send a reply while a transfer runs, when more than one task may have something to say."""
        if self.transfer is None or self.transfer.hearing is None:
            self._speaking.acquire_nowait()  # the other task may begin to speak before this has left
        else:
            await self._speaking.acquire()
        try:
            await self.say(reply)
            await self.stream.flush()
        finally:
            self._speaking.release()

    # Commands

    async def run(self) -> None:
        """Greet, and answer commands until the client or the service has had enough."""
        self.stream.take_urgent_inline()
        await self.say(Reply.of(220, self.server.greeting))
        try:
            while not self.is_ending and (line := await self._next_line()) is not None:
                reply = await self._obey(line)
                if reply is not None:
                    await self.say(reply)
                    await self._count_errors(reply)
            self.log_out()
            if not self._said_goodbye:
                await self.stream.linger()  # what the client still says must not destroy what it is told
        finally:
            self.log_out()

    async def _next_line(self) -> bytes | None:
        """The next command's line; None: there will be none, and what there is to say about that was said."""
        stream, limits = self.stream, self.server.ftp_limits
        waits_for_login = self.session.phase is not Phase.LOGGED_IN
        stream.deadline = self._login_by if waits_for_login else trio.current_time() + self.server.ftp_timeouts.command
        # All of it until the login: a password may come in one segment with its user.
        hides = stream.secret() if waits_for_login else nullcontext()
        try:
            with hides:
                async with idle():
                    while True:
                        try:
                            return await stream.receive_until(b"\n", limit=limits.line)
                        except LimitExceeded:
                            await self.say(Reply.of(500, f"A command has at most {limits.line} bytes."))
                            self._errors += 1
                            await stream.skip_until(b"\n", limit=limits.skipped)
            await self.say(Reply.of(421, "The service is going down: please come again."))
        except (RemoteProtocolError, trio.BrokenResourceError):
            pass  # it has left, or does not find the end of a line
        except ReceiveTimeout:
            await self.say(Reply.of(421, "No login came in time." if waits_for_login else "No command came in time."))
        finally:
            stream.deadline = math.inf
        return None

    async def _obey(self, line: bytes) -> Reply | None:
        """Do what a line says, and return the reply that is still to be said."""
        try:
            command = parse_command(line)
        except RemoteProtocolError as exc:
            return Reply.of(500, f"This is {exc}." if str(exc) == "no command" else f"Refused: {exc}.")
        declaration = COMMANDS.get(command.verb)
        if declaration is None:
            return Reply.of(500, "No such command: HELP lists those that there are.")
        refusal = self._refuse(declaration, command)
        if refusal is not None:
            return refusal
        try:
            return await declaration.run(self, command.argument)
        except RemoteProtocolError as exc:
            if self.stream.is_closed:
                raise
            return Reply.of(501, f"{exc}.")
        except OSError as exc:
            return failure_reply(exc)
        finally:
            self.session.finish(command.verb, is_transfer=declaration.is_transfer)

    def _refuse(self, declaration: Declaration, command: Command) -> Reply | None:
        refusal = self.session.check(command.verb, before_login=declaration.before_login)
        if refusal is not None:
            return refusal
        if command.argument and declaration.argument is Argument.NONE:
            return Reply.of(501, f"{command.verb} takes no argument.")
        if not command.argument and declaration.argument is Argument.REQUIRED:
            return Reply.of(501, f"Something is missing: {command.verb} {declaration.help}")
        if declaration.permission is not None and not self.may(declaration.permission):
            return Reply.of(550, "Permission denied.")
        return None

    async def _count_errors(self, reply: Reply) -> None:
        """End a connection on which there is nothing but nonsense. What a storage refuses is none."""
        self._errors = self._errors + 1 if reply.code in (500, 501, 502, 503, 530) else 0
        if self._errors > self.server.ftp_limits.errors:
            await self.say(Reply.of(421, "Too many errors in a row."))
            self.is_ending = True

    # Transfers

    async def run_transfer(
        self,
        verb: str,
        path: Path,
        opening: str,
        move: Callable[[Stream, Transfer], Awaitable[str]],
        *,
        is_short: bool = False,
    ) -> Reply:
        """Have `move` at work on a data connection while commands are heard, and return the last reply.

        `opening` is what the 150 says; where what is sent `is_short`, both replies may leave together. `move` returns
        the words of the 226; when it raises, the data connection is reset.
        """
        source, self.source = self.source, None
        if source is None:
            return Reply.of(425, "Say EPSV, PASV, EPRT or PORT first.")
        transfer = Transfer(verb, path)
        try:
            if self.server.tls_for_data and not self.session.protected:
                return Reply.of(522, "Data connections need TLS here: PROT P comes first.")
            self.transfer = transfer
            self._hear_soon()
            with busy(), transfer.scope:
                transfer.reply = await self._move(source, transfer, opening, move, is_short)
            self._log(transfer)
        finally:
            if transfer.hearing is not None:
                transfer.hearing.scope.cancel()
                with trio.CancelScope(shield=True):  # it is over in the next turn
                    await transfer.hearing.is_over.wait()
            self.transfer = None
            source.close()
        if transfer.gone is not None:
            raise transfer.gone
        if transfer.is_aborted:
            await self.say(transfer.reply or Reply.of(426, "The transfer was aborted."))
            return Reply.of(226, "ABOR is done.")
        return transfer.reply or Reply.of(426, "The transfer was aborted.")

    def _log(self, transfer: Transfer) -> None:
        direction = _DIRECTIONS.get(transfer.verb)
        if direction is not None and (transfer.moved or transfer.reply is not None):
            is_complete = transfer.reply is not None and transfer.reply.is_success
            self.server.log_transfer(self, transfer, direction, is_complete=is_complete)

    async def _move(
        self,
        source: DataSource,
        transfer: Transfer,
        opening: str,
        move: Callable[[Stream, Transfer], Awaitable[str]],
        is_short: bool,
    ) -> Reply:
        data: Stream | None = None
        try:
            data = await self._open_data(source, opening, is_short)
            return Reply.of(226, await move(data, transfer))
        except DataFailed as exc:
            return Reply.of(exc.code, exc.text)
        except TruncatedError:
            return Reply.of(426, "The data connection ended without TLS's closing message: not all may have come.")
        except trio.BrokenResourceError:
            return Reply.of(426, "The data connection broke: the transfer is not complete.")
        except ReceiveTimeout:
            return Reply.of(426, "Nothing came on the data connection for too long.")
        except FileShrankError:
            return Reply.of(451, "The file has become shorter while it was sent.")
        except RemoteProtocolError as exc:
            return Reply.of(426, f"{exc}.")
        except OSError as exc:
            return failure_reply(exc)
        finally:
            if data is not None and not data.is_closed:
                await data.abort()

    async def _open_data(self, source: DataSource, opening: str, is_short: bool) -> Stream:
        """The data connection, in the clear or in TLS. Raises `DataFailed`."""
        timeout = self.server.ftp_timeouts.data_connection
        data = source.ready()
        is_open = False
        try:
            with trio.move_on_after(timeout):
                if is_short and data is not None and not self.session.protected:
                    await self.say(Reply.of(150, opening))  # if the end is late, whoever hears commands sends it
                else:
                    # A client may connect, or begin TLS, only when it has seen this.
                    await self.say_now(Reply.of(150, opening))
                try:
                    if data is None:
                        data = await source.wait()
                except OSError as exc:
                    raise DataFailed(425, f"There is no data connection: {exc.strerror or exc}.") from exc
                self._dress(data)
                if self.session.protected:
                    required = self.server.session_required
                    await protect(data, self.stream, session_required=required, timeout=timeout)
                is_open = True
                return data
        finally:
            if data is not None and not is_open:
                await data.abort()
        raise DataFailed(425, f"No data connection came within {timeout:g} seconds.")

    def _dress(self, data: Stream) -> None:
        """Bandwidths and logs are for data connections, too."""
        dress(data)
        if self.account is not None and self.account.bandwidth is not None:
            self.account.bandwidth.dress(data)

    def _hear_soon(self) -> None:
        """Have commands heard from `HEAR_AFTER` seconds after the beginning of a transfer on."""
        if not self._has_alarm:
            self._has_alarm = True
            set_alarm(trio.current_time() + HEAR_AFTER, self)

    def ring(self, now: float) -> None:
        """For the alarm of `_hear_soon` alone."""
        self._has_alarm = False
        transfer = self.transfer
        if transfer is None or transfer.hearing is not None:
            return
        if transfer.started + HEAR_AFTER > now:
            self._hear_soon()
        elif not transfer.scope.cancelled_caught:
            # A nursery for each connection would cost each command a part of what this costs a long transfer.
            transfer.hearing = Hearing()
            trio.lowlevel.spawn_system_task(self._hear, transfer, transfer.hearing, context=copy_context())

    def forget_alarms(self) -> None:
        """For the alarm of `_hear_soon` alone."""

    async def _hear(self, transfer: Transfer, hearing: Hearing) -> None:
        try:
            with hearing.scope:
                await self._hear_meanwhile(transfer)
        except Exception as exc:  # carried to the connection's own task: in this one it would end the whole program
            transfer.gone = exc
            transfer.end()
        finally:
            hearing.is_over.set()

    async def _hear_meanwhile(self, transfer: Transfer) -> None:
        """Hear commands while `transfer` runs, and answer those that have to do with it. Others wait for its end."""
        held: list[bytes] = []
        try:
            while sum(map(len, held)) < _READ_AHEAD:
                line = await self.stream.receive_until(b"\n", limit=self.server.ftp_limits.line)
                try:
                    command = parse_command(line)
                except RemoteProtocolError:
                    command = Command("")
                declaration = COMMANDS.get(command.verb)
                if command.verb == "ABOR":
                    # Behind others it waits for its turn, so that replies keep their order. The transfer ends now.
                    transfer.is_aborted = not held
                    held += [line] if held else []
                    transfer.end()
                    return
                if held or declaration is None or not declaration.during_transfer or command.argument:
                    held.append(line)
                    continue
                reply = await declaration.run(self, "")
                if reply is not None:
                    await self.say_now(reply)
        except LimitExceeded:
            pass  # it is answered when its turn comes
        except RemoteProtocolError:
            if not held:
                raise
            # It has said more before it ended its side: that is answered, and then the end is seen.
        finally:
            self.stream.unread(b"".join(held))

    async def while_client_is_there(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do something that takes long and needs no data connection; given up when the client leaves.

        Commands that come meanwhile wait. Raises `trio.BrokenResourceError` if the client has left.
        """
        done: list[T] = []
        failure: OSError | None = None

        async def watch(scope: trio.CancelScope) -> None:
            try:
                await self.stream.wait_for_end(_READ_AHEAD)
            except trio.BrokenResourceError:
                pass
            scope.cancel()

        with busy():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch, nursery.cancel_scope)
                try:
                    done.append(await work())
                except OSError as exc:
                    failure = exc  # raised below, without the nursery's group around it
                nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        if not done:
            raise trio.BrokenResourceError("the client has left")
        return done[0]

    def check_client_is_there(self) -> None:
        """Raise `trio.BrokenResourceError` if the client has left the control connection while it sent data.

        One that has said more before it ended its side is there until that is answered.
        """
        if self.stream.read_ahead_now(_READ_AHEAD) and not self.stream.buffered:
            raise trio.BrokenResourceError("the client has left")


_DIRECTIONS = {"RETR": "o", "STOR": "i", "APPE": "i", "STOU": "i"}
"""What the transfer log calls them."""

_CODES = {
    errno.ENOSPC: 452,
    errno.EDQUOT: 552,
    errno.EFBIG: 552,
    errno.ENAMETOOLONG: 553,
}
_REFUSED = frozenset(
    {
        errno.ENOENT,
        errno.EACCES,
        errno.EPERM,
        errno.EEXIST,
        errno.ENOTEMPTY,
        errno.EISDIR,
        errno.ENOTDIR,
        errno.EROFS,
        errno.ELOOP,
        errno.EXDEV,
        errno.EINVAL,
        errno.EBUSY,
        errno.ETXTBSY,
        errno.EMLINK,
        errno.ENOTSUP,
    }
)
_WORDS = {
    errno.ENOENT: "No such file or folder.",
    errno.EACCES: "Permission denied.",
    errno.EPERM: "Permission denied.",
    errno.EEXIST: "Something has that name already.",
    errno.ENOTEMPTY: "The folder is not empty.",
    errno.EISDIR: "That is a folder.",
    errno.ENOTDIR: "That is no folder.",
    errno.EROFS: "Nothing can be changed here.",
    errno.ELOOP: "Too many symbolic links.",
    errno.EXDEV: "The two names lie in different file systems.",
    errno.ENOSPC: "There is no space left.",
    errno.EDQUOT: "Your quota is used up.",
    errno.EFBIG: "The file is too large.",
    errno.ENAMETOOLONG: "The name is too long.",
}


def failure_reply(exc: OSError) -> Reply:
    """The reply that tells a storage's failure; what nobody has foreseen goes to the log, not to the client."""
    number = exc.errno or 0
    code = _CODES.get(number) or (550 if number in _REFUSED else 451)
    if code == 451:
        logger.warning("a file operation failed: %s", exc)
    return Reply.of(code, _WORDS.get(number, "It cannot be done." if code == 550 else "A local error: try later."))

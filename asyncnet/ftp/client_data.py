"""The client's data connections: how they are opened, protected and ended. RFC 959 section 3.2, RFC 2428, RFC 4217.

Theory of operation
===================

A transfer is a command on the control connection and a data connection beside it, whose end is the end of the file.
What could go wrong, and why it does not:

- *The server names another host in its reply to PASV* (CVE-2020-8284): only the port is taken from it.
- *A stranger connects to the port that we listen on* (active mode): only the control connection's peer is let in.
- *A part is taken for the whole.* What is left by an exception is reset, never ended; what ended is the whole only
  when the server says so afterwards on the control connection, and when as many bytes came as it had announced.
- *The server waits for our end, and we for its word.* The data connection is ended first, then the reply is read.
- *Somebody else's data connection.* Over TLS the control connection's session is offered, which servers demand; the
  certificate is verified again all the same.
- *Data in the clear beside a control connection with TLS*: there is PROT P or an exception, nothing between.
"""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from asyncnet.alarms import set_alarm
from asyncnet.beside import accept_beside, accept_beside_now, connect_beside, listen_beside
from asyncnet.endpoints import connect
from asyncnet.errors import LocalProtocolError, RemoteProtocolError
from asyncnet.ftp.client_control import Control, KeepAlive, NotSupported, describe
from asyncnet.ftp.wire import format_extended_port, format_port, parse_extended_passive, parse_passive
from asyncnet.limits import Timeouts
from asyncnet.printable import printable
from asyncnet.replies import Reply, ReplyError, error_for
from asyncnet.stream import Stream
from asyncnet.transports.authority import format_authority
from asyncnet.transports.listening import SocketListener

if TYPE_CHECKING:
    import ssl

LEAVE_GRACE = 2.0
"""How long, in seconds, the end of a file is waited for when its reader leaves where the end should be."""

_NOT_LISTED = "failed to open directory"
"""What vsftpd says, in a 226, behind the empty listing of a folder that is not there."""

_find_announced = re.compile(r"\(([0-9]{1,19}) bytes?\)").findall


@dataclass(slots=True)
class DataRules:
    """How a client's data connections are made."""

    tls: ssl.SSLContext | None = None
    """The context of the control connection's TLS; None: in the clear."""
    server_hostname: str | None = None
    active: bool = False
    proxy: str | None = None
    host: str = ""
    """The server's name: behind a proxy, where data is found too."""
    no_extended: bool = False
    """The server has refused EPSV or EPRT."""


class Opening:
    """A data connection on its way: connected already (passive), or a listener that waits for it (active)."""

    def __init__(self, control: Control, rules: DataRules, stream: Stream | None, listener: SocketListener | None):
        self._control = control
        self._rules = rules
        self._stream = stream
        self._listener = listener

    async def finish(self, command: str) -> Stream:
        """The stream, after the server has said that it begins `command`.

        Raises ReplyError if it says its last reply instead, which is then settled.
        """
        timeout = self._control.timeout
        if self._listener is not None:
            with trio.move_on_after(timeout):
                while not await self._accept(self._listener):
                    reply = await self._control.hear_transfer()
                    if reply is not None:
                        raise error_for(reply, command)
            await trio.aclose_forcefully(self._listener)
        if self._stream is None:
            raise TimeoutError(f"the FTP server has not connected for {timeout:g} seconds")
        if self._rules.tls is not None:
            info = self._control.stream.tls
            await self._stream.start_tls(
                self._rules.tls,
                server_hostname=self._rules.server_hostname,
                session=None if info is None else info.session,
                timeout=timeout,
            )
        return self._stream

    async def _accept(self, listener: SocketListener) -> bool:
        """Whether the server has connected; False: it says something on the control connection instead."""
        control, waits = self._control.stream, Timeouts(send=self._control.timeout)
        failure: OSError | None = None

        async def watch(scope: trio.CancelScope) -> None:
            try:
                control.unread(bytes(await control.receive_some()))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # whoever receives next is told
            scope.cancel()

        if not control.buffered:
            control.deadline = math.inf
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch, nursery.cancel_scope)
                try:
                    self._stream = await accept_beside(control, listener, timeouts=waits)
                except OSError as exc:
                    failure = exc  # raised below, without the nursery's group around it
                nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        if self._stream is None:
            # What it says may be the end of a short file, whose connection came before.
            self._stream = accept_beside_now(control, listener, timeouts=waits)
        return self._stream is not None

    async def abort(self) -> None:
        """Give it up, so that the server sees a reset."""
        try:
            if self._stream is not None:
                await self._stream.abort()
        finally:
            if self._listener is not None:
                await trio.aclose_forcefully(self._listener)  # raises when we are cancelled, after its work


async def open_way(control: Control, rules: DataRules) -> Opening:
    """Agree with the server on a data connection."""
    if rules.proxy is None and control.stream.hop[1].host is None:
        raise NotSupported("data connections lead to where the control connection does, and that is no TCP")
    if rules.active:
        return await _listen(control, rules)
    port = await _passive_port(control, rules)
    place = format_authority(rules.host, port)
    waits = Timeouts(send=control.timeout)
    try:
        with trio.fail_after(control.timeout):
            if rules.proxy is not None:
                stream = await connect(f"tcp://{place}", proxy=rules.proxy, timeout=math.inf, timeouts=waits)
            else:
                stream = await connect_beside(control.stream, port, timeouts=waits)
    except trio.TooSlowError:
        raise TimeoutError(f"no data connection to {place} after {control.timeout:g} seconds") from None
    return Opening(control, rules, stream, None)


async def _passive_port(control: Control, rules: DataRules) -> int:
    if not rules.no_extended:
        reply = await control.ask("EPSV")
        if reply.code == 229:
            return parse_extended_passive(reply.text)
        if not _is_unknown(reply) or (":" in (control.stream.hop[1].host or "") and rules.proxy is None):
            raise error_for(reply, "EPSV")
        rules.no_extended = True
    reply = await control.ask("PASV")
    if reply.code != 227:
        raise error_for(reply, "PASV")
    port = parse_passive(reply.text)[1]
    if not port:
        raise RemoteProtocolError("no port in a reply to PASV: 0 is none")
    return port


def _is_unknown(reply: Reply) -> bool:
    """Whether a server says that it does not have a command, in one of the ways that servers have."""
    return reply.code in (500, 501, 502, 503, 504, 522)


async def _listen(control: Control, rules: DataRules) -> Opening:
    """Active mode: the server connects to us."""
    listener = listen_beside(control.stream)
    try:
        host, port = listener.address.host or "", listener.address.port or 0
        if not rules.no_extended:
            reply = await control.ask("EPRT", format_extended_port(host, port))
            if not reply.is_success and (not _is_unknown(reply) or ":" in host):
                raise error_for(reply, "EPRT")
            rules.no_extended = not reply.is_success
        if rules.no_extended:
            await control.expect("PORT", format_port(host, port))
    except BaseException:
        await trio.aclose_forcefully(listener)
        raise
    return Opening(control, rules, None, listener)


@asynccontextmanager
async def transfer(
    control: Control,
    rules: DataRules,
    verb: str,
    argument: str | None,
    *,
    offset: int = 0,
    sends: bool = False,
    size: int | None = None,
    counts: bool = True,
    keep_alive: float | None = None,
) -> AsyncIterator[Stream]:
    """Run `verb` with a data connection; within `Control.claim`. `size` is what the whole file is known to have.

    With `counts` false the bytes are not those of the file, and are not counted.
    """
    if offset < 0:
        raise LocalProtocolError(f"an offset is not negative: {offset}")
    opening = await open_way(control, rules)
    try:
        if offset or control.has_restart:
            control.has_restart = True
            reply = await control.ask("REST", str(offset))
            if not reply.asks_for_more:
                control.has_restart = False
                raise error_for(reply, f"REST {offset}")
        reply = await control.begin_transfer(verb, argument)
        try:
            stream = await opening.finish(describe(verb, argument))
        except ReplyError:
            raise  # it is settled
        except BaseException as exc:
            control.abandon_transfer()
            if rules.tls is not None and isinstance(exc, (OSError, trio.BrokenResourceError)) and not _is_ours(exc):
                await _explain(control, describe(verb, argument), exc)
            raise
    except BaseException:
        await opening.abort()
        raise
    announced = _find_announced(reply.text)
    if not offset and len(announced) > len(_find_announced(argument or "")):  # a name may look the same
        size = int(announced[-1])
    expected = size - offset if counts and size is not None else None
    ending = _Ending(control, stream, describe(verb, argument), expected, resumes=offset > 0)
    keeper = None if keep_alive is None else KeepAlive(control, keep_alive)
    watch = _StallWatch(stream, control)
    try:
        yield stream
    except BaseException as exc:
        is_ours = isinstance(exc, trio.BrokenResourceError) and ending.is_broken()
        await ending.abandon()
        if is_ours and isinstance(exc, trio.BrokenResourceError):
            await ending.explain(exc)
        raise
    finally:
        watch.stop()
        if keeper is not None:
            keeper.stop()
    await (ending.of_sent() if sends else ending.of_received())


class _StallWatch:
    """Ends a receive that waits without a byte coming, for `Control.timeout` seconds at least and twice that at most.

    Whoever computes between two receives may take any time.
    """

    def __init__(self, stream: Stream, control: Control) -> None:
        self._stream: Stream | None = stream
        self._control = control
        self._was_waiting = False
        self._seen = 0
        self._set()

    def _set(self) -> None:
        if self._control.timeout < math.inf:
            set_alarm(trio.current_time() + self._control.timeout, self)

    def ring(self, now: float) -> None:
        stream = self._stream
        if stream is None or stream.is_closed:
            return
        waits = stream._receiving
        if waits and self._was_waiting and stream.bytes_in == self._seen:
            stream.deadline = now
        self._was_waiting, self._seen = waits, stream.bytes_in
        self._set()

    def forget_alarms(self) -> None:
        self._stream = None

    def stop(self) -> None:
        """The transfer is over."""
        self._stream = None


class _Ending:
    """How a transfer ends that was left without an exception. `expected` is how many bytes were to come, if known.

    One that `resumes` may not have more either: the server may have begun again in spite of REST.
    """

    def __init__(
        self, control: Control, stream: Stream, command: str, expected: int | None, *, resumes: bool = False
    ) -> None:
        self._control = control
        self._stream = stream
        self._command = command
        self._expected = expected
        self._resumes = resumes

    async def abandon(self) -> None:
        """Reset the data connection. Does its work also when cancelled."""
        self._control.abandon_transfer()
        await self._stream.abort()

    async def of_sent(self) -> None:
        """End the data connection so that the server knows the whole, and hear what it says."""
        try:
            if not self._stream.is_closed:
                await self._stream.deliver()
                await self._stream.aclose()
        except BaseException as exc:
            await self.abandon()
            if isinstance(exc, trio.BrokenResourceError):
                await self.explain(exc)
            raise
        await self._check_reply()

    async def of_received(self) -> None:
        """Check that this was the whole; whoever leaves before the end wants no more."""
        stream = self._stream
        try:
            if stream.is_closed or not await self._has_ended():
                await self.abandon()
                return
            await stream.aclose()
        except BaseException as exc:
            await self.abandon()
            if isinstance(exc, trio.BrokenResourceError):
                await self.explain(exc)
            raise
        await self._check_reply()
        expected = self._expected
        if expected is not None and (stream.bytes_in < expected or (self._resumes and stream.bytes_in > expected)):
            raise RemoteProtocolError(
                f"{printable(self._command)}: {stream.bytes_in} bytes came, {self._expected} were announced"
            )

    def is_broken(self) -> bool:
        """Whether it is the data connection that broke, and not another that its user has to do with."""
        stream = self._stream
        try:
            return stream.is_closed or stream._send_failure is not None or stream.read_ahead_now(stream.buffered + 1)
        except trio.BrokenResourceError:
            return True

    async def explain(self, exc: trio.BrokenResourceError) -> None:
        """The data connection broke, and was abandoned: if the server says why, raise that instead."""
        await _explain(self._control, self._command, exc)

    async def _has_ended(self) -> bool:
        """Whether the data is at its end, with nothing left to read."""
        stream = self._stream
        ended = stream.read_ahead_now(1)
        if ended or stream.buffered:
            return not stream.buffered
        is_all = self._expected is not None and stream.bytes_in >= self._expected
        stream.deadline = math.inf
        with trio.move_on_after(self._control.timeout if is_all else min(LEAVE_GRACE, self._control.timeout)):
            return not await stream.receive_some(1)
        return False

    async def _check_reply(self) -> None:
        reply = await self._control.settle_transfer()
        if not reply.is_success or (self._command.startswith("LIST") and _NOT_LISTED in reply.text):
            raise error_for(reply, self._command)


def _is_ours(exc: Exception) -> bool:
    """Whether it is this side that will not have the data connection: a certificate is wrong, or time is up."""
    return isinstance(exc, (ValueError, TimeoutError))  # the error of a certificate is a ValueError


async def _explain(control: Control, command: str, exc: Exception) -> None:
    """A transfer was abandoned because of `exc`: if the server says why, raise that instead."""
    try:
        reply = await control.settle()
    except (RemoteProtocolError, ReplyError, trio.BrokenResourceError, TimeoutError) as second:
        raise exc from second
    if reply is not None and not reply.is_success:
        raise error_for(reply, command) from exc

"""What a user needs to test a handler or a client with no network.

Streams and listeners in memory, so that Trio's virtual time works (`trio.testing.MockClock`, pytest-trio's
`autojump_clock`); a peer that follows a script; streams that are slow, broken or stuck; and a loop that cancels an
operation at each of its checkpoints. Nothing here needs pytest. `docs/testing.md` shows a whole test.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

import trio

from asyncnet.errors import EndOfStream, IncompleteRead, LimitExceeded
from asyncnet.limits import Timeouts
from asyncnet.stream import Stream
from asyncnet.transports.address import NOWHERE, Address
from asyncnet.transports.base import Listener, checked_size
from asyncnet.transports.memory import CAPACITY, MemoryTransport, memory_transports

if TYPE_CHECKING:
    import ssl

    from asyncnet.transports.certificates import ServerTLS

PATIENCE = 5.0
"""How many seconds a scripted peer waits for what it expects, unless it is told otherwise."""


# Streams and listeners in memory


def stream_pair(
    *,
    client: Address = NOWHERE,
    server: Address = NOWHERE,
    capacity: int = CAPACITY,
    timeouts: Timeouts = Timeouts(),
) -> tuple[Stream, Stream]:
    """Two connected streams, the client's and the server's.

    `client` and `server` are the addresses that they show: `Address("192.0.2.1", 40000)` plays a client from outside.
    Each direction holds `capacity` bytes, then its sender waits. `timeouts` are those of both.
    """
    left, right = memory_transports(capacity=capacity, left=client, right=server)
    return Stream(left, timeouts), Stream(right, timeouts)


async def tls_stream_pair(
    client_context: ssl.SSLContext,
    server_context: ssl.SSLContext | ServerTLS,
    *,
    server_hostname: str | None = None,
    client: Address = NOWHERE,
    server: Address = NOWHERE,
    timeouts: Timeouts = Timeouts(),
) -> tuple[Stream, Stream]:
    """The same after a TLS handshake between the two contexts. Raises what `Stream.start_tls` raises, in a group."""
    left, right = stream_pair(client=client, server=server, timeouts=timeouts)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: left.start_tls(client_context, server_hostname=server_hostname))
        nursery.start_soon(lambda: right.start_tls(server_context, server_side=True))
    return left, right


class MemoryListener(Listener):
    """A listener for `serve()` that no network reaches: `connect` is the only way in.

    `tls` is what each connection begins with, as for `serve()`; `address` is what its connections show as their
    local end. Connections wait to be accepted without a limit: `waiting` tells how many do.
    """

    __slots__ = ("_arrived", "_capacity", "_closed", "_queue", "address", "endpoint", "tls")

    def __init__(
        self,
        *,
        endpoint: str = "memory:",
        address: Address = NOWHERE,
        tls: ssl.SSLContext | ServerTLS | None = None,
        capacity: int = CAPACITY,
    ) -> None:
        self.endpoint = endpoint
        self.address = address
        self.tls = tls
        self._capacity = capacity
        self._queue: deque[MemoryTransport] = deque()
        self._arrived = trio.Event()
        self._closed = False

    @property
    def waiting(self) -> int:
        """How many connections wait to be accepted."""
        return len(self._queue)

    async def connect(self, peer: Address = NOWHERE) -> Stream:
        """Connect as a client whose address is `peer`. Raises ConnectionRefusedError if the listener is closed."""
        await trio.lowlevel.checkpoint()
        if self._closed:
            raise ConnectionRefusedError(f"nobody listens at {self.endpoint}")
        client, server = memory_transports(capacity=self._capacity, left=peer, right=self.address)
        self._queue.append(server)
        self._arrived.set()
        return Stream(client)

    def accept_now(self) -> MemoryTransport | None:
        self._check_open()
        return self._queue.popleft() if self._queue else None

    async def wait(self) -> None:
        await trio.lowlevel.checkpoint()
        self._check_open()
        if not self._queue:
            self._arrived = trio.Event()
            await self._arrived.wait()
            self._check_open()

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this listener was closed")

    async def aclose(self) -> None:
        self._closed = True
        self._arrived.set()
        while self._queue:
            await self._queue.popleft().abort()
        await trio.lowlevel.checkpoint()


# A peer that follows a script


class ScriptedPeer:
    """The other end of a conversation, which says what it is told to and insists on the answers that it is told.

    Everything that does not come as expected, or within `timeout` seconds (virtual ones under a mock clock), is an
    AssertionError that shows what was expected and what came. `stream` is there for all else.
    """

    def __init__(self, stream: trio.abc.Stream, *, timeout: float = PATIENCE) -> None:
        self.stream = Stream.of(stream)
        self.timeout = timeout

    async def send(self, data: bytes) -> None:
        """Send `data`."""
        with self._patience(lambda: f"could not send {data!r}: the other side does not read"):
            await self.stream.send_all(data)

    async def expect(self, data: bytes) -> None:
        """Receive exactly `data`. What comes behind it is left for the next call."""
        received = b""
        with self._patience(lambda: _differs(data, received, "and then nothing")):
            while len(received) < len(data):
                received += await self._receive(data, received)
                if not data.startswith(received[: len(data)]):
                    raise AssertionError(_differs(data, received, ""))
        self.stream.unread(received[len(data) :])

    async def _receive(self, expected: bytes, received: bytes) -> bytes:
        try:
            more = await self.stream.receive_some()
        except trio.BrokenResourceError as exc:
            raise AssertionError(_differs(expected, received, f"and then a broken connection ({exc})")) from exc
        if not more:
            raise AssertionError(_differs(expected, received, "and then the end"))
        return more

    async def expect_until(self, delimiter: bytes = b"\r\n", *, limit: int = 65536) -> bytes:
        """Receive up to and including `delimiter`, and return it all: for answers that are not known word by word."""
        try:
            with self._patience(lambda: f"expected {delimiter!r}, had {self._had()}, and then nothing"):
                return await self.stream.receive_until(delimiter, limit=limit)
        except (EndOfStream, IncompleteRead, LimitExceeded, trio.BrokenResourceError) as exc:
            raise AssertionError(f"expected {delimiter!r}, had {self._had()}, and then: {exc}") from exc

    def _had(self) -> str:
        data = self.stream.take(self.stream.buffered)
        self.stream.unread(data)
        return repr(data)

    async def expect_end(self) -> None:
        """The other side ends, cleanly, and sends nothing before that."""
        with self._patience(lambda: "expected the end, had nothing"):
            try:
                data = await self.stream.receive_some()
            except trio.BrokenResourceError as exc:
                raise AssertionError(f"expected the end, had a broken connection ({exc})") from exc
        if data:
            raise AssertionError(f"expected the end, had {data!r}")

    async def expect_reset(self) -> None:
        """The connection breaks, so that what came before it is known not to be the whole."""
        with self._patience(lambda: "expected a broken connection, had nothing"):
            try:
                data = await self.stream.receive_some()
            except trio.BrokenResourceError:
                return
        raise AssertionError(f"expected a broken connection, had {repr(data) if data else 'the end'}")

    async def expect_silence(self, seconds: float) -> None:
        """Nothing happens for so long. Under a mock clock this costs no time."""
        with trio.move_on_after(seconds):
            try:
                data = await self.stream.receive_some()
            except trio.BrokenResourceError as exc:
                raise AssertionError(f"expected {seconds:g} s of silence, had a broken connection ({exc})") from exc
            raise AssertionError(f"expected {seconds:g} s of silence, had {repr(data) if data else 'the end'}")

    async def send_eof(self) -> None:
        """End this side; the other goes on."""
        await self.stream.send_eof()

    async def close(self) -> None:
        """Leave, cleanly."""
        await self.stream.aclose()

    async def reset(self) -> None:
        """Leave so that the other side sees a broken connection."""
        await self.stream.abort()

    @contextmanager
    def _patience(self, failure: Callable[[], str]) -> Iterator[None]:
        with trio.CancelScope(deadline=trio.current_time() + self.timeout) as scope:
            yield
        if scope.cancelled_caught:
            raise AssertionError(f"{failure()}, for {self.timeout:g} s")


def _differs(expected: bytes, received: bytes, afterwards: str) -> str:
    same = 0
    while same < min(len(expected), len(received)) and expected[same] == received[same]:
        same += 1
    lines = [f"expected {expected!r}", f"     had {received!r}"]
    if afterwards:
        lines[-1] += f", {afterwards}"
    if same < len(received):
        lines.append(f"they differ from byte {same} on: {expected[same:][:40]!r} and {received[same:][:40]!r}")
    return "\n".join(lines)


@asynccontextmanager
async def run_handler(
    handler: Callable[[trio.abc.Stream], Awaitable[object]],
    *,
    client: Address = NOWHERE,
    server: Address = NOWHERE,
    capacity: int = CAPACITY,
    timeouts: Timeouts = Timeouts(),
    timeout: float = PATIENCE,
) -> AsyncIterator[ScriptedPeer]:
    """Run `handler` at one end of a pair; its peer, at the other end, is what the `async with` block gets.

    The stream is treated as a service treats it: closed when the handler returns, reset when it raises. At the
    block's end the peer leaves, and the handler has to end within `timeout` seconds. What the handler raised is
    raised there, except `trio.BrokenResourceError`: peers do leave.
    """
    ours, its = stream_pair(client=client, server=server, capacity=capacity, timeouts=timeouts)
    failure: Exception | None = None
    finished = trio.Event()

    async def guard() -> None:
        nonlocal failure
        try:
            await handler(its)
            await its.aclose()
        except Exception as exc:  # the block goes on, and sees what a peer sees; then this is raised
            failure = _other_than_breaks(exc)
        finally:
            if not its.is_closed:
                await its.abort()
            finished.set()

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(guard)
            try:
                yield ScriptedPeer(ours, timeout=timeout)
                await ours.aclose()
                with trio.move_on_after(timeout):
                    await finished.wait()
                if not finished.is_set():
                    raise AssertionError(f"the handler still runs {timeout:g} s after its peer has left")
            finally:
                nursery.cancel_scope.cancel()
                await ours.abort()
    except BaseExceptionGroup as group:
        error = group.exceptions[0] if len(group.exceptions) == 1 else group
        raise error from (failure or error.__cause__)
    if failure is not None:
        raise failure


def _other_than_breaks(exc: Exception) -> Exception | None:
    if isinstance(exc, ExceptionGroup):
        return exc.split(trio.BrokenResourceError)[1]
    return None if isinstance(exc, trio.BrokenResourceError) else exc


# Streams that are slow, broken or stuck


class _Wrapper(trio.abc.HalfCloseableStream):
    """All of a stream's operations, for subclasses to spoil."""

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        self._stream = stream

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return bytes(await self._stream.receive_some(max_bytes))

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()


class OneByteStream(_Wrapper):
    """`stream`, but every receive yields one byte, and every send is cut into sends of one byte.

    For parsers that believe that what was sent together arrives together.
    """

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        checked_size(max_bytes)
        return await super().receive_some(1)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if not data:
            await super().send_all(data)
        for i in range(len(data)):
            await super().send_all(data[i : i + 1])


class _Counting(_Wrapper):
    """Counts the operations: each receive, send, half-close and wait for room is one."""

    def __init__(self, stream: trio.abc.HalfCloseableStream, *, at: int) -> None:
        super().__init__(stream)
        self._at = at
        self.operations = 0
        """How many have begun."""

    @abstractmethod
    async def _spoil(self) -> None:
        """What happens instead of operation number `at`."""

    async def _count(self) -> None:
        self.operations += 1
        if self.operations >= self._at:
            await trio.lowlevel.checkpoint()
            await self._spoil()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await self._count()
        return await super().receive_some(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._count()
        await super().send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._count()
        await super().wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        await self._count()
        await super().send_eof()


class FailingStream(_Counting):
    """`stream`, but its operation number `at` (from 1) and all that follow raise `trio.BrokenResourceError`."""

    async def _spoil(self) -> None:
        raise trio.BrokenResourceError(f"operation {self.operations} was told to fail")


class StallingStream(_Counting):
    """`stream`, but its operation number `at` (from 1) and all that follow wait until they are cancelled."""

    async def _spoil(self) -> None:
        await trio.sleep_forever()


# Cancelling everywhere


class CancelAttempt(trio.abc.Instrument):
    """One round of `cancel_at_each_checkpoint`: a `with` block that is cancelled at a certain moment."""

    def __init__(self, moment: int) -> None:
        self._left = moment
        self._scope = trio.CancelScope()
        self._task: trio.lowlevel.Task | None = None
        self._others: frozenset[trio.Nursery] = frozenset()

    @property
    def cancelled(self) -> bool:
        """Whether the block was cut short; False if it has completed, maybe although it was cancelled."""
        return self._scope.cancelled_caught

    @property
    def was_entered(self) -> bool:
        """Whether there was a block at all."""
        return self._task is not None

    @property
    def was_reached(self) -> bool:
        """Whether the block lasted until the moment."""
        return self._scope.cancel_called

    def __enter__(self) -> CancelAttempt:
        self._task = trio.lowlevel.current_task()
        self._others = frozenset(self._task.child_nurseries)
        self._scope.__enter__()
        trio.lowlevel.add_instrument(self)
        self._pass_moment()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        trio.lowlevel.remove_instrument(self)
        return self._scope.__exit__(kind, exc, traceback)

    def _pass_moment(self) -> None:
        self._left -= 1
        if self._left == 0:
            self._scope.cancel()

    def _is_ours(self, task: trio.lowlevel.Task) -> bool:
        """Whether `task` is the block's own, or was started within it."""
        nursery = None
        while task is not self._task:
            nursery = task.parent_nursery
            if nursery is None:
                return False
            task = nursery.parent_task
        return nursery not in self._others

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """A task goes on: what it waited for has happened, and it does not know that yet."""
        if self._is_ours(task):
            self._pass_moment()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """A task waits, at a checkpoint."""
        if self._is_ours(task):
            self._pass_moment()


def cancel_at_each_checkpoint(*, most: int = 10_000) -> Iterator[CancelAttempt]:
    """Run a block again and again, and cancel it one checkpoint later each time, until it completes unharmed.

        for attempt in cancel_at_each_checkpoint():
            client, server = stream_pair()
            await client.send_all(b"hello\\r\\n")
            with attempt:
                line = await server.receive_until(b"\\r\\n", limit=100)
            if attempt.cancelled:
                line = await server.receive_until(b"\\r\\n", limit=100)
            assert line == b"hello\\r\\n"

    The block is cancelled before its first checkpoint, then at each checkpoint of its task and of the tasks that it
    started, twice: while it waits, and just after what it waited for has happened. It is Trio's scheduler that
    counts, so that a run repeats exactly if the block does. Raises AssertionError after `most` rounds.
    """
    for moment in range(1, most + 1):
        attempt = CancelAttempt(moment)
        yield attempt
        if not attempt.was_entered:
            raise RuntimeError("write `with attempt:` around what is to be cancelled")
        if not attempt.was_reached:
            return
    raise AssertionError(f"the block has not completed after {most} moments")

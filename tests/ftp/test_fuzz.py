"""Whatever a client says, `FTPHandler` answers it or ends, and never fails. On memory, without data connections."""

from __future__ import annotations

import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asyncnet.errors import RemoteProtocolError
from asyncnet.ftp.declarations import COMMANDS, SITE_COMMANDS
from asyncnet.ftp.limits import FTPLimits
from asyncnet.ftp.memory_files import MemoryFiles
from asyncnet.ftp.server import FTPHandler
from asyncnet.ftp.wire import parse_command
from asyncnet.replies import ReplyParser
from asyncnet.testing import run_handler

WORDS = st.sampled_from(
    [
        *("", "a", "/", "..", "folder/b", "../../etc", "I", "A", "0", "5", "-1", "99999999999999999999", "*"),
        *("20200101000000 a", "644 a", "anonymous", "TLS", "ALL", "1", "|1|127.0.0.1|5000|", "127,0,0,1,200,1"),
        *("MLST size;", "HASH MD5", "0 5"),
    ]
)
VERBS = st.sampled_from(sorted(COMMANDS))
LINES = st.one_of(
    st.builds(lambda verb, word: f"{verb} {word}".encode(), VERBS, WORDS),
    st.builds(lambda verb, word: f"SITE {verb} {word}".encode(), st.sampled_from(sorted(SITE_COMMANDS)), WORDS),
    st.builds(lambda verb, tail: verb.encode() + b" " + tail, VERBS, st.binary(max_size=60)),
    st.binary(max_size=300),
).map(lambda line: line.replace(b"\n", b"") + b"\r\n")


@given(st.binary())
def test_a_line_is_a_command_or_refused(line: bytes) -> None:
    try:
        command = parse_command(line)
    except RemoteProtocolError:
        return
    assert command.verb == command.verb.upper()
    assert not {"\r", "\n", "\0"} & set(command.argument)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(LINES, max_size=30), st.booleans())
def test_no_conversation_makes_it_fail(lines: list[bytes], starts_logged_in: bool) -> None:
    async def talk() -> None:
        files = MemoryFiles({"a": b"hello", "folder/b": b""})
        handler = FTPHandler(files, anonymous=True, anonymous_writes=True, limits=FTPLimits(line=200, skipped=400))
        async with run_handler(handler) as peer:
            said = b"USER anonymous\r\nPASS x\r\n" if starts_logged_in else b""
            said += b"".join(lines) + b"QUIT\r\n"
            parser, codes = ReplyParser(every_line_coded=False), []

            async def send() -> None:
                try:
                    await peer.stream.send_all(said)
                except trio.BrokenResourceError:
                    pass  # it has had enough

            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                try:
                    while True:
                        reply = parser.feed(await peer.stream.receive_until(b"\n", limit=100_000))
                        if reply is not None:
                            codes.append(reply.code)
                except (RemoteProtocolError, trio.BrokenResourceError):
                    pass  # the end
            assert parser.is_between
            assert codes[0] == 220
            assert codes[-1] in (221, 421, 500, 501)

    trio.run(talk)

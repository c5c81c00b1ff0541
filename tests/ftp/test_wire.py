"""FTP's grammar: commands, paths, addresses, times."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncnet.errors import LocalProtocolError, RemoteProtocolError
from asyncnet.ftp import wire
from asyncnet.ftp.wire import Command

ANYTHING = st.text(max_size=60) | st.from_regex(r"[0-9|,()!:.Z -]{0,40}", fullmatch=True)
NAMES = (
    st.binary(max_size=40)
    .filter(lambda name: not set(name) & set(b"\r\n\0"))
    .map(lambda name: name.decode("utf-8", "surrogateescape"))
)
HOSTS4 = st.ip_addresses(v=4).map(str)
HOSTS = st.ip_addresses().map(str)
PORTS = st.integers(1, 65535)


@pytest.mark.parametrize(
    ("line", "command"),
    [
        (b"NOOP\r\n", Command("NOOP")),
        (b"noop\n", Command("NOOP")),
        (b"retr a b \r\n", Command("RETR", "a b ")),
        (b"RETR  a\r\n", Command("RETR", " a")),
        (b"RETR \xc3\xbc\r\n", Command("RETR", "ü")),
        (b"RETR \xff\xff\r\n", Command("RETR", "\udcff")),
        (b"RETR \xfe\r\n", Command("RETR", "\udcfe")),
        (b"XSHA256 a\r\n", Command("XSHA256", "a")),
        (b"\xff\xf4\xff\xf2ABOR\r\n", Command("ABOR")),
        (b"\xff\xfd\x06ABOR\r\n", Command("ABOR")),
    ],
)
def test_a_command_is_a_verb_and_an_argument(line: bytes, command: Command) -> None:
    assert wire.parse_command(line) == command


@pytest.mark.parametrize(
    "line",
    [
        b"\r\n",
        b"A\r\n",
        b" NOOP\r\n",
        b"1NOOP\r\n",
        b"NOOP\tx\r\n",
        b"RETR a\rb\r\n",
        b"RETR a\0\r\n",
        b"RETR a\nb\r\n",
    ],
)
def test_what_is_no_command_is_refused(line: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        wire.parse_command(line)


@given(st.from_regex("[A-Z]{3,8}", fullmatch=True), NAMES)
def test_a_command_that_is_written_is_read_again(verb: str, argument: str) -> None:
    line = wire.format_command(verb, argument)
    assert line.count(b"\r\n") == 1
    assert wire.parse_command(line) == Command(verb, argument)


@given(st.binary(max_size=60))
def test_nothing_but_a_protocol_error_comes_of_any_line(line: bytes) -> None:
    try:
        wire.parse_command(line)
    except RemoteProtocolError:
        pass


@pytest.mark.parametrize("argument", ["a\r\nDELE b", "a\nb", "a\rb", "a\0b", "\ud800", "x" * wire.MAX_LINE])
def test_what_cannot_be_sent_is_refused_before_it_is(argument: str) -> None:
    with pytest.raises(LocalProtocolError):
        wire.format_command("RETR", argument)


@given(st.lists(NAMES).map("/".join), st.lists(st.sampled_from(["a", "b"])).map(tuple))
def test_no_path_leads_above_the_root(path: str, folder: tuple[str, ...]) -> None:
    found = wire.resolve(folder, path)
    assert not {"", ".", ".."} & set(found)
    assert not any("/" in name for name in found)
    assert wire.resolve((), wire.show(found)) == found


def test_a_path_is_relative_unless_it_begins_with_a_slash() -> None:
    assert wire.resolve(("a", "b"), "c") == ("a", "b", "c")
    assert wire.resolve(("a", "b"), "/c//./d/") == ("c", "d")
    assert wire.resolve(("a", "b"), "../../../..") == ()
    assert wire.resolve(("a",), "") == ("a",)


@given(NAMES)
def test_a_path_in_quotes_is_read_again(path: str) -> None:
    assert wire.unquote(f"{wire.quote(path)} is the folder") == path


def test_a_reply_without_quotes_has_no_path() -> None:
    with pytest.raises(RemoteProtocolError):
        wire.unquote("/ is the folder")


@given(HOSTS4, PORTS)
def test_an_address_of_port_is_read_again(host: str, port: int) -> None:
    text = wire.format_port(host, port)
    assert wire.parse_port(text) == (host, port)
    assert wire.parse_passive(f"Entering Passive Mode ({text}).") == (host, port)
    assert wire.parse_passive(f"={text}") == (host, port)


@given(HOSTS, PORTS)
def test_an_address_of_eprt_is_read_again(host: str, port: int) -> None:
    found, same = wire.parse_extended_port(wire.format_extended_port(host, port))
    assert (ipaddress.ip_address(found), same) == (ipaddress.ip_address(host), port)
    assert wire.parse_extended_passive(f"Entering Extended Passive Mode (|||{port}|)") == port


@pytest.mark.parametrize(
    "text", ["(|||0|)", "(|||65536|)", "(|||1|", "(||1|)", "(|1|1.2.3.4|5|)", "(1115111)", "", "(|||a|)"]
)
def test_a_reply_to_epsv_without_a_port_is_refused(text: str) -> None:
    with pytest.raises(RemoteProtocolError):
        wire.parse_extended_passive(text)


@pytest.mark.parametrize("text", ["1,2,3,4,5", "1,2,3,4,5,256", "1,2,3,4,5,6,7", "a", "", "1,2,3,4,1234,1"])
def test_an_address_of_port_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(RemoteProtocolError):
        wire.parse_port(text)


def test_an_unknown_protocol_of_eprt_is_told_apart() -> None:
    with pytest.raises(wire.UnknownNetworkProtocol):
        wire.parse_extended_port("|3|192.0.2.1|80|")
    for text in ("", "|1|192.0.2.1|80", "|1|::1|80|", "|2|192.0.2.1|80|", "|1|localhost|80|", "|1|192.0.2.1|0|", "111"):
        with pytest.raises(RemoteProtocolError) as caught:
            wire.parse_extended_port(text)
        assert not isinstance(caught.value, wire.UnknownNetworkProtocol)


@given(st.integers(-30_000_000_000, 253_402_300_799))
def test_a_time_is_read_again(seconds: int) -> None:
    assert wire.parse_time(wire.format_time(seconds)) == seconds


def test_a_time_is_in_utc_and_may_have_a_fraction() -> None:
    assert wire.parse_time("20200913122640") == 1_600_000_000
    assert wire.parse_time("20200913122640.5") == 1_600_000_000.5
    assert wire.parse_time("20161231235960") == wire.parse_time("20170101000000")
    assert wire.format_time(1_600_000_000.9) == "20200913122640"
    assert wire.format_time(1e30) == "19700101000000"


@pytest.mark.parametrize(
    "parse",
    [
        wire.parse_port,
        wire.parse_passive,
        wire.parse_extended_port,
        wire.parse_extended_passive,
        wire.parse_time,
        wire.unquote,
    ],
)
@given(text=ANYTHING)
def test_nothing_but_a_protocol_error_comes_of_any_text(parse, text: str) -> None:  # type: ignore[no-untyped-def]
    try:
        parse(text)
    except RemoteProtocolError:
        pass

"""PROXY headers byte by byte: what is read, how much of it, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncnet.errors import LocalProtocolError, RemoteProtocolError
from asyncnet.transports.address import NOWHERE, Address
from asyncnet.transports.proxy_header import (
    FIRST_READ,
    MAX_V1,
    MAX_V2,
    ProxyHeader,
    format_v1,
    format_v2,
    parse_proxy_header,
)

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V4 = b"\xc0\x00\x02\x01" + b"\x7f\x00\x00\x01" + b"\xdc\x04" + b"\x01\xbb"
V6 = bytes.fromhex("20010db800000000000000000000000100000000000000000000000000000001") + b"\xdc\x04\x01\xbb"
UNIX = b"/run/client".ljust(108, b"\0") + b"/" + b"x" * 107


def v2(version_command, family, block=b""):
    return SIGNATURE + bytes([version_command, family]) + len(block).to_bytes(2, "big") + block


def read_exactly_as_asked(data):
    """What a transport does: read the count that is asked for, and not a byte more. Returns the header."""
    have = data[:FIRST_READ]
    while isinstance(result := parse_proxy_header(have), int):
        assert len(have) < result
        assert result <= len(data), "more was asked for than the header has"
        have = data[:result]
    assert result.size == len(have)
    return result


CLIENT, SERVER = Address("192.0.2.1", 56324), Address("127.0.0.1", 443)
CLIENT6, SERVER6 = Address("2001:db8::1", 56324), Address("::1", 443)
HEADERS = {
    b"PROXY TCP4 192.0.2.1 127.0.0.1 56324 443\r\n": (CLIENT, SERVER),
    b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n": (Address("0.0.0.0", 0), Address("255.255.255.255", 65535)),
    b"PROXY TCP6 2001:db8::1 ::1 56324 443\r\n": (CLIENT6, SERVER6),
    b"PROXY TCP6 2001:0DB8:0000:0000:0000:0000:0000:0001 0:0:0:0:0:0:0:1 56324 443\r\n": (CLIENT6, SERVER6),
    b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:7f00:1 56324 443\r\n": (CLIENT, SERVER),
    b"PROXY UNKNOWN\r\n": (None, None),
    b"PROXY UNKNOWN " + b"\xff" * (MAX_V1 - 16) + b"\r\n": (None, None),
    v2(0x21, 0x11, V4): (CLIENT, SERVER),
    v2(0x21, 0x12, V4): (CLIENT, SERVER),
    v2(0x21, 0x21, V6): (CLIENT6, SERVER6),
    v2(0x21, 0x22, V6): (CLIENT6, SERVER6),
    v2(0x21, 0x21, bytes(10) + b"\xff\xff" + V4[:4] + bytes(10) + b"\xff\xff" + V4[4:]): (CLIENT, SERVER),
    v2(0x21, 0x31, UNIX): (Address(path="/run/client"), Address(path="/" + "x" * 107)),
    v2(0x21, 0x32, bytes(216)): (Address(path=""), Address(path="")),
    v2(0x21, 0x11, V4 + b"\x03\0\x04\1\2\3\4" + b"\x04\0\0"): (CLIENT, SERVER),
    v2(0x21, 0x11, V4.ljust(MAX_V2 - 16, b"\x04")): (CLIENT, SERVER),
    v2(0x21, 0x00): (None, None),
    v2(0x21, 0x00, b"anything"): (None, None),
    v2(0x21, 0x10, V4): (None, None),
    v2(0x21, 0x02): (None, None),
    v2(0x20, 0x00): (None, None),
    v2(0x20, 0x11, V4): (None, None),
    v2(0x20, 0xFF, b"\0"): (None, None),
}


@pytest.mark.parametrize("data", HEADERS)
@pytest.mark.parametrize("behind", [b"", b"\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01"])
def test_a_header_is_read_to_its_last_byte_and_no_further(data, behind):
    expected = ProxyHeader(*HEADERS[data], size=len(data))
    assert read_exactly_as_asked(data) == expected
    assert parse_proxy_header(data + behind) == expected


@pytest.mark.parametrize("data", HEADERS)
def test_every_beginning_of_a_header_asks_for_more_but_never_for_too_much(data):
    for have in range(len(data)):
        wanted = parse_proxy_header(data[:have])
        assert isinstance(wanted, int)
        assert have < wanted <= len(data)


V1_FAULTS = [
    b"GET / HTTP/1.1\r\n",
    b"proxy TCP4 192.0.2.1 127.0.0.1 1 2\r\n",
    b"PROXY\tTCP4 192.0.2.1 127.0.0.1 1 2\r\n",
    b"PROXY  TCP4 192.0.2.1 127.0.0.1 1 2\r\n",
    b"PROXY TCP4  192.0.2.1 127.0.0.1 1 2\r\n",
    b"PROXY TCP4 192.0.2.1 127.0.0.1 1 2 \r\n",
    b"PROXY TCP4 192.0.2.1 127.0.0.1 1 2 3\r\n",
    b"PROXY TCP4 192.0.2.1 127.0.0.1 1\r\n",
    b"PROXY TCP4 192.0.2.1 127.0.0.1\r\n",
    b"PROXY tcp4 192.0.2.1 127.0.0.1 1 2\r\n",
    b"PROXY UDP4 192.0.2.1 127.0.0.1 1 2\r\n",
    b"PROXY TCP5 192.0.2.1 127.0.0.1 1 2\r\n",
    b"PROXY UNKNOWNS\r\n",
    b"PROXY UNKNOWN\t\r\n",
    b"PROXY TCP4 192.0.2.01 127.0.0.1 1 2\r\n",
    b"PROXY TCP4 192.0.2 127.0.0.1 1 2\r\n",
    b"PROXY TCP4 192.0.2.256 127.0.0.1 1 2\r\n",
    b"PROXY TCP4 3221225985 127.0.0.1 1 2\r\n",
    b"PROXY TCP4 localhost 127.0.0.1 1 2\r\n",
    b"PROXY TCP4 ::1 ::1 1 2\r\n",
    b"PROXY TCP6 127.0.0.1 127.0.0.1 1 2\r\n",
    b"PROXY TCP6 ::1 127.0.0.1 1 2\r\n",
    b"PROXY TCP6 [::1] [::1] 1 2\r\n",
    b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
    b"PROXY TCP6 ::1::1 ::1 1 2\r\n",
    b"PROXY TCP6 ::12345 ::1 1 2\r\n",
    b"PROXY TCP4 192.0.2.1 127.0.0.1 65536 2\r\n",
    b"PROXY TCP4 192.0.2.1 127.0.0.1 1 65536\r\n",
    b"PROXY TCP4 192.0.2.1 127.0.0.1 01 2\r\n",
    b"PROXY TCP4 192.0.2.1 127.0.0.1 1 00\r\n",
    b"PROXY TCP4 192.0.2.1 127.0.0.1 +1 2\r\n",
    b"PROXY TCP4 192.0.2.1 127.0.0.1 -1 2\r\n",
    b"PROXY TCP4 192.0.2.1 127.0.0.1 1_0 2\r\n",
    b"PROXY TCP4 192.0.2.1 127.0.0.1 \xd9\xa1 2\r\n",
    b"PROXY TCP4 192.0.2.1\0 127.0.0.1 1 2\r\n",
    b"PROXY TCP4 192.0.2.1 127.0.0.1 1 2\n",
    b"PROXY TCP4 192.0.2.1 127.0.0.1 1 2\rX",
    b"PROXY TCP4 192.0.2.1 127.0.0.1 1 2\r\r\n",
    b"PROXY TCP4 192.0.2.1 127.0.0.1 1\n2\r\n",
    b"PROXY UNKNOWN a\nb\r\n",
    b"PROXY UNKNOWN " + b"x" * (MAX_V1 - 15) + b"\r\n",
    b"PROXY UNKNOWN " + b"x" * (MAX_V1 - 15) + b"\r",
    b"PROXY UNKNOWN " + b"x" * 65536,
]
V2_FAULTS = [
    SIGNATURE[:-1] + b"\r" + v2(0x21, 0x11, V4)[12:],
    v2(0x11, 0x11, V4),
    v2(0x31, 0x11, V4),
    v2(0x01, 0x11, V4),
    v2(0x22, 0x11, V4),
    v2(0x2F, 0x11, V4),
    v2(0x21, 0x41, V4),
    v2(0x21, 0xF1, V4),
    v2(0x21, 0x13, V4),
    v2(0x21, 0x1F, V4),
    v2(0x21, 0x11, V4[:-1]),
    v2(0x21, 0x11),
    v2(0x21, 0x21, V6[:-1]),
    v2(0x21, 0x21, V4),
    v2(0x21, 0x31, UNIX[:-1]),
    v2(0x21, 0x11, V4.ljust(MAX_V2 - 15, b"\x04")),
    v2(0x20, 0x00, bytes(65535)),
]


@pytest.mark.parametrize("data", V1_FAULTS + V2_FAULTS)
def test_what_is_no_header_is_refused_whole_and_byte_by_byte(data):
    with pytest.raises(RemoteProtocolError):
        parse_proxy_header(data)
    with pytest.raises(RemoteProtocolError):
        read_exactly_as_asked(data + b"\r\n" + bytes(MAX_V2))


@pytest.mark.parametrize("data", [b"G", b"\x16\x03\x01", b"PROXY\n", b"\r\n\r\nx"])
def test_another_protocol_is_refused_at_its_first_bytes(data):
    with pytest.raises(RemoteProtocolError):
        parse_proxy_header(data)


def test_a_length_above_the_limit_is_refused_before_the_bytes_are_read():
    with pytest.raises(RemoteProtocolError):
        parse_proxy_header((SIGNATURE + b"\x21\x11" + (MAX_V2 - 15).to_bytes(2, "big"))[:16])


@given(st.binary(max_size=300), st.sampled_from([b"", b"PROXY ", b"PROXY TCP6 ", SIGNATURE, SIGNATURE + b"\x21\x11\0"]))
def test_no_bytes_raise_anything_but_a_remote_protocol_error(data, start):
    try:
        result = parse_proxy_header(start + data)
    except RemoteProtocolError:
        return
    assert isinstance(result, ProxyHeader) or result > len(start + data)


PORTS = st.integers(0, 65535)
ADDRESSES = st.builds(lambda ip, port: Address.of_ip(str(ip).partition("%")[0], port), st.ip_addresses(), PORTS)


@given(ADDRESSES, ADDRESSES, st.sampled_from([format_v1, format_v2]))
def test_what_is_sent_is_read_back_in_whatever_families(source, destination, form):
    header = form(source, destination)
    assert read_exactly_as_asked(header) == ProxyHeader(source, destination, len(header))


def test_mixed_families_are_sent_as_ipv6_with_the_ipv4_end_mapped():
    assert format_v1(CLIENT, SERVER6) == b"PROXY TCP6 ::ffff:c000:201 ::1 56324 443\r\n"
    assert format_v2(CLIENT6, SERVER)[12:16] == b"\x21\x21\0\x24"


def test_the_headers_that_are_sent_have_the_bytes_of_the_specification():
    assert format_v1(CLIENT, SERVER) == b"PROXY TCP4 192.0.2.1 127.0.0.1 56324 443\r\n"
    assert format_v2(CLIENT, SERVER) == v2(0x21, 0x11, V4)
    assert format_v2(CLIENT6, SERVER6) == v2(0x21, 0x21, V6)
    assert format_v2(Address(path="/run/client", uid=7), Address(path="/" + "x" * 107)) == v2(0x21, 0x31, UNIX)


def test_ends_that_are_not_on_a_network_are_sent_as_unknown():
    unix = Address(path="/run/a")
    assert format_v1(unix, unix) == format_v1(NOWHERE, NOWHERE) == b"PROXY UNKNOWN\r\n"
    assert format_v2(NOWHERE, NOWHERE) == v2(0x21, 0x00)


@pytest.mark.parametrize("form", [format_v1, format_v2])
def test_an_end_on_a_network_with_one_that_is_not_is_our_own_mistake(form):
    for ends in [(CLIENT, Address(path="/run/a")), (NOWHERE, SERVER6)]:
        with pytest.raises(LocalProtocolError):
            form(*ends)


def test_a_path_too_long_for_the_header_is_our_own_mistake():
    with pytest.raises(LocalProtocolError):
        format_v2(Address(path="x" * 109), Address(path=""))

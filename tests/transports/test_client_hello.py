"""ClientHellos as OpenSSL makes them, cut into any pieces, and hostile ones."""

import ssl
import struct

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from asyncnet.errors import RemoteProtocolError
from asyncnet.transports.client_hello import (
    MAX_CLIENT_HELLO,
    MAX_RECORDS,
    NO_APPLICATION_PROTOCOL,
    UNRECOGNIZED_NAME,
    ClientHello,
    parse_client_hello,
)

TLS12, TLS13 = 0x0303, 0x0304


def client(server_name=None, alpn=None, newest=ssl.TLSVersion.TLSv1_3, oldest=ssl.TLSVersion.TLSv1_2):
    """A client that has just sent its hello: the session and the two pipes, to the client and from it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.minimum_version, context.maximum_version = oldest, newest
    if alpn is not None:
        context.set_alpn_protocols(alpn)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = context.wrap_bio(incoming, outgoing, server_hostname=server_name)
    with pytest.raises(ssl.SSLWantReadError):
        session.do_handshake()
    return session, incoming, outgoing


def hello(*args, **kwargs):
    return client(*args, **kwargs)[2].read()


HELLOS = [
    (hello(), ClientHello(None, None, (TLS13, TLS12))),
    (hello("Example.org"), ClientHello("example.org", None, (TLS13, TLS12))),
    (hello(None, ["h2", "http/1.1"]), ClientHello(None, (b"h2", b"http/1.1"), (TLS13, TLS12))),
    (
        hello("a." * 60 + "example", ["acme-tls/1"]),
        ClientHello("a." * 60 + "example", (b"acme-tls/1",), (TLS13, TLS12)),
    ),
    (hello("a.example", newest=ssl.TLSVersion.TLSv1_2), ClientHello("a.example", None, (TLS12,))),
    (hello("a.example", oldest=ssl.TLSVersion.TLSv1_3), ClientHello("a.example", None, (TLS13,))),
    (hello(None, [f"protocol-{n}" for n in range(300)]), None),
]
HELLOS[-1] = (HELLOS[-1][0], ClientHello(None, tuple(b"protocol-%d" % n for n in range(300)), (TLS13, TLS12)))


def record(fragment, kind=22, version=0x0301):
    return struct.pack("!BHH", kind, version, len(fragment)) + fragment


def split_into_records(data, sizes):
    """The same handshake message in records of the given sizes, the last one holding the rest."""
    message, records = data[5:], b""
    for size in sizes:
        if len(message) <= size:
            break
        records += record(message[:size])
        message = message[size:]
    return records + record(message)


def read_as_asked(data):
    """Wait until the count asked for has arrived, as a transport does: the hello and its size."""
    wanted = parse_client_hello(b"")
    assert wanted == 9
    while isinstance(result := parse_client_hello(data[:wanted]), int):
        assert wanted < result <= len(data)
        wanted = result
    return result, wanted


@pytest.mark.parametrize(("data", "expected"), HELLOS)
def test_a_real_hello_is_read_whole_with_bytes_behind_it_and_as_asked(data, expected):
    assert parse_client_hello(data) == expected
    assert parse_client_hello(data + b"\x14\x03\x03\x00\x01\x01") == expected
    assert read_as_asked(data) == (expected, len(data))


@pytest.mark.parametrize(("data", "expected"), HELLOS)
def test_every_beginning_of_a_hello_asks_for_more_but_never_for_too_much(data, expected):
    for have in range(len(data)):
        wanted = parse_client_hello(data[:have])
        assert isinstance(wanted, int)
        assert have < wanted <= len(data)


@given(st.sampled_from(HELLOS[:-1]), st.lists(st.integers(1, 200), max_size=MAX_RECORDS - 1), st.data())
def test_a_hello_in_many_records_and_segments_is_the_same_hello(case, sizes, draw):
    data = split_into_records(case[0], sizes)
    assert read_as_asked(data) == (case[1], len(data))
    have = draw.draw(st.integers(0, len(data) - 1))
    wanted = parse_client_hello(data[:have])
    assert isinstance(wanted, int)
    assert have < wanted <= len(data)


def test_a_hello_may_be_in_64_records_and_not_in_more():
    data, expected = HELLOS[1]
    assert parse_client_hello(split_into_records(data, [1] * (MAX_RECORDS - 1))) == expected
    with pytest.raises(RemoteProtocolError):
        parse_client_hello(split_into_records(data, [1] * MAX_RECORDS))


# Hellos built by hand, to be wrong in one place.


def vector(length_size, content):
    return len(content).to_bytes(length_size, "big") + content


def extension(kind, content):
    return struct.pack("!H", kind) + vector(2, content)


def body(extensions, ciphers=b"\x13\x01", compression=b"\0", session=bytes(32)):
    start = b"\x03\x03" + bytes(32) + vector(1, session) + vector(2, ciphers) + vector(1, compression)
    return start if extensions is None else start + vector(2, extensions)


def handmade(content):
    return record(b"\x01" + vector(3, content))


def server_name(*entries):
    return extension(0, vector(2, b"".join(bytes([kind]) + vector(2, name) for kind, name in entries)))


def alpn(*protocols):
    return extension(16, vector(2, b"".join(vector(1, protocol) for protocol in protocols)))


@pytest.mark.parametrize(
    ("extensions", "expected"),
    [
        (None, ClientHello(None, None, (TLS12,))),
        (b"", ClientHello(None, None, (TLS12,))),
        (extension(0x0A0A, b""), ClientHello(None, None, (TLS12,))),
        (server_name((0, b"a.example")), ClientHello("a.example", None, (TLS12,))),
        (alpn(b"\xff\0", b"x" * 255), ClientHello(None, (b"\xff\0", b"x" * 255), (TLS12,))),
        (extension(43, b"\x02\x7f\x1c"), ClientHello(None, None, (0x7F1C,))),
    ],
)
def test_a_hello_may_have_few_unknown_or_odd_extensions(extensions, expected):
    assert parse_client_hello(handmade(body(extensions))) == expected


WRONG_BODIES = {
    "nothing in it": b"",
    "only a version": b"\x03\x03",
    "no cipher suites": body(b"", ciphers=b""),
    "no compression": body(b"", compression=b""),
    "bytes behind the extensions": body(b"") + b"\0",
    "one byte of extensions' length": body(None) + b"\0",
    "extensions longer than the hello": body(None) + b"\0\x05\0\0\0\0",
    "an extension longer than the extensions": body(b"\0\x10\0\xff\0"),
    "an extension twice": body(alpn(b"h2") + alpn(b"h2")),
    "an unknown extension twice": body(extension(99, b"") * 2),
    "an empty server_name": body(extension(0, b"")),
    "an empty list of names": body(server_name()),
    "an empty name": body(server_name((0, b""))),
    "a name of an unknown kind": body(server_name((1, b"a.example"))),
    "two names": body(server_name((0, b"a.example"), (0, b"b.example"))),
    "a name with a NUL": body(server_name((0, b"a.example\0.b.example"))),
    "a name with a newline": body(server_name((0, b"a.example\r\nlog: line"))),
    "a name beyond ASCII": body(server_name((0, "ü.example".encode()))),
    "a name too long": body(server_name((0, b"a" * 256))),
    "a name longer than its list": body(extension(0, b"\0\x04\0\0\x09a")),
    "bytes behind the names": body(extension(0, vector(2, b"\0" + vector(2, b"a")) + b"\0")),
    "an empty ALPN": body(extension(16, b"")),
    "no protocols": body(alpn()),
    "an empty protocol": body(alpn(b"h2", b"")),
    "a protocol longer than its list": body(extension(16, vector(2, b"\x09h2"))),
    "bytes behind the protocols": body(extension(16, vector(2, vector(1, b"h2")) + b"\0")),
    "no versions": body(extension(43, b"\0")),
    "half a version": body(extension(43, b"\x03\x03\x04\x03")),
    "bytes behind the versions": body(extension(43, b"\x02\x03\x04\0")),
}


@pytest.mark.parametrize("wrong", WRONG_BODIES)
def test_a_malformed_hello_is_refused(wrong):
    with pytest.raises(RemoteProtocolError):
        parse_client_hello(handmade(WRONG_BODIES[wrong]))


GOOD = handmade(body(b""))


@pytest.mark.parametrize(
    "data",
    [
        b"G",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x02",
        b"\x80\x2e\x01\x03\x01",  # SSLv2
        b"\x15\x03\x01\x00\x02\x02\x28",  # an alert
        record(b"\x02"),  # a ServerHello
        record(b""),
        b"\x16\x03\x01\x40\x01\x01",
        record(b"\x01") + record(b"\0\0\x2a", kind=23),
        record(b"\x01") + record(b"\0\0\x2a", version=0x0201),
        record(b"\x01") + record(b""),
    ],
)
def test_what_is_no_hello_is_refused_as_soon_as_it_shows(data):
    with pytest.raises(RemoteProtocolError):
        parse_client_hello(data)


@pytest.mark.parametrize(
    "data",
    [
        record(b"\x01\0\x40\0"),  # a message of 16 KiB, to come
        record(b"\x01\xff\xff\xff"),
        b"\x16\x03\x01\x40\x00",  # a record of 16 KiB, to come
        record(b"\x01\0\x3f\xf7"),  # a message that fits in one record, but is in two
        b"".join(record(b"\x01\0\x20\0"[n : n + 1] or b"\0") for n in range(3000)),
        record(GOOD[5:].ljust(MAX_CLIENT_HELLO - 4, b"\0")),  # a small message in a record too long
    ],
)
def test_a_hello_above_16_kib_is_refused_when_its_length_shows(data):
    with pytest.raises(RemoteProtocolError):
        parse_client_hello(data)


def test_a_hello_of_exactly_16_kib_is_read_and_one_byte_more_is_not():
    empty = len(handmade(body(extension(21, b""))))
    padded = handmade(body(extension(21, bytes(MAX_CLIENT_HELLO - empty))))
    assert len(padded) == MAX_CLIENT_HELLO
    assert isinstance(parse_client_hello(padded), ClientHello)
    with pytest.raises(RemoteProtocolError):
        parse_client_hello(handmade(body(extension(21, bytes(MAX_CLIENT_HELLO - empty + 1)))))


@given(
    st.binary(max_size=400), st.sampled_from([b"", b"\x16\x03\x01", b"\x16\x03\x01\x00\x40\x01\x00\x00\x3c\x03\x03"])
)
def test_no_bytes_raise_anything_but_a_remote_protocol_error(data, start):
    try:
        result = parse_client_hello(start + data)
    except RemoteProtocolError:
        return
    assert isinstance(result, ClientHello) or result > len(start + data)


@given(st.sampled_from(HELLOS), st.lists(st.tuples(st.integers(0), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_hello_raises_nothing_but_a_remote_protocol_error(case, damages):
    data = bytearray(case[0])
    for position, byte in damages:
        data[position % len(data)] = byte
    try:
        result = parse_client_hello(bytes(data))
    except RemoteProtocolError:
        return
    assert isinstance(result, ClientHello) or result > len(data)


@pytest.mark.parametrize(
    ("alert", "reason"),
    [
        (NO_APPLICATION_PROTOCOL, "no application protocol"),
        (UNRECOGNIZED_NAME, "unrecognized name"),
    ],
)
def test_a_client_understands_the_alert(alert, reason):
    session, incoming, _ = client("a.example", ["h2"])
    incoming.write(alert)
    with pytest.raises(ssl.SSLError, match=reason):
        session.do_handshake()


def test_a_handshake_still_works_on_the_bytes_that_were_only_looked_at():
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("a.example").configure_cert(context)
    data = split_into_records(HELLOS[1][0], [3, 1, 40])
    assert parse_client_hello(data) == HELLOS[1][1]
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    incoming.write(data)
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_side=True).do_handshake()
    assert outgoing.read(1) == b"\x16"

"""The notation of endpoints: what it means, how it prints, and what it answers to mistakes."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asyncnet.endpoints import Endpoint, Scheme, parse
from asyncnet.errors import EndpointError

MEANINGS = {
    "tcp://127.0.0.1:8080": Endpoint(Scheme.TCP, host="127.0.0.1", port=8080),
    "tcp://localhost:0": Endpoint(Scheme.TCP, host="localhost", port=0),
    "tcp://my_service.example.:65535": Endpoint(Scheme.TCP, host="my_service.example.", port=65535),
    "tcp://*:80?reuse_port=1&backlog=16": Endpoint(Scheme.TCP, host="*", port=80, reuse_port=True, backlog=16),
    "tcp://[::1]:53": Endpoint(Scheme.TCP, host="::1", port=53),
    "tcp://[fe80::1%eth0.100]:53": Endpoint(Scheme.TCP, host="fe80::1%eth0.100", port=53),
    "tls://example.org:443": Endpoint(Scheme.TCP, True, host="example.org", port=443),
    "tls://*:443?cert=/etc/a b.pem&key=k%26.pem&ca=ca.pem&alpn=h2,http/1.1&server_name=a.example": Endpoint(
        Scheme.TCP,
        True,
        host="*",
        port=443,
        cert="/etc/a b.pem",
        key="k&.pem",
        ca="ca.pem",
        alpn=("h2", "http/1.1"),
        server_name="a.example",
    ),
    "unix:/run/web.sock": Endpoint(Scheme.UNIX, path="/run/web.sock"),
    "unix:web.sock?mode=660": Endpoint(Scheme.UNIX, path="web.sock", mode=0o660),
    "unix:/tmp/what%3F 100%25 ü?mode=000": Endpoint(Scheme.UNIX, path="/tmp/what? 100% ü", mode=0),
    "fd:3": Endpoint(Scheme.FD, fd=3),
    "systemd:web.socket": Endpoint(Scheme.SYSTEMD, name="web.socket"),
    "tls+unix:/run/web.sock?mode=600&cert=a.pem": Endpoint(
        Scheme.UNIX, True, path="/run/web.sock", mode=0o600, cert="a.pem"
    ),
    "tls+fd:0?cert=a.pem": Endpoint(Scheme.FD, True, fd=0, cert="a.pem"),
    "tls+systemd:web?cert=a.pem": Endpoint(Scheme.SYSTEMD, True, name="web", cert="a.pem"),
}


@pytest.mark.parametrize("text", MEANINGS)
def test_an_endpoint_means_what_it_says_and_prints_as_it_was_written(text):
    assert parse(text) == MEANINGS[text]
    assert str(MEANINGS[text]) == text


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("tcp://[FE80:0:0::1%eth0]:1", "tcp://[fe80::1%eth0]:1"),
        ("tcp://h:80?reuse_port", "tcp://h:80?reuse_port=1"),
        ("tcp://h:80?backlog=7&reuse_port=yes", "tcp://h:80?reuse_port=1&backlog=7"),
        ("unix:%2frun%2Fa?mode=0660", "unix:/run/a?mode=660"),
    ],
)
def test_other_spellings_print_in_the_usual_one(text, printed):
    assert str(parse(text)) == printed
    assert parse(printed) == parse(text)


# Where the ^ stands is where the caret must point; it is not part of the text.
MISTAKES = [
    ("^", "begins with one of tcp://"),
    ("^:8080", "the scheme is missing: tcp://*:8080"),
    ("^8080", "the scheme is missing: tcp://*:8080"),
    ("^localhost:8080", "the scheme is missing: tcp://localhost:8080"),
    ("^[::1]:8080", "the scheme is missing: tcp://[::1]:8080"),
    ("^/run/web.sock", "the scheme is missing: unix:/run/web.sock"),
    ("^./web.sock", "the scheme is missing: unix:./web.sock"),
    ("^localhost", "begins with one of tcp://"),
    ("^tcp:localhost:80", "did you mean tcp://localhost:80"),
    ("^TCP://localhost:80", "did you mean tcp://localhost:80"),
    ("^tpc://localhost:80", "did you mean tcp://localhost:80"),
    ("^http://localhost:80", "did you mean tcp://localhost:80"),
    ("^https://localhost:443", "did you mean tls://localhost:443"),
    ("^tls+tcp://localhost:443", "did you mean tls://localhost:443"),
    ("^unx:/run/a", "did you mean unix:/run/a"),
    ("^gopher://localhost:80", "begins with one of tcp://"),
    ("^ tcp://localhost:80", "did you mean tcp://localhost:80"),
    ("tcp://^", "the host is missing"),
    ("tcp://^:80", "the host is missing: * for every interface"),
    ("tcp://localhost^", "the port is missing"),
    ("tcp://localhost:^", "the port is missing"),
    ("tcp://[::1]^", "the port is missing"),
    ("tcp://localhost^?backlog=1", "the port is missing"),
    ("tcp://localhost:^65536", "from 0 to 65535"),
    ("tcp://localhost:^-1", "from 0 to 65535"),
    ("tcp://localhost:^+1", "from 0 to 65535"),
    ("tcp://localhost:^http", "from 0 to 65535"),
    ("tcp://localhost:^8O", "from 0 to 65535"),
    ("tcp://localhost:^٣", "from 0 to 65535"),
    ("tcp://localhost:^80 ", "from 0 to 65535"),
    ("tcp://^::1:80", "IPv6 stands in brackets: [::1]:80"),
    ("tcp://^fe80::1", "IPv6 stands in brackets: [fe80::1]:PORT"),
    ("tcp://^2001:db8:0:0:0:0:0:1", "IPv6 stands in brackets: [2001:db8::1]:PORT"),
    ("tcp://^a:b:80", "IPv6 stands in brackets"),
    ("tcp://^[::1:80", "never closed"),
    ("tcp://[^127.0.0.1]:80", "brackets hold an IPv6 address"),
    ("tcp://[^]:80", "brackets hold an IPv6 address"),
    ("tcp://[::1]^80", "a colon and the port"),
    ("tcp://[::1]^]:80", "a colon and the port"),
    ("tcp://[fe80::1%^]:80", "an interface stands behind the %"),
    ("tcp://[fe80::1%et^:0]:80", "an interface stands behind the %"),
    ("tcp://^127.1:80", "four numbers"),
    ("tcp://^0x7f000001:80", "four numbers"),
    ("tcp://^2130706433:80", "four numbers"),
    ("tcp://^127.0.0.01:80", "four numbers"),
    ("tcp://^256.0.0.1:80", "four numbers"),
    ("tcp://^a..b:80", "1 to 63 characters"),
    ("tcp://^.:80", "1 to 63 characters"),
    ("tcp://^" + "a" * 64 + ":80", "1 to 63 characters"),
    ("tcp://^" + "a." * 127 + "a:80", "at most 253"),
    ("tcp://user^@localhost:80", "'@' may not stand in a host name"),
    ("tcp://local^ host:80", "' ' may not stand in a host name"),
    ("tcp://local^%68ost:80", "'%' may not stand in a host name"),
    ("tcp://b^ücher.example:80", "xn--"),
    ("tcp://local^\\host:80", "may not stand in a host name"),
    ("tcp://localhost:80^/", "nothing may follow the port"),
    ("tcp://localhost^/:80", "nothing may follow the port"),
    ("tcp://localhost:80^/index?backlog=1", "nothing may follow the port"),
    ("tcp://localhost:^80#top", "from 0 to 65535"),
    ("tcp://local^\x00host:80", "control character"),
    ("tcp://localhost:80^\n", "control character"),
    ("unix:/run/^\x1b[2J", "control character"),
    ("unix:/run/a^\u2028b", "not printable"),
    ("unix:/run/a^\udcffb", "not printable"),
    ("unix:^", "path of the socket is missing"),
    ("unix:^?mode=660", "path of the socket is missing"),
    ("unix:^//run/web.sock", "one slash"),
    ("unix:^%2F/run/web.sock", "one slash"),
    ("unix:/a^%zz", "two hexadecimal digits"),
    ("unix:/a^%", "two hexadecimal digits"),
    ("unix:/a^%ff", "not UTF-8"),
    ("unix:/a^%00", "control character"),
    ("unix:/a?mode=^888", "octal"),
    ("unix:/a?mode=^1777", "octal"),
    ("unix:/a?mode=^rw", "octal"),
    ("unix:/a?mode=^", "octal"),
    ("unix:/a?^reuse_port", "reuse_port is an option of tcp:// and tls:// alone"),
    ("fd:^", "as in fd:3"),
    ("fd:^//3", "as in fd:3"),
    ("fd:^-1", "as in fd:3"),
    ("fd:^3x", "as in fd:3"),
    ("fd:^9999999999", "as in fd:3"),
    ("fd:3?^backlog=1", "there are no options here"),
    ("systemd:^", "1 to 255 ASCII characters"),
    ("systemd:^a:b", "1 to 255 ASCII characters"),
    ("systemd:^ü", "1 to 255 ASCII characters"),
    ("systemd:^" + "a" * 256, "1 to 255 ASCII characters"),
    ("systemd:web?^cert=a.pem", "cert is an option of tls:// and tls+unix: and tls+fd: and tls+systemd: alone"),
    ("tcp://h:80?^", "an option is missing"),
    ("tcp://h:80?backlog=1&^", "an option is missing"),
    ("tcp://h:80?^&backlog=1", "an option is missing"),
    ("tcp://h:80?^=1", "an option is missing"),
    ("tcp://h:80?^backlgo=1", "did you mean backlog?"),
    ("tcp://h:80?^owner=me", "unknown option 'owner': the options here are reuse_port, backlog"),
    ("tls://h:80?^verify=no", "unknown option 'verify'"),
    ("tcp://h:80?^mode=660", "mode is an option of unix: and tls+unix: alone"),
    ("tcp://h:80?backlog=1&^backlog=1", "backlog is given twice"),
    ("tcp://h:80?backlog^", "backlog needs a value"),
    ("tcp://h:80?backlog=^0", "from 1 to"),
    ("tcp://h:80?backlog=^many", "from 1 to"),
    ("tcp://h:80?reuse_port=^no", "leave it out"),
    ("tcp://h:80?reuse_port=^", "leave it out"),
    ("tls://h:80?cert=^", "path of a PEM file"),
    ("tls://h:80?cert=a^%2", "two hexadecimal digits"),
    ("tls://h:80?^key=k.pem", "a key needs its certificate"),
    ("tls://h:80?alpn=^", "commas between"),
    ("tls://h:80?alpn=^h2,,h3", "commas between"),
    ("tls://h:80?alpn=^ü", "commas between"),
    ("tls://h:80?alpn=^" + "a" * 256, "commas between"),
    ("tls://h:80?alpn=^h2,h2", "twice"),
    ("tls://h:80?server_name=^a b", "may not stand in a host name"),
    ("tls://h:80?server_name=^", "1 to 63 characters"),
]


@pytest.mark.parametrize(("marked", "problem"), MISTAKES)
def test_a_mistake_is_pointed_at_and_told_how_to_mend(marked, problem):
    position = marked.index("^")
    text = marked.replace("^", "", 1)
    with pytest.raises(EndpointError) as caught:
        parse(text)
    assert caught.value.text == text
    assert problem in caught.value.problem
    assert caught.value.position == position


def _corrected(message):
    return message.rpartition(": ")[2].removeprefix("did you mean ")


@pytest.mark.parametrize("text", [":8080", "8080", "localhost:8080", "[::1]:8080", "/run/a", "tcp:a:1", "SSL://a:1"])
def test_the_suggestion_is_itself_an_endpoint(text):
    with pytest.raises(EndpointError) as caught:
        parse(text)
    parse(_corrected(caught.value.problem))


PIECES = (
    *("tcp://", "tls://", "unix:", "fd:", "systemd:", "tls+fd:", "[", "]", "::1", "fe80::1", "*", "localhost", "80"),
    *("%", "%25", "%00", "%C3%BC", "?", "&", "=", ",", ":", "/", ".", "a", "3", "65536", "\0", "ü", "\udc80"),
    *("mode", "660", "cert", "key", "alpn", "h2", "backlog", "reuse_port", "server_name"),
)


@given(st.one_of(st.text(), st.lists(st.sampled_from(PIECES), max_size=12).map("".join)))
@example("tcp://\ud800:1")
def test_any_string_is_an_endpoint_that_prints_and_parses_back_or_an_endpoint_error(text):
    fault = None
    try:
        endpoint = parse(text)
    except EndpointError as error:
        fault = error
    if fault is None:
        assert parse(str(endpoint)) == endpoint
    else:
        assert 0 <= fault.position <= len(text)


PRINTABLE = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1)


@given(PRINTABLE.filter(lambda path: not path.startswith("//")), st.none() | st.integers(0, 0o777))
def test_every_path_without_control_characters_can_be_written(path, mode):
    endpoint = Endpoint(Scheme.UNIX, path=path, mode=mode)
    assert parse(str(endpoint)) == endpoint


@given(st.ip_addresses(), st.integers(0, 65535), PRINTABLE, st.none() | PRINTABLE)
def test_every_address_and_certificate_path_can_be_written(ip, port, cert, ca):
    endpoint = Endpoint(Scheme.TCP, True, host=str(ip).partition("%")[0], port=port, cert=cert, ca=ca)
    assert parse(str(endpoint)) == endpoint

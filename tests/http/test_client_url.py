"""URLs and proxies: what is read, what is refused, and what leads where."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncnet.errors import EndpointError, RemoteProtocolError
from asyncnet.http.proxies import Proxies
from asyncnet.http.url import Origin, parse_url
from asyncnet.urls import URLError


@pytest.mark.parametrize(
    ("text", "origin", "target", "authority"),
    [
        ("http://example.org", "http://example.org:80", "/", "example.org"),
        ("HTTPS://EXAMPLE.org:443/A?b=c#d", "https://example.org:443", "/A?b=c", "example.org"),
        ("http://example.org:/", "http://example.org:80", "/", "example.org"),
        ("http://example.org?q", "http://example.org:80", "/?q", "example.org"),
        ("http://example.org:8080/a%20b", "http://example.org:8080", "/a%20b", "example.org:8080"),
        ("http://[::1]/", "http://[::1]:80", "/", "[::1]"),
        ("http://[0:0::1]:81/", "http://[::1]:81", "/", "[::1]:81"),
        ("http://127.0.0.1/é?ü=“", "http://127.0.0.1:80", "/%C3%A9?%C3%BC=%E2%80%9C", "127.0.0.1"),
        ("http://bücher.example/", "http://xn--bcher-kva.example:80", "/", "xn--bcher-kva.example"),
        ("http://日本。jp/", "http://xn--wgv71a.jp:80", "/", "xn--wgv71a.jp"),
        ('http://a/"<>^`{|}', "http://a:80", "/%22%3C%3E%5E%60%7B|%7D", "a"),
        ("wss://example.org/chat", "https://example.org:443", "/chat", "example.org"),
    ],
)
def test_a_url_is_read(text: str, origin: str, target: str, authority: str) -> None:
    url = parse_url(text)
    assert (str(url.origin), url.target, url.authority) == (origin, target, authority)
    assert parse_url(str(url)) == url


def test_user_and_password_are_read_and_never_shown() -> None:
    url = parse_url("http://us%65r:p%3A%40@example.org/")
    assert (url.user, url.password) == ("user", "p:@")
    assert "p:@" not in repr(url) + str(url)
    with pytest.raises(URLError) as caught:
        parse_url("http://user:hunter2@exa mple.org/")
    assert "hunter2" not in str(caught.value)
    with pytest.raises(URLError) as caught:
        parse_url("http://user:hunter2/@example.org/")  # the slash should be %2F
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "example.org",
        "/path",
        "http:/example.org",
        "http:example.org",
        "http://",
        "http:///path",
        "http://:80/",
        "ftp://example.org/",
        "javascript://x",
        "http://exa mple.org/",
        "http://example.org/a b",
        "http://example.org/\r\nX: y",
        "http://example.org/\0",
        "http://example.org\\@evil.example/",
        "http://example.org/\\x",
        "http://example.org:0/",
        "http://example.org:65536/",
        "http://example.org:8x/",
        "http://example.org:-1/",
        "http://a:b:c/",
        "http://[::1/",
        "http://[::1]x/",
        "http://[fe80::1%25eth0]/",
        "http://[127.0.0.1]/",
        "http://::1/",
        "http://127.1/",
        "http://0x7f.1/",
        "http://2130706433/",
        "http://127.0.0.01/",
        "http://ex%61mple.org/",
        "http://-ü-.example/",
        "http://a..b/",
        "http://example.org/%zz",
        "http://example.org/%",
        "http://u%zz@example.org/",
        "http://u%0d%0aX:y@example.org/",
        "http://u%3Ax:y@example.org/",
        "http://u%ff@example.org/",
        "http://example.org/\ud800",
        "http://" + "a" * 300 + "/",
    ],
)
def test_what_is_unclear_is_refused(text: str) -> None:
    with pytest.raises(URLError):
        parse_url(text)


@given(st.text(max_size=40))
def test_no_text_raises_anything_but_a_url_error_and_what_passes_is_safe_to_send(text: str) -> None:
    for whole in (text, f"http://{text}", f"http://example.org/{text}"):
        try:
            url = parse_url(whole)
        except URLError:
            continue
        assert all("!" <= character <= "~" for character in url.target + url.authority)
        assert parse_url(str(url)).target == url.target


@given(st.text(max_size=40))
def test_no_location_raises_anything_but_a_remote_protocol_error(text: str) -> None:
    try:
        url = parse_url("https://example.org/a/b?c").join(text)
    except RemoteProtocolError:
        return
    assert all("!" <= character <= "~" for character in url.target + url.authority)


@pytest.mark.parametrize("text", ["http://[", "//[x]/", "http://a:99999/", "gopher://a/", "http://a\\b/"])
def test_a_location_that_leads_nowhere_is_the_server_s_fault(text: str) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_url("https://example.org/a/b?c").join(text)


def test_a_location_drives_no_terminal_through_the_error() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        parse_url("https://example.org/").join("//\u2100\x9b31m\u202e/")
    assert str(caught.value).isprintable()


# Proxies

HTTP, HTTPS = Origin("http", "www.example.org", 80), Origin("https", "www.example.org", 443)


def test_the_environment_names_a_proxy_for_each_scheme() -> None:
    proxies = Proxies.from_environment({"http_proxy": "http://a:1/", "HTTPS_PROXY": "socks5h://u:p@b:2"})
    assert (str(proxies.choose(HTTP)), proxies.text(HTTPS)) == ("http://a:1", "socks5h://u:p@b:2")
    proxies = Proxies.from_environment({"all_proxy": "a"})
    assert proxies.text(HTTP) == proxies.text(HTTPS) == "http://a:80"
    assert Proxies.from_environment({}).choose(HTTP) is None
    assert Proxies(None, "socks5://[::1]").text(HTTPS) == "socks5://[::1]:1080"


def test_a_variable_that_a_request_can_set_is_not_heeded() -> None:
    assert Proxies.from_environment({"HTTP_PROXY": "http://evil:1"}).choose(HTTP) is None


@pytest.mark.parametrize(
    ("exceptions", "host", "is_exception"),
    [
        ("*", "example.org", True),
        ("example.org", "example.org", True),
        ("example.org", "www.example.org", True),
        (".example.org", "www.example.org", True),
        ("*.example.org", "www.example.org", True),
        ("EXAMPLE.org", "www.example.org", True),
        ("example.org", "notexample.org", False),
        ("a, localhost 127.0.0.0/8", "127.9.9.9", True),
        ("::1", "::1", True),
        ("[::1]:80", "::1", True),
        ("fe80::/10", "fe80::2", True),
        ("10.0.0.0/8", "11.0.0.1", False),
        ("example.org:80", "example.org", True),
        ("example.org:81", "example.org", False),
        ("", "example.org", False),
    ],
)
def test_no_proxy_names_hosts_networks_and_all_that_is_below(exceptions: str, host: str, is_exception: bool) -> None:
    proxies = Proxies("http://a:1", "http://a:1", exceptions)
    assert (proxies.choose(Origin("http", host, 80)) is None) is is_exception


@pytest.mark.parametrize("text", ["ftp://a:1", "http://a:b", "https://a:1", "http://"])
def test_what_is_no_proxy_is_refused(text: str) -> None:
    with pytest.raises(EndpointError):
        Proxies(text)

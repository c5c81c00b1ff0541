"""URLs of ftp, ftps and ftpes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncnet.ftp.url import FTPURL, parse_url
from asyncnet.urls import URLError


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("ftp://Example.org", FTPURL("ftp", "example.org", 21)),
        ("FTP://example.org/", FTPURL("ftp", "example.org", 21)),
        ("ftps://example.org/a", FTPURL("ftps", "example.org", 990, "a")),
        ("ftpes://example.org:2121/a/b/", FTPURL("ftpes", "example.org", 2121, "a/b/")),
        ("ftp://[2001:db8::1]/x", FTPURL("ftp", "2001:db8::1", 21, "x")),
        ("ftp://[::1]:2121/x", FTPURL("ftp", "::1", 2121, "x")),
        ("ftp://example.org/%2Fetc/motd", FTPURL("ftp", "example.org", 21, "/etc/motd")),
        ("ftp://example.org//etc/motd", FTPURL("ftp", "example.org", 21, "/etc/motd")),
        ("ftp://example.org/etc/motd", FTPURL("ftp", "example.org", 21, "etc/motd")),
        ("ftp://example.org/a%20b%3F%23", FTPURL("ftp", "example.org", 21, "a b?#")),
        ("ftp://example.org/a?b#c", FTPURL("ftp", "example.org", 21, "a?b")),
        ("ftp://example.org/%FF", FTPURL("ftp", "example.org", 21, "\udcff")),
        ("ftp://example.org/ü", FTPURL("ftp", "example.org", 21, "ü")),
        ("ftp://example.org/a;type=A", FTPURL("ftp", "example.org", 21, "a", type="a")),
        ("ftp://example.org/a;b;type=i", FTPURL("ftp", "example.org", 21, "a;b", type="i")),
        ("ftp://example.org/a%3Btype=x", FTPURL("ftp", "example.org", 21, "a;type=x")),
        ("ftp://u@example.org", FTPURL("ftp", "example.org", 21, user="u")),
        ("ftp://u:@example.org", FTPURL("ftp", "example.org", 21, user="u", password="")),
        ("ftp://a%40b:p%3A%2F@example.org", FTPURL("ftp", "example.org", 21, user="a@b", password="p:/")),
        ("ftp://u:p@ss@example.org", FTPURL("ftp", "example.org", 21, user="u", password="p@ss")),
        ("ftp://bücher.example/", FTPURL("ftp", "xn--bcher-kva.example", 21)),
    ],
)
def test_a_url_is_read(text: str, url: FTPURL) -> None:
    assert parse_url(text) == url
    assert parse_url(text).password == url.password


@pytest.mark.parametrize(
    "text",
    [
        "",
        "example.org",
        "http://example.org/",
        "ftp:/example.org",
        "ftp://",
        "ftp:///path",
        "ftp://user@/path",
        "ftp://:secret@example.org/",
        "ftp://example.org:0/",
        "ftp://example.org:65536/",
        "ftp://example.org:x/",
        "ftp://exa mple.org/",
        "ftp://example.org/a b",
        "ftp://example.org/a\nb",
        "ftp://example.org/a%0Ab",
        "ftp://example.org/a%0D%0ADELE%20b",
        "ftp://example.org/a%00",
        "ftp://u%0D:secret@example.org/",
        "ftp://u:secret%0A@example.org/",
        "ftp://example.org/%",
        "ftp://example.org/%zz",
        "ftp://example.org/a\\b",
        "ftp://example.org/a;type=d",
        "ftp://[::1/",
        "ftp://[x]/",
        "ftp://[::1]x/",
        "ftp://127.1/",
        "ftp://0x7f000001/",
        "ftp://exa%6Dple.org/",
        "ftp://u:a/secret@example.org/",
        "ftp://u:a#secret@example.org/",
        "ftp://u:a?secret@example.org/",
        "ftp://u:a@b:x/secret@example.org/",
        "u:secret@example.org/",
        "http:u:secret@example.org/",
    ],
)
def test_what_is_unclear_is_refused_without_showing_the_password(text: str) -> None:
    with pytest.raises(URLError) as caught:
        parse_url(text)
    assert "secret" not in str(caught.value)


def test_neither_text_nor_repr_has_the_password() -> None:
    url = parse_url("ftp://user:secret@example.org:2121/%2Fa%20b;type=i")
    assert str(url) == "ftp://user@example.org:2121/%2Fa%20b;type=i"
    assert "secret" not in repr(url)
    assert str(parse_url("ftps://[::1]/x")) == "ftps://[::1]/x"


@given(st.binary(max_size=30).filter(lambda path: not set(path) & set(b"\r\n\0")))
def test_a_path_survives_being_written(raw: bytes) -> None:
    path = raw.decode("utf-8", "surrogateescape")
    url = FTPURL("ftp", "example.org", 21, path)
    assert parse_url(str(url)) == url


@given(st.text(max_size=60) | st.from_regex(r"ftp://[a-z@:/%;=\[\]0-9A-F.]{0,40}", fullmatch=True))
def test_nothing_but_a_url_error_comes_of_any_text(text: str) -> None:
    try:
        url = parse_url(text)
    except URLError:
        return
    assert not set(url.path + (url.user or "") + (url.password or "")) & set("\r\n\0")

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncnet.smtp.url import SMTPURL, URLError, parse_url


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("smtp://mail.example.org", SMTPURL("smtp", "mail.example.org", 25)),
        ("smtp://mail.example.org/", SMTPURL("smtp", "mail.example.org", 25)),
        ("SMTPS://Mail.Example.org:8465", SMTPURL("smtps", "mail.example.org", 8465)),
        ("smtps://anna%40example.org:p%3Aw@[::1]", SMTPURL("smtps", "::1", 465, "anna@example.org", "p:w")),
        ("smtp://b\u00fccher.example:587", SMTPURL("smtp", "xn--bcher-kva.example", 587)),
        ("lmtp://anna@127.0.0.1", SMTPURL("lmtp", "127.0.0.1", 24, "anna")),
        ("lmtp+unix:/run/lmtp%20x", SMTPURL("lmtp", "", path="/run/lmtp x")),
        ("lmtp+unix:lmtp.sock", SMTPURL("lmtp", "", path="lmtp.sock")),
    ],
)
def test_a_url_names_a_server(text: str, url: SMTPURL) -> None:
    assert parse_url(text) == url


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("mail.example.org", "begins with smtp://"),
        ("ftp://mail.example.org", "begins with smtp://"),
        ("smtp://", "the host is missing"),
        ("smtp://mail.example.org/carl@example.net", "nothing stands behind the host"),
        ("smtp://mail.example.org?x", "nothing stands behind the host"),
        ("smtp://:secret@mail.example.org", "the user before the @ is missing"),
        ("smtp://anna:%ff@mail.example.org", "UTF-8"),
        ("smtp://anna:%f@mail.example.org", "hexadecimal"),
        ("smtp://anna%0d%0aQUIT:secret@mail.example.org", "a line end or NUL"),
        ("smtp://mail.example.org:0", "a port is a number"),
        ("smtp://mail example.org", "may not stand in a URL"),
        ("smtp://mail.example.org\r\nQUIT", "may not stand in a URL"),
        ("lmtp+unix:", "the path of a socket"),
        ("lmtp+unix://host/x", "the path of a socket"),
        ("lmtp+unix:/x%00", "the path of a socket"),
    ],
)
def test_what_is_none_is_refused_with_what_is_wrong(text: str, problem: str) -> None:
    with pytest.raises(URLError, match=problem) as caught:
        parse_url(text)
    assert "secret" not in str(caught.value)


hosts = st.sampled_from(["mail.example.org", "127.0.0.1", "::1", "xn--bcher-kva.example"])
names = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=("Cs",)), min_size=1)
urls = st.builds(
    SMTPURL, st.sampled_from(["smtp", "smtps", "lmtp"]), hosts, st.integers(1, 65535), st.none() | names
) | st.builds(
    lambda path: SMTPURL("lmtp", "", path=path),
    st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), min_size=1).filter(
        lambda path: not path.startswith("//")
    ),
)


@given(urls)
def test_a_url_is_read_back(url: SMTPURL) -> None:
    assert parse_url(str(url)) == url


@given(st.text() | st.text().map("smtp://".__add__) | st.text().map("lmtp+unix:".__add__))
def test_nothing_raises_anything_else(text: str) -> None:
    try:
        url = parse_url(text)
    except URLError:
        return
    assert parse_url(str(url)).host == url.host


def test_the_password_shows_nowhere() -> None:
    url = parse_url("smtp://anna:secret@mail.example.org")
    assert "secret" not in f"{url} {url!r}"

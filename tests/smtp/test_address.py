"""Mail addresses: what is one, what it means, and how it is written again."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncnet.smtp.address import MailAddress, ascii_domain, parse_domain


@pytest.mark.parametrize(
    ("text", "local", "domain"),
    [
        ("joe@example.org", "joe", "example.org"),
        ("Joe@Example.ORG", "Joe", "example.org"),
        ("a.b+c@mail_1.example", "a.b+c", "mail_1.example"),
        ('"joe"@example.org', "joe", "example.org"),
        ('"j\\o\\e"@example.org', "joe", "example.org"),
        ('"a b"@example.org', "a b", "example.org"),
        ('"a@b"@example.org', "a@b", "example.org"),
        ('""@example.org', "", "example.org"),
        ("a%b@example.org", "a%b", "example.org"),
        ("joe@[192.0.2.1]", "joe", "[192.0.2.1]"),
        ("joe@[ipv6:2001:DB8:0::1]", "joe", "[IPv6:2001:db8::1]"),
        ("joe@[x-tag:What]", "joe", "[x-tag:what]"),
        ("jörg@münchen.example", "jörg", "münchen.example"),
        ("joe@MÜNCHEN.example", "joe", "münchen.example"),
    ],
)
def test_an_address_is_what_it_means(text: str, local: str, domain: str) -> None:
    assert MailAddress.parse(text) == MailAddress(local, domain)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "joe",
        "@example.org",
        "joe@",
        ".joe@example.org",
        "joe.@example.org",
        "j..oe@example.org",
        "a b@example.org",
        "a@b@example.org",
        '"joe@example.org',
        '"joe"x@example.org',
        '"j\x00oe"@example.org',
        '"j\roe"@example.org',
        "joe@exa mple.org",
        "joe@example..org",
        "joe@-example.org",
        "joe@example-.org",
        "joe@example.org\r\n",
        "joe@[192.0.2.256]",
        "joe@[ipv6:fe80::1%eth0]",
        "joe@[ipv6:x]",
        "joe@[192.0.2.1",
        "joe@[]",
        "jo\udcffe@example.org",
        "joe@\u2028.example",
        "x" * 65 + "@example.org",
        "joe@" + "x" * 64 + ".org",
        "joe@" + "x." * 128 + "org",
        "ü" * 33 + "@example.org",
        "ü" * 31 + " @example.org",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        MailAddress.parse(text)


def test_a_local_part_is_quoted_where_it_has_to_be() -> None:
    assert str(MailAddress("a b", "example.org")) == '"a b"@example.org'
    assert str(MailAddress('a"\\', "example.org")) == '"a\\"\\\\"@example.org'
    assert str(MailAddress("a.b", "example.org")) == "a.b@example.org"
    assert str(MailAddress("", "example.org")) == '""@example.org'
    assert str(MailAddress("postmaster", "")) == "postmaster"


def test_domains_are_compared_by_what_the_dns_knows() -> None:
    assert MailAddress.parse("joe@münchen.example").ascii_domain == "xn--mnchen-3ya.example"
    assert MailAddress.parse("joe@xn--mnchen-3ya.example").ascii_domain == "xn--mnchen-3ya.example"


def test_an_international_address_may_have_one_in_ascii() -> None:
    assert MailAddress.parse("joe@münchen.example").downgraded() == MailAddress("joe", "xn--mnchen-3ya.example")
    assert MailAddress.parse("jörg@example.org").downgraded() is None


def test_a_literal_names_a_host() -> None:
    assert MailAddress.parse("joe@[192.0.2.1]").literal == ipaddress.ip_address("192.0.2.1")
    assert MailAddress.parse("joe@[IPv6:::1]").literal == ipaddress.ip_address("::1")
    assert MailAddress.parse("joe@[x:y]").literal is None
    assert MailAddress.parse("joe@example.org").literal is None


LOCAL = st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=16)
DOMAIN = st.lists(st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True), min_size=1, max_size=4).filter(
    lambda labels: not any(label.startswith("xn--") for label in labels)
)


@given(LOCAL, DOMAIN)
def test_what_is_written_is_read_again(local: str, labels: list[str]) -> None:
    address = MailAddress(local, ".".join(labels))
    assert MailAddress.parse(str(address)) == address


@given(st.text(max_size=80))
def test_no_text_raises_anything_but_value_error(text: str) -> None:
    for candidate in (text, f"joe@{text}", f"{text}@example.org", f'"{text}"@x', f"joe@[{text}]"):
        try:
            address = MailAddress.parse(candidate)
        except ValueError:
            continue
        assert MailAddress.parse(str(address)) == address
        assert ascii_domain(address.domain).isascii()


@given(st.text(max_size=40))
def test_a_domain_is_its_own_normal_form(text: str) -> None:
    try:
        domain = parse_domain(text)
    except ValueError:
        return
    assert parse_domain(domain) == domain

"""Cookies: read from a request's headers, set in a response's (RFC 6265, and what browsers have added since).

    name = read_cookies(request.headers).get("name")
    set_cookie(response.headers, "name", name, max_age=3600, secure=True)

What is read is taken as it comes, as section 4.2 has it; what is set keeps to the grammar of section 4.1.1. The
standard library's `http.cookies` stops reading at the first cookie it does not like, and lets a quoted string reach
over a semicolon: with that, a cookie that a script may set swallows others that no script may read.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Literal

from asyncnet.errors import LocalProtocolError
from asyncnet.http.messages import Headers

SameSite = Literal["Strict", "Lax", "None"]

LONGEST = 4096
"""Bytes of a name and its value together: RFC 6265 section 6.1, and more than that browsers drop without a word."""

# RFC 6265 section 4.1.1:
#   cookie-name  = token
#   cookie-octet = %x21 / %x23-2B / %x2D-3A / %x3C-5B / %x5D-7E
#   path-value   = <any CHAR except CTLs or ";">
#   domain-value = <subdomain>, as in RFC 1034 section 3.5, enhanced by RFC 1123 section 2.1
_is_name = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_is_value = re.compile(r"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*").fullmatch
_is_path = re.compile(r"/[\x20-\x3a\x3c-\x7e]*").fullmatch
_LABEL = r"[0-9A-Za-z](?:[0-9A-Za-z-]{0,61}[0-9A-Za-z])?"
_is_domain = re.compile(rf"{_LABEL}(?:\.{_LABEL})*").fullmatch

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def read_cookies(headers: Headers) -> dict[str, str]:
    """The cookies of a request, by name.

    Of those with the same name the first counts: browsers send the one with the longest path first (RFC 6265 section
    5.4). `read_all_cookies` has the others.
    """
    cookies: dict[str, str] = {}
    for name, value in read_all_cookies(headers):
        cookies.setdefault(name, value)
    return cookies


def read_all_cookies(headers: Headers) -> list[tuple[str, str]]:
    """The cookies of a request, in their order, one character a byte (ISO 8859-1).

    A semicolon ends a cookie wherever it stands. Quotation marks around a value are taken off, and nothing else is
    decoded. What has no name is ignored.
    """
    cookies: list[tuple[str, str]] = []
    for field in headers.get_all("cookie"):
        for pair in field.split(";"):
            name, equals, value = pair.partition("=")
            name, value = name.strip(" \t"), value.strip(" \t")
            if equals and name:
                if len(value) >= 2 and value[0] == value[-1] == '"':
                    value = value[1:-1]
                cookies.append((name, value))
    return cookies


def set_cookie(
    headers: Headers,
    name: str,
    value: str,
    *,
    secure: bool,
    max_age: int | None = None,
    expires: datetime | None = None,
    path: str | None = "/",
    domain: str | None = None,
    httponly: bool = True,
    samesite: SameSite | None = "Lax",
    partitioned: bool = False,
) -> None:
    """Add a Set-Cookie field to a response's headers (RFC 6265 section 4.1).

    `value` holds visible ASCII without quotation marks, commas, semicolons and backslashes: encode what may have
    others, by `base64.urlsafe_b64encode` or `urllib.parse.quote`. `secure`: never over plain HTTP; it has no default,
    because behind a proxy nobody else can know. `max_age` is in seconds, and goes before `expires`; without both, the
    cookie ends with the browser. Without `path` it is for the folder of the request, without `domain` for this host
    alone, with it for those below too. `httponly`: not for scripts. `samesite`: whether it comes along from other
    sites' pages ("None": always). `partitioned`: a jar for each site that this one is embedded in.

    Raises `LocalProtocolError` for what would split the field, and for what browsers would silently drop: more than
    4096 bytes, SameSite=None or Partitioned without Secure, and a name that promises what is not so (`__Secure-`:
    Secure; `__Host-`: Secure, the path "/" and no domain).
    """
    _check_name_and_value(name, value)
    if path is not None and _is_path(path) is None:
        raise LocalProtocolError(f"not the path of a cookie: {path!r}")
    if domain is not None and (_is_domain(domain) is None or len(domain) > 253):
        raise LocalProtocolError(f"not the domain of a cookie: {domain!r}")
    if samesite not in ("Strict", "Lax", "None", None):
        raise LocalProtocolError(f"SameSite is Strict, Lax or None, not {samesite!r}")
    if not secure and (samesite == "None" or partitioned):
        raise LocalProtocolError(f"the cookie {name} wants other sites' pages: browsers demand Secure for that")
    _check_prefix(name, secure=secure, path=path, domain=domain)
    parts = [f"{name}={value}"]
    if expires is not None:
        parts.append(f"Expires={_date(expires)}")
    if max_age is not None:
        parts.append(f"Max-Age={int(max_age)}")
    if domain is not None:
        parts.append(f"Domain={domain}")
    if path is not None:
        parts.append(f"Path={path}")
    if secure:
        parts.append("Secure")
    if httponly:
        parts.append("HttpOnly")
    if samesite is not None:
        parts.append(f"SameSite={samesite}")
    if partitioned:
        parts.append("Partitioned")
    headers.add("set-cookie", "; ".join(parts))


def delete_cookie(
    headers: Headers, name: str, *, path: str | None = "/", domain: str | None = None, partitioned: bool = False
) -> None:
    """Have the browser forget a cookie, which it knows by its name, path and domain: give those it was set with.

    Raises `LocalProtocolError` as `set_cookie` does.
    """
    secure = partitioned or name.lower().startswith(("__secure-", "__host-"))
    set_cookie(
        headers,
        name,
        "",
        secure=secure,
        max_age=0,
        expires=_EPOCH,
        path=path,
        domain=domain,
        partitioned=partitioned,
    )


def _check_name_and_value(name: str, value: str) -> None:
    if _is_name(name) is None:
        raise LocalProtocolError(f"not the name of a cookie: {name!r}")
    if _is_value(value) is None:
        raise LocalProtocolError(f"the value of the cookie {name} has characters that it has to be encoded for")
    if len(name) + len(value) > LONGEST:
        raise LocalProtocolError(f"the cookie {name} has more than {LONGEST} bytes")


def _check_prefix(name: str, *, secure: bool, path: str | None, domain: str | None) -> None:
    """RFC 6265bis section 4.1.3. Browsers compare the prefix in any case, so that no server can be tricked."""
    prefix = name.lower()
    if prefix.startswith(("__secure-", "__host-")) and not secure:
        raise LocalProtocolError(f"the name of the cookie {name} promises Secure")
    if prefix.startswith("__host-") and (path != "/" or domain is not None):
        raise LocalProtocolError(f'the name of the cookie {name} promises the path "/" and no domain')


def _date(moment: datetime) -> str:
    """RFC 9110 section 5.6.7. Browsers take years from 1601 on (RFC 6265 section 5.1.1)."""
    if moment.tzinfo is None:
        raise LocalProtocolError(f"a time without a time zone: {moment!r}")
    moment = moment.astimezone(UTC)
    if moment.year < 1601:
        raise LocalProtocolError(f"browsers know no cookies of the year {moment.year}")
    return format_datetime(moment, usegmt=True)

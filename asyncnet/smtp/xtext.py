"""How values with any characters stand in a parameter: xtext (RFC 3461 section 4) and its kin for Unicode (RFC 6533).

    xtext               = *( xchar / hexchar )      xchar: "!" to "~" without "+" and "="; hexchar: "+", two hex digits
    utf-8-addr-xtext    = 1*( QCHAR / EmbeddedUnicodeChar )     "\\x{16A}": a character by its number
    utf-8-addr-unitext  = the same, with characters beyond ASCII as they are: where SMTPUTF8 was said

No I/O. Server and client use it.
"""

from __future__ import annotations

import re

from asyncnet.errors import LocalProtocolError, RemoteProtocolError

_match_xtext = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*").fullmatch
_match_unitext = re.compile(
    r"(?:[!-*,-<>-\[\]-~\x80-\U0010ffff]|\\x\{(?:[0-9A-F]{2}|[1-9A-F][0-9A-F]{2,4}|10[0-9A-F]{4})\})*"
).fullmatch
_is_printable = re.compile(r"[ -~]*").fullmatch


def decode_xtext(text: str) -> str:
    """What `text` stands for: printable ASCII, since it goes into reports. Raises `RemoteProtocolError`."""
    if _match_xtext(text) is None:
        raise RemoteProtocolError("a value that is no xtext")
    decoded = re.sub(r"\+(..)", lambda match: chr(int(match[1], 16)), text)
    if not _is_printable(decoded):
        raise RemoteProtocolError("a value with characters that are not printable ASCII")
    return decoded


def encode_xtext(text: str) -> str:
    """`text` as xtext. Raises `LocalProtocolError` if it is not printable ASCII."""
    if not _is_printable(text):
        raise LocalProtocolError(f"only printable ASCII can be said here: {text!r}")
    return re.sub(r"[ +=]", lambda match: f"+{ord(match[0]):02X}", text)


def decode_unitext(text: str) -> str:
    """What utf-8-addr-xtext or utf-8-addr-unitext stands for. Raises `RemoteProtocolError`."""
    if _match_unitext(text) is None:
        raise RemoteProtocolError("a value that is no utf-8-addr-xtext")
    decoded = re.sub(r"\\x\{([0-9A-F]+)\}", lambda match: chr(int(match[1], 16)), text)
    if not decoded.replace(" ", "x").isprintable():
        raise RemoteProtocolError("a value with characters that are not printable")
    return decoded


def encode_unitext(text: str, *, international: bool) -> str:
    """`text` as utf-8-addr-unitext, or in ASCII as utf-8-addr-xtext. Raises `LocalProtocolError` for controls."""
    if not text.replace(" ", "x").isprintable():
        raise LocalProtocolError(f"only printable characters can be said here: {text!r}")
    special = r"[ +=\\]" if international else r"[ +=\\]|[^ -~]"
    return re.sub(special, lambda match: rf"\x{{{ord(match[0]):02X}}}", text)

"""The grammar of SMTP's commands and replies, for both sides. RFC 5321, 1870, 2033, 2034, 3030, 3461, 4954, 6152, 6531.

What a server offers is in `extensions.py`, the content behind DATA in `content.py`, xtext in `xtext.py`. No I/O.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, TypeVar

from asyncnet.errors import LocalProtocolError, RemoteProtocolError
from asyncnet.replies import Reply
from asyncnet.smtp.address import MailAddress
from asyncnet.smtp.envelope import Body, Envelope, Notify, Recipient, Returned
from asyncnet.smtp.xtext import decode_unitext, decode_xtext, encode_unitext, encode_xtext

T = TypeVar("T")

MAX_LINE = 12288
"""The longest line of a command, in bytes: what RFC 4954 section 4 wants for AUTH. All others stay far below it: the
512 of RFC 5321 section 4.5.3.1.4, and what MAIL's and RCPT's parameters add to them."""

MAX_RECEIVED_REPLY_LINE = 2048
"""The longest line of a reply that a client reads, in bytes. RFC 5321 section 4.5.3.1.5 has 512, servers go beyond."""


class CommandError(RemoteProtocolError):
    """A command that cannot be understood. `code` and `enhanced` are what the reply to it says."""

    def __init__(self, text: str, code: int = 501, enhanced: str = "5.5.4") -> None:
        super().__init__(text)
        self.code = code
        self.enhanced = enhanced

    @property
    def reply(self) -> Reply:
        """The reply that refuses the command."""
        text = str(self)[:200]  # it may name a parameter of the client's
        return coded(self.code, self.enhanced, f"{text[:1].upper()}{text[1:]}.")


# Commands: RFC 5321 section 4.1.1. A verb, and behind a space its argument; white space at the end counts for nothing.


class Command(NamedTuple):
    """A command: its verb in capitals, and its argument; bytes that are no UTF-8 are surrogates (PEP 383)."""

    verb: str
    argument: str = ""


_match_command = re.compile(rb"([A-Za-z][A-Za-z0-9]{2,15})(?:[ \t]*| ([^\r\n\0]*))\r\n").fullmatch
_UNSENDABLE = frozenset("\r\n\0")


def parse_command(line: bytes, *, bare_lf: bool = False) -> Command:
    """Read a line with its end, which is CR LF; with `bare_lf` it may be LF. Raises `CommandError` for what is none."""
    if bare_lf and not line.endswith(b"\r\n"):
        line = line.removesuffix(b"\n") + b"\r\n"
    match = _match_command(line)
    if match is None:
        if not line.endswith(b"\r\n"):
            raise CommandError("a line that does not end with CR LF", 500, "5.5.2")
        raise CommandError("this is no command", 500, "5.5.2")
    argument = (match[2] or b"").rstrip(b" \t")
    return Command(match[1].decode("ascii").upper(), argument.decode("utf-8", "surrogateescape"))


def format_command(verb: str, argument: str | None = None) -> bytes:
    """A command as it is sent. Raises `LocalProtocolError` if a line end or NUL is in it, or the line is too long."""
    text = verb if argument is None else f"{verb} {argument}"
    if not _UNSENDABLE.isdisjoint(text):
        raise LocalProtocolError(f"a line end or NUL cannot be sent within a command: {text!r}")
    try:
        line = text.encode() + b"\r\n"
    except UnicodeEncodeError:
        raise LocalProtocolError(f"this has characters that cannot be encoded: {text!r}") from None
    if len(line) > MAX_LINE:
        raise LocalProtocolError(f"a command of more than {MAX_LINE} bytes")
    return line


_match_hello = re.compile(r"[!-~]{1,255}").fullmatch


def parse_hello(argument: str) -> str:
    """The name in EHLO, HELO or LHLO: section 4.1.1.1.

    A domain or an address literal; what else stands there, and has been sent by honest clients all the time (names with
    underscores, addresses without brackets), is for whoever decides on clients. Raises `CommandError`.
    """
    if _match_hello(argument) is None:
        raise CommandError("a name is missing: a domain, or an address in brackets")
    return argument


# MAIL and RCPT: RFC 5321 sections 4.1.1.2, 4.1.1.3 and 4.1.2; SMTPUTF8's addresses are RFC 6531's.
#
#     Path       = "<" [ A-d-l ":" ] Mailbox ">"         A-d-l, the source route, means nothing any more (appendix C)
#     parameter  = keyword [ "=" value ]                 value: printable ASCII without "=" and space, and UTF-8

_match_path = re.compile(r'(?:FROM|TO): *<([^">]*(?:"(?:[^"\\]|\\.)*"[^">]*)*)>(?: +(.*))?', re.IGNORECASE).fullmatch
_match_route = re.compile(r"@[^@,:\s\"<>]+(?:,@[^@,:\s\"<>]+)*:").match
_match_parameter = re.compile("([A-Za-z0-9][A-Za-z0-9-]*)(?:=([!-<>-~\x80-\U0010ffff]+))?").fullmatch
_match_size = re.compile("[0-9]{1,20}").fullmatch
_match_type = re.compile("[A-Za-z0-9-]{1,40}").fullmatch
MAX_ENVELOPE_ID = 100
MAX_ORIGINAL = 500
"""How long ENVID and ORCPT may be, encoded: RFC 3461 sections 4.4 and 4.2."""


def parse_mail(argument: str) -> Envelope:
    """What stands behind MAIL: "FROM:<anna@example.org> SIZE=1000".

    AUTH= (RFC 4954 section 5) is read and forgotten: to nobody do we promise that it is true. Raises `CommandError`:
    501, 555 for a parameter that nobody knows, 550 for an address beyond ASCII without SMTPUTF8.
    """
    path, parameters = _split_path(argument, "FROM", "5.1.7")
    sender = _parse_address(path, "5.1.7") if path else None
    size = body = returned = envelope_id = None
    international = False
    for keyword, value in parameters.items():
        match keyword:
            case "SIZE":
                size = int(_checked(keyword, value, _match_size))
            case "BODY":
                body = _one_of(Body, keyword, value)
            case "SMTPUTF8" if value is None:
                international = True
            case "RET":
                returned = _one_of(Returned, keyword, value)
            case "ENVID" if value and len(value) <= MAX_ENVELOPE_ID:
                envelope_id = _decoded(keyword, value, decode_xtext)
            case "AUTH" if value:
                if value != "<>":
                    _decoded(keyword, value, decode_xtext)
            case "SMTPUTF8" | "ENVID" | "AUTH":
                raise CommandError(f"{keyword} has a value that it cannot have")
            case _:
                raise CommandError(f"MAIL has no parameter {keyword} here", 555)
    if sender is not None and sender.is_international and not international:
        raise CommandError("an address beyond ASCII needs SMTPUTF8", 550, "5.6.7")
    return Envelope(sender, body or Body.SEVEN_BIT, international, size, returned, envelope_id)


def format_mail(envelope: Envelope) -> bytes:
    """The MAIL command, with a parameter for everything that `envelope` says: the server has to know them.

    Raises `LocalProtocolError` for what cannot be said, such as an address beyond ASCII in an envelope that is not
    international.
    """
    said = [f"FROM:<{_address(envelope.sender, international=envelope.international) if envelope.sender else ''}>"]
    if envelope.size is not None:
        said.append(f"SIZE={envelope.size}")
    if envelope.body is not Body.SEVEN_BIT:
        said.append(f"BODY={envelope.body.value}")
    if envelope.international:
        said.append("SMTPUTF8")
    if envelope.returned is not None:
        said.append(f"RET={envelope.returned.value}")
    if envelope.envelope_id:
        said.append(f"ENVID={_short(encode_xtext(envelope.envelope_id), MAX_ENVELOPE_ID)}")
    return format_command("MAIL", " ".join(said))


def parse_rcpt(argument: str, *, international: bool = False) -> Recipient:
    """What stands behind RCPT: "TO:<carl@example.org> NOTIFY=NEVER". `international`: MAIL had SMTPUTF8.

    Raises `CommandError`: 501, 555 for a parameter that nobody knows, 553 for an address beyond ASCII.
    """
    path, parameters = _split_path(argument, "TO", "5.1.3")
    address = MailAddress("postmaster", "") if path.lower() == "postmaster" else _parse_address(path, "5.1.3")
    notify: frozenset[Notify] = frozenset()
    original = None
    for keyword, value in parameters.items():
        match keyword:
            case "NOTIFY":
                notify = frozenset(_one_of(Notify, keyword, word) for word in (value or "").split(","))
                if Notify.NEVER in notify and len(notify) > 1:
                    raise CommandError("NOTIFY=NEVER stands alone")
            case "ORCPT" if value and len(value) <= MAX_ORIGINAL:
                original = _parse_original(value, international=international)
            case "ORCPT":
                raise CommandError(f"{keyword} has a value that it cannot have")
            case _:
                raise CommandError(f"RCPT has no parameter {keyword} here", 555)
    if address.is_international and not international:
        raise CommandError("an address beyond ASCII needs SMTPUTF8 in MAIL", 553, "5.6.7")
    return Recipient(address, notify, original)


def format_rcpt(recipient: Recipient, *, international: bool = False) -> bytes:
    """The RCPT command. `international`: the envelope is. Raises `LocalProtocolError` for what cannot be said."""
    said = [f"TO:<{_address(recipient.address, international=international)}>"]
    if Notify.NEVER in recipient.notify and len(recipient.notify) > 1:
        raise LocalProtocolError("NOTIFY=NEVER stands alone")
    if recipient.notify:
        said.append("NOTIFY=" + ",".join(one.value for one in Notify if one in recipient.notify))
    if recipient.original is not None:
        kind, semicolon, address = recipient.original.partition(";")
        if not semicolon or _match_type(kind) is None or not address:
            raise LocalProtocolError(f"an original recipient is a type, a semicolon and an address: {kind!r}")
        if kind.lower() == "utf-8":
            encoded = encode_unitext(address, international=international)
        else:
            encoded = encode_xtext(address)
        said.append("ORCPT=" + _short(f"{kind};{encoded}", MAX_ORIGINAL))
    return format_command("RCPT", " ".join(said))


def _split_path(argument: str, word: str, enhanced: str) -> tuple[str, dict[str, str | None]]:
    """What stands between < and >, without a source route, and the parameters behind it, their names in capitals."""
    match = _match_path(argument)
    if match is None or argument[: len(word)].upper() != word:
        raise CommandError(f"an address in angle brackets is missing: {word}:<name@example.org>", 501, enhanced)
    path: str = match[1]
    if path.startswith("@"):
        route = _match_route(path)
        path = path[route.end() :] if route else path
        if not path:
            raise CommandError("a source route that leads nowhere", 501, enhanced)
    parameters: dict[str, str | None] = {}
    for text in filter(None, (match[2] or "").split(" ")):  # no other white space
        parameter = _match_parameter(text)
        keyword = parameter[1].upper() if parameter else ""
        if parameter is None or keyword in parameters:
            raise CommandError("a parameter that is none, or stands there twice")
        parameters[keyword] = parameter[2]
    return path, parameters


@lru_cache(maxsize=1024)  # the same people write to the same people
def _parse_address(path: str, enhanced: str) -> MailAddress:
    try:
        return MailAddress.parse(path)
    except ValueError as exc:
        raise CommandError(f"no address: {exc}", 501, enhanced) from exc


def _address(address: MailAddress, *, international: bool) -> str:
    text = str(address)
    if not international and not text.isascii():
        raise LocalProtocolError(f"an address beyond ASCII needs SMTPUTF8: {text!r}")
    try:
        valid = text == "postmaster" or MailAddress.parse(text) == address
    except ValueError:
        valid = False
    if not valid:
        raise LocalProtocolError(f"no address of mail: {text!r}")
    return text


def _parse_original(value: str, *, international: bool) -> str:
    """ORCPT: RFC 3461 section 4.2, RFC 6533 section 3."""
    kind, semicolon, address = value.partition(";")
    if not semicolon or _match_type(kind) is None or not address:
        raise CommandError("ORCPT is a type, a semicolon and an address")
    if not value.isascii() and not (international and kind.lower() == "utf-8"):
        raise CommandError("ORCPT has a value that it cannot have")
    return f"{kind};{_decoded('ORCPT', address, decode_unitext if kind.lower() == 'utf-8' else decode_xtext)}"


def _checked(keyword: str, value: str | None, match: Callable[[str], object]) -> str:
    if value is None or not match(value):
        raise CommandError(f"{keyword} has a value that it cannot have")
    return value


def _one_of(kinds: Callable[[str], T], keyword: str, value: str | None) -> T:
    try:
        return kinds((value or "").upper())
    except ValueError:
        raise CommandError(f"{keyword} has a value that it cannot have") from None


def _decoded(keyword: str, value: str, decode: Callable[[str], str]) -> str:
    try:
        return decode(value)
    except RemoteProtocolError as exc:
        raise CommandError(f"{keyword} has {exc}") from None


def _short(text: str, limit: int) -> str:
    if len(text) > limit:
        raise LocalProtocolError(f"more than {limit} characters: {text[:40]!r}…")
    return text


# BDAT: RFC 3030 section 2.


@dataclass(frozen=True, slots=True)
class Chunk:
    """A BDAT command: `size` bytes follow it. `is_last`: they complete the message."""

    size: int
    is_last: bool = False


_match_chunk = re.compile("([0-9]{1,20})(?: +(LAST))?", re.IGNORECASE).fullmatch


def parse_bdat(argument: str) -> Chunk:
    """What stands behind BDAT. Raises `CommandError`: then nobody knows how many bytes follow."""
    match = _match_chunk(argument)
    if match is None:
        raise CommandError("BDAT takes a number of bytes, and LAST with the last of them")
    return Chunk(int(match[1]), match[2] is not None)


def format_bdat(chunk: Chunk) -> bytes:
    """The BDAT command."""
    return format_command("BDAT", f"{chunk.size} LAST" if chunk.is_last else str(chunk.size))


# AUTH: RFC 4954 section 4. What the mechanisms say, and its base64, is in `asyncnet.auth.sasl`.

_match_auth = re.compile("([A-Za-z0-9_-]{1,20})(?: +([A-Za-z0-9+/=]+))?").fullmatch


def parse_auth(argument: str) -> tuple[str, str | None]:
    """The mechanism that AUTH names, in capitals, and its initial response in base64; None: there is none."""
    match = _match_auth(argument)
    if match is None:
        raise CommandError("AUTH takes a mechanism, and maybe an initial response in base64")
    return match[1].upper(), match[2]


# Replies with enhanced status codes: RFC 2034, RFC 3463. Each line of a reply has the code.


def coded(code: int, enhanced: str, *lines: str) -> Reply:
    """A reply, each line of which begins with its enhanced code: `coded(250, "2.1.0", "Sender ok.")`."""
    return Reply(code, tuple(f"{enhanced} {line}" for line in lines or ("",)))

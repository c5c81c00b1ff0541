"""The messages of SCRAM: RFC 5802 section 7, with SHA-256 by RFC 7677, without channel binding. No I/O.

    client-first   gs2-header client-first-bare                "n,,n=user,r=" c-nonce
    server-first   "r=" nonce ",s=" salt ",i=" iterations      nonce begins with c-nonce
    client-final   "c=" gs2-header ",r=" nonce ",p=" proof
    server-final   "v=" signature  /  "e=" error

The proof shows that the client knows the password, the signature that the server has its keys; neither shows more to
whoever listens. scramp is not asked for the exchange, as it wants a user's keys at once, where a server has to await
them. `asyncnet.auth.sasl` carries these messages.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from typing import Final

from asyncnet.auth.extra import auth_extra
from asyncnet.auth.passwords import is_acceptable
from asyncnet.auth.scram import FEWEST_ITERATIONS, MECHANISM, MOST_ITERATIONS, ScramKeys
from asyncnet.errors import LocalProtocolError, RemoteProtocolError

_HASH: Final = "sha256"
_NONCE_BYTES: Final = 24
_MOST_SALT: Final = 1024  # bytes; nobody's is longer, and it is hashed once

_NAME = "(?:[^\0=,]|=2C|=3D)+"  # saslname
_NONCE = "[!-+\\--~]+"  # printable, but no comma
_BASE64 = "[A-Za-z0-9+/]+={0,2}"
_EXTENSIONS = "(?:,[A-Za-z]=[^\0,]+)*"
# Extensions that must be understood ("m=") stand in front, where nothing here lets them.
_match_client_first = re.compile(
    rf"(?P<header>(?P<binding>[ny]|p=[A-Za-z0-9.-]+),(?:a=(?P<authorized>{_NAME}))?,)"
    rf"(?P<bare>n=(?P<name>{_NAME}),r=(?P<nonce>{_NONCE}){_EXTENSIONS})"
).fullmatch
_match_server_first = re.compile(
    rf"r=(?P<nonce>{_NONCE}),s=(?P<salt>{_BASE64}),i=(?P<iterations>[1-9][0-9]{{0,9}}){_EXTENSIONS}"
).fullmatch
_match_client_final = re.compile(
    rf"(?P<without_proof>c=(?P<header>{_BASE64}),r=(?P<nonce>{_NONCE}){_EXTENSIONS}),p=(?P<proof>{_BASE64})"
).fullmatch
_match_server_final = re.compile(rf"(?:v=(?P<signature>{_BASE64})|e=[^\0,]+){_EXTENSIONS}").fullmatch

_is_plain_ascii = re.compile("[ -~]+").fullmatch


def prepare(text: str) -> str:
    """A name or a password as SCRAM sees it, by SASLprep (RFC 4013). Raises ValueError for what that forbids."""
    if _is_plain_ascii(text):
        return text  # SASLprep leaves it, and needs no library for it
    scramp = auth_extra("scramp")
    try:
        prepared: str = auth_extra("scramp.utils").saslprep(text)
    except scramp.ScramException as error:
        raise ValueError(f"a character that RFC 4013 forbids: {error.args[0]}") from error
    if not prepared:
        raise ValueError("nothing, or only characters that count as nothing (RFC 4013)")
    return prepared


class ScramServer:
    """A server's side of one exchange, from the client's first message on.

    Whatever a message is wrong with is a `RemoteProtocolError`.
    """

    def __init__(self, client_first: bytes) -> None:
        match = _match_client_first(_decoded(client_first))
        if match is None:
            raise RemoteProtocolError("no first message of SCRAM")
        if match["binding"].startswith("p"):
            raise RemoteProtocolError("channel binding was not offered")
        self._header, self._client_first_bare = match["header"], match["bare"]
        name = _unescaped(match["name"])
        if not is_acceptable(name):  # preparing a long one takes a tenth of a second
            raise RemoteProtocolError("a name that is too long")
        try:
            self.name = prepare(name)
        except ValueError as error:
            raise RemoteProtocolError(f"the name holds {error}") from error
        self.authorized = None if match["authorized"] is None else _unescaped(match["authorized"])
        """Whom the client wants to act for, or None where it does not say."""
        self._nonce = match["nonce"] + _new_nonce()
        self._server_first = ""

    def challenge(self, keys: ScramKeys) -> bytes:
        """The server's first message, with what everybody may know of `keys`."""
        self._keys = keys
        self._server_first = f"r={self._nonce},s={_encoded(keys.salt)},i={keys.iterations}"
        return self._server_first.encode()

    def check(self, client_final: bytes) -> bytes | None:
        """The server's last message if the client's proof is right; None if it is wrong."""
        match = _match_client_final(_decoded(client_final))
        if match is None:
            raise RemoteProtocolError("no last message of SCRAM")
        if match["header"] != _encoded(self._header.encode()) or match["nonce"] != self._nonce:
            raise RemoteProtocolError("the last message of SCRAM belongs to another exchange")
        authenticated = f"{self._client_first_bare},{self._server_first},{match['without_proof']}".encode()
        proof = _from_base64(match["proof"])
        signature = hmac.digest(self._keys.stored_key, authenticated, _HASH)
        if len(proof) != len(signature):
            return None
        client_key = _xor(proof, signature)
        if not hmac.compare_digest(hashlib.sha256(client_key).digest(), self._keys.stored_key):
            return None
        return b"v=" + base64.b64encode(hmac.digest(self._keys.server_key, authenticated, _HASH))


class ScramClient:
    """A client's side of one exchange. Raises LocalProtocolError for a name or a password that SASLprep forbids."""

    mechanism: Final = MECHANISM

    def __init__(self, name: str, password: str) -> None:
        try:
            prepared, self._password = prepare(name), prepare(password).encode()
        except ValueError as error:
            raise LocalProtocolError(f"the name or the password of a SCRAM login holds {error}") from error
        self._nonce = _new_nonce()
        escaped = prepared.replace("=", "=3D").replace(",", "=2C")
        self._bare = f"n={escaped},r={self._nonce}"
        self._signature: bytes | None = None
        self.is_verified = False
        """Whether the server has shown that it has the keys of this password."""

    @property
    def first(self) -> bytes:
        """The client's first message."""
        return f"n,,{self._bare}".encode()

    def final(self, server_first: bytes) -> bytes:
        """The client's last message. Computes for as long as the server likes, up to some seconds: for a thread.

        Raises `RemoteProtocolError` for a message that is wrong, and for so few iterations that whoever listens
        could guess the password.
        """
        text = _decoded(server_first)
        match = _match_server_first(text)
        if match is None:
            raise RemoteProtocolError("the server's first message of SCRAM is none")
        if not match["nonce"].startswith(self._nonce) or match["nonce"] == self._nonce:
            raise RemoteProtocolError("the server's first message of SCRAM belongs to another exchange")
        iterations, salt = int(match["iterations"]), _from_base64(match["salt"])
        if not FEWEST_ITERATIONS <= iterations <= MOST_ITERATIONS:
            raise RemoteProtocolError(f"{iterations} iterations: not from {FEWEST_ITERATIONS} to {MOST_ITERATIONS}")
        if len(salt) > _MOST_SALT:
            raise RemoteProtocolError(f"a salt of more than {_MOST_SALT} bytes")
        salted = hashlib.pbkdf2_hmac(_HASH, self._password, salt, iterations)
        client_key = hmac.digest(salted, b"Client Key", _HASH)
        without_proof = f"c={_encoded(b'n,,')},r={match['nonce']}"
        authenticated = f"{self._bare},{text},{without_proof}".encode()
        proof = _xor(client_key, hmac.digest(hashlib.sha256(client_key).digest(), authenticated, _HASH))
        self._signature = hmac.digest(hmac.digest(salted, b"Server Key", _HASH), authenticated, _HASH)
        return f"{without_proof},p={_encoded(proof)}".encode()

    def verify(self, server_final: bytes) -> None:
        """Take the server's last message. An error in it leaves `is_verified` False.

        Raises `RemoteProtocolError` for a wrong signature: that server does not know the password, and only pretends.
        """
        match = _match_server_final(_decoded(server_final))
        if match is None or self._signature is None:
            raise RemoteProtocolError("the server's last message of SCRAM is none")
        if match["signature"] is None:
            return
        if not hmac.compare_digest(_from_base64(match["signature"]), self._signature):
            raise RemoteProtocolError("the server has not proved that it knows the password")
        self.is_verified = True


def _new_nonce() -> str:
    return base64.b64encode(secrets.token_bytes(_NONCE_BYTES)).decode()


def _decoded(message: bytes) -> str:
    try:
        return message.decode()
    except UnicodeDecodeError as error:
        raise RemoteProtocolError("a message of SCRAM is no UTF-8") from error


def _unescaped(name: str) -> str:
    return name.replace("=2C", ",").replace("=3D", "=")


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise RemoteProtocolError("a message of SCRAM holds wrong base64") from error


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))

"""The server's side of a TLS configuration: files on disk, turned into contexts, loaded again when they change.

A new certificate never touches the context in use: it goes into a new `ssl.SSLContext`, which takes the old one's
place when everything in it has loaded. Connections that are open keep theirs.
"""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from asyncnet.errors import ConfigurationError
from asyncnet.printable import printable
from asyncnet.transports.client_hello import NO_APPLICATION_PROTOCOL, UNRECOGNIZED_NAME, ClientHello

logger = logging.getLogger("asyncnet.tls")


@dataclass(frozen=True, slots=True)
class Alert:
    """A refusal: the record that the client gets, and the reason that the log gets."""

    record: bytes
    reason: str


class ClientRules(Protocol):
    """What `client_context` reads of an endpoint."""

    @property
    def cert(self) -> str | None: ...
    @property
    def key(self) -> str | None: ...
    @property
    def ca(self) -> str | None: ...
    @property
    def alpn(self) -> tuple[str, ...]: ...


class ServerTLS:
    """A server's certificate and rules.

    `certificate` is a PEM file with the chain, `key` a PEM file with the private key (None: in the same file).
    `client_ca`: clients must show a certificate that this PEM file vouches for. `alpn`: the protocols that this
    server speaks, best first. A client that offers protocols of which none is ours is refused by the alert
    `no_application_protocol`, also when `alpn` is empty: else one certificate lets a browser talk to a mail server
    (ALPACA). `names`: when given, a client that asks for another name (SNI), or for none, is refused.

    Raises `ConfigurationError` if anything does not load.
    """

    def __init__(
        self,
        certificate: str | os.PathLike[str],
        key: str | os.PathLike[str] | None = None,
        *,
        client_ca: str | os.PathLike[str] | None = None,
        alpn: Sequence[str] = (),
        names: Sequence[str] = (),
    ) -> None:
        self._certificate = Path(certificate)
        self._key = None if key is None else Path(key)
        self._client_ca = None if client_ca is None else Path(client_ca)
        self.alpn = tuple(alpn)
        self.names = frozenset(name.lower().rstrip(".") for name in names)
        self._fingerprint = self._look()
        self._failed = False  # to load what the fingerprint is of
        self._context = self._load()

    @property
    def context(self) -> ssl.SSLContext:
        """The context for the next connection."""
        return self._context

    def copy(self, *, alpn: Sequence[str] = ()) -> ServerTLS:
        """The same with a context of its own, for `alpn` if this one names no protocols.

        A session that is resumed in a context was begun in it: where each client has its own, a session tells whose it
        is, which the standard library does not. Raises ConfigurationError if the files do not load any more. Reads
        files: call it in a thread.
        """
        return ServerTLS(
            self._certificate,
            self._key,
            client_ca=self._client_ca,
            alpn=self.alpn or alpn,
            names=tuple(self.names),
        )

    def refusal(self, hello: ClientHello) -> Alert | None:
        """The alert that answers `hello` at once, or None."""
        if hello.alpn is not None and not {name.decode("latin-1") for name in hello.alpn} & set(self.alpn):
            offered = printable(b", ".join(hello.alpn)[:200].decode("latin-1"))
            return Alert(NO_APPLICATION_PROTOCOL, f"none of the protocols offered is ours ({offered})")
        if self.names and (hello.server_name or "").lower().rstrip(".") not in self.names:
            return Alert(UNRECOGNIZED_NAME, f"no such name here: {hello.server_name!r}")
        return None

    def reload(self, *, force: bool = False) -> bool:
        """Load the files again if they have changed (always if `force`); return whether new ones are in use now.

        If they do not load, the old ones stay, the log says so once per change, and the next call tries again. Reads
        files: call it in a thread.
        """
        fingerprint = self._look()
        is_news = force or fingerprint != self._fingerprint
        if not is_news and not self._failed:
            return False
        self._fingerprint = fingerprint
        try:
            self._context = self._load()
        except ConfigurationError as exc:
            self._failed = True
            if is_news:
                logger.error("%s; the certificate loaded before stays in use", exc)
            return False
        self._failed = False
        logger.info("loaded the certificate %s", self._certificate)
        return True

    def _look(self) -> tuple[object, ...]:
        marks: list[object] = []
        for path in (self._certificate, self._key, self._client_ca):
            if path is not None:
                try:
                    found = path.stat()
                    marks.append((found.st_mtime_ns, found.st_size, found.st_ino))
                except OSError:
                    marks.append(None)
        return tuple(marks)

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        for path in (self._certificate, self._key, self._client_ca):
            if path is not None and not os.access(path, os.R_OK):
                raise ConfigurationError(f"the certificate file {path} {_why_unreadable(path)}")
        try:
            context.load_cert_chain(self._certificate, self._key, password=_no_password)
        except (OSError, ValueError) as exc:
            files = str(self._certificate) if self._key is None else f"{self._certificate} with key {self._key}"
            reason = _missing_part(self._certificate, self._key) or _reason(exc)
            raise ConfigurationError(f"the certificate {files} does not load: {reason}") from exc
        if self._client_ca is not None:
            try:
                context.load_verify_locations(self._client_ca)
            except (OSError, ValueError) as exc:
                raise ConfigurationError(f"the client CA {self._client_ca} does not load: {_reason(exc)}") from exc
            context.verify_mode = ssl.CERT_REQUIRED
        if self.alpn:
            context.set_alpn_protocols(list(self.alpn))
        return context


def _why_unreadable(path: Path) -> str:
    try:
        path.stat()
    except FileNotFoundError:
        return "does not exist"
    except OSError as exc:
        return f"cannot be read: {exc.strerror}"
    return "cannot be read: check its permissions"


def _missing_part(certificate: Path, key: Path | None) -> str | None:
    """What OpenSSL does not tell: for a file without a key, as for many others, it says "PEM lib" and no more."""
    try:
        chain, secret = certificate.read_bytes(), (key or certificate).read_bytes()
    except OSError:
        return None
    if b"CERTIFICATE-----" not in chain:
        return f"there is no certificate in {certificate} (PEM)"
    if b"PRIVATE KEY-----" not in secret:
        return f"there is no private key in {key or certificate} (PEM){'' if key else ', and no file was named for it'}"
    return None


def _no_password() -> str:
    raise ValueError("the key is encrypted: keep it unencrypted, readable by the service alone")


def _reason(exc: Exception) -> str:
    if isinstance(exc, ssl.SSLError):
        reason = exc.reason or str(exc)
        hints = {
            "KEY_VALUES_MISMATCH": "the key does not belong to the certificate",
            "NO_START_LINE": "no PEM block of the right kind in it",
        }
        return hints.get(reason, reason.replace("_", " ").lower())
    return (isinstance(exc, OSError) and exc.strerror) or str(exc)


def client_context(where: ClientRules, *, verify: bool = True) -> ssl.SSLContext:
    """A context that verifies the server, by the system's trust store or `where.ca`, and shows `where.cert` if given.

    With `verify` false anybody may be at the other end: for finding faults.

    Raises `ConfigurationError` if a file does not load.
    """
    context = ssl.create_default_context()
    file = where.ca
    try:
        if where.ca is not None:
            context = ssl.create_default_context(cafile=where.ca)
        if where.cert is not None:
            file = where.cert
            context.load_cert_chain(where.cert, where.key, password=_no_password)
    except (OSError, ValueError) as exc:
        raise ConfigurationError(f"the certificate {file} does not load: {_reason(exc)}") from exc
    if where.alpn:
        context.set_alpn_protocols(list(where.alpn))
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context

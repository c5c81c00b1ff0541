"""The commands of an FTP client that need no data connection: login, TLS, folders, times, hashes.

`Commands` is the half of `ftp.client.FTPClient` that knows no data; the public methods are that one's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import trio

from asyncnet.errors import LocalProtocolError, RemoteProtocolError
from asyncnet.ftp.client_control import Control, NotSupported
from asyncnet.ftp.client_data import DataRules
from asyncnet.ftp.client_files import ALGORITHMS
from asyncnet.ftp.wire import format_command, format_time, parse_time, unquote
from asyncnet.replies import Reply, ReplyError, error_for
from asyncnet.stream import Stream

if TYPE_CHECKING:
    import ssl

TIMEOUT = 30.0
"""How many seconds a client waits, unless told otherwise: for the connection, and then for each reply."""

QUIT_TIME = 5.0
"""How many seconds the server has for its goodbye."""

ANONYMOUS = "anonymous"
ANONYMOUS_PASSWORD = "anonymous@"

_X_COMMANDS = {"SHA-256": "XSHA256", "SHA-512": "XSHA512", "SHA-1": "XSHA1", "MD5": "XMD5", "CRC32": "XCRC"}
UNKNOWN = frozenset({500, 502, 504})
"""How servers say that they do not have a command."""


class Commands:
    """See `FTPClient`."""

    keep_alive: float | None
    """After how many seconds of a transfer, and then again, a NOOP is sent; None: none is."""
    welcome: Reply
    """The server's greeting."""

    def __init__(
        self,
        stream: trio.abc.Stream,
        *,
        active: bool = False,
        proxy: str | None = None,
        host: str = "",
        timeout: float = TIMEOUT,
        keep_alive: float | None = None,
    ) -> None:
        check_way(active, proxy)
        self._control = Control(Stream.of(stream), timeout)
        self._rules = DataRules(active=active, proxy=proxy, host=host)
        self.keep_alive = keep_alive
        self.welcome = Reply(220)
        self._features: dict[str, str] | None = None
        self._type = ""
        self._no_facts = False  # the server lacks MLSD

    @property
    def lists_everything(self) -> bool:
        """Whether the last listing has shown all that is there: by MLSD. Many servers leave dot-files out of LIST."""
        return not self._no_facts

    @property
    def stream(self) -> Stream:
        """The control connection: its addresses, and `stream.tls`."""
        return self._control.stream

    @property
    def timeout(self) -> float:
        """How many seconds each wait may last: for a reply, for a data connection. May be changed at any time."""
        return self._control.timeout

    @timeout.setter
    def timeout(self, seconds: float) -> None:
        self._control.timeout = seconds

    @property
    def is_closed(self) -> bool:
        """Whether it is of no more use."""
        return self.stream.is_closed

    def __repr__(self) -> str:
        return f"<FTPClient of {self.stream!r}>"

    # Beginning and end

    async def greet(self) -> Reply:
        """Hear the server's greeting: the first step on a stream of the caller's; `connect` does it."""
        with self._control.claim():
            try:
                self.welcome = await self._control.receive_final()
                if not self.welcome.is_success:
                    raise error_for(self.welcome, "the greeting")
                return self.welcome
            except BaseException:
                await self._control.abort()
                raise

    async def start_tls(self, context: ssl.SSLContext, *, server_hostname: str | None) -> None:
        """Secure the connection by AUTH TLS, and data connections by PROT P; `connect` does it.

        All that was known of the server is forgotten. Raises `ReplyError` where the server has no TLS; what
        `Stream.start_tls` raises closes the client, and so does cancelling.
        """
        await self._protect(context, server_hostname, demanded=True)

    async def _protect(self, context: ssl.SSLContext, server_hostname: str | None, *, demanded: bool) -> None:
        with self._control.claim():
            try:
                if self.stream.tls is None:
                    reply = await self._control.ask("AUTH", "TLS")
                    if reply.code not in (234, 334):
                        if demanded:
                            raise error_for(reply, "AUTH TLS")
                        return
                    await self.stream.start_tls(context, server_hostname=server_hostname, timeout=self._control.timeout)
                    self._features, self._type, self._no_facts = None, "", False
                    self._rules.no_extended = False
                await self._control.expect("PBSZ", "0")
                await self._control.expect("PROT", "P")
                self._rules.tls = context
                self._rules.server_hostname = server_hostname
            except BaseException as exc:
                if self.stream.tls is not None or not isinstance(exc, ReplyError):
                    await self._control.abort()
                raise

    async def login(self, user: str | None = None, password: str | None = None, account: str | None = None) -> None:
        """Log in; without a `user`, as anonymous. Closes the client when it is cancelled."""
        check_login(user, password, account)
        if user is None:
            user, password = ANONYMOUS, ANONYMOUS_PASSWORD if password is None else password
        try:
            with self._control.claim():
                await self._log_in(user, password or "", account)
                self._features, self._type, self._no_facts = None, "", False
                if "UTF8" in await self._ask_features():
                    await self._control.ask("OPTS", "UTF8 ON")  # some servers send names in UTF-8 only after it
        except trio.Cancelled:
            await self._control.abort()
            raise

    async def _log_in(self, user: str, password: str, account: str | None) -> None:
        """USER, PASS and ACCT, as far as they are asked for (RFC 959 section 5.4)."""
        reply = await self._control.ask("USER", user)
        command = "USER"
        if reply.code == 331:
            command = "PASS"
            reply = await self._control.ask("PASS", password, secret=True)
        if reply.code == 332:
            command = "ACCT"
            if account is None:
                raise error_for(reply, "the login, which wants an account: account=…")
            reply = await self._control.ask("ACCT", account, secret=True)
        if not reply.is_success:
            raise error_for(reply, command)

    async def quit(self) -> None:
        """Say goodbye and close. Never raises for what the server says to it."""
        if self.is_closed:
            return
        with self._control.claim():
            try:
                with trio.move_on_after(QUIT_TIME):
                    await self._control.ask("QUIT")
                await self.stream.aclose()
            except (ReplyError, RemoteProtocolError, trio.BrokenResourceError, TimeoutError):
                pass
            finally:
                await self._control.abort()

    # Commands

    async def command(self, verb: str, argument: str | None = None) -> Reply:
        """Send any command that opens no data connection, and return its final reply, whatever that says."""
        is_secret = verb.upper() in ("PASS", "ACCT")
        if is_secret:
            check_login(None, argument, None)
        with self._control.claim():
            return await self._control.ask(verb, argument, secret=is_secret)

    async def _expect(self, verb: str, argument: str | None = None) -> Reply:
        with self._control.claim():
            return await self._control.expect(verb, argument)

    async def features(self) -> Mapping[str, str]:
        """What the server says to FEAT: names in capitals, and what stands behind each. Asked once.

        Empty where it does not know the command.
        """
        if self._features is not None:
            await trio.lowlevel.checkpoint()
            return self._features
        with self._control.claim():
            return await self._ask_features()

    async def _ask_features(self) -> Mapping[str, str]:
        """RFC 2389 section 3.2: a line each, with a blank in front."""
        if self._features is None:
            reply = await self._control.ask("FEAT")
            lines = reply.lines[1:-1] if reply.is_success else ()
            found = (line.strip().partition(" ") for line in lines)
            self._features = {name.upper(): rest.strip() for name, _, rest in found if name}
        return self._features

    async def noop(self) -> None:
        """Ask for nothing, so that the server stays."""
        await self._expect("NOOP")

    async def cwd(self, path: str) -> None:
        """Change the working folder."""
        await self._expect("CWD", path)

    async def pwd(self) -> str:
        """The working folder."""
        return unquote((await self._expect("PWD")).text)

    async def size(self, path: str) -> int:
        """How many bytes a file has (RFC 3659 section 4)."""
        check(path)
        with self._control.claim():
            await self._set_type("I")
            return parse_size(await self._control.expect("SIZE", path))

    async def modified(self, path: str) -> float:
        """When it was last changed, in seconds since 1970 (RFC 3659 section 3)."""
        return parse_time((await self._expect("MDTM", path)).text.strip())

    async def set_modified(self, path: str, modified: float) -> None:
        """Set that time, by MFMT; to the second."""
        await self._expect("MFMT", f"{format_time(modified)} {path}")

    async def rename(self, source: str, target: str) -> None:
        """Give a file or folder another name."""
        check(source, target)
        with self._control.claim():
            reply = await self._control.ask("RNFR", source)
            if not reply.asks_for_more:
                raise error_for(reply, f"RNFR {source}")
            await self._control.expect("RNTO", target)

    async def delete(self, path: str) -> None:
        """Remove a file."""
        await self._expect("DELE", path)

    async def mkdir(self, path: str) -> str:
        """Make a folder; returns its path as the server names it, or `path` where it does not."""
        reply = await self._expect("MKD", path)
        return unquote(reply.text) if '"' in reply.text else path

    async def rmdir(self, path: str) -> None:
        """Remove an empty folder."""
        await self._expect("RMD", path)

    async def chmod(self, path: str, mode: int) -> None:
        """Set permission bits, by SITE CHMOD."""
        await self._expect("SITE", f"CHMOD {mode & 0o7777:03o} {path}")

    async def hash(self, path: str, algorithm: str = "SHA-256") -> str:
        """A file's hash in lower-case hexadecimal digits, made by the server.

        `algorithm` is SHA-256, SHA-512, SHA-1, MD5 or CRC32; by HASH, or the X… command of old that has it. Raises
        `NotSupported` where the server has none for it. A large file takes its time: mind `timeout`.
        """
        check(path)
        if algorithm not in ALGORITHMS:
            raise LocalProtocolError(f"a hash is made by one of {', '.join(ALGORITHMS)}, not by {algorithm!r}")
        with self._control.claim():
            features = await self._ask_features()
            if algorithm in _hash_algorithms(features):
                await self._set_type("I")
                await self._control.expect("OPTS", f"HASH {algorithm}")
                reply = await self._control.expect("HASH", path)
            elif (verb := _X_COMMANDS.get(algorithm, "")) in features:
                reply = await self._control.expect(verb, path)
            else:
                raise NotSupported(f"the server makes no hash by {algorithm}")
        return _find_hash(reply.text, algorithm)

    async def best_hash(self) -> str:
        """The best algorithm that the server has for `hash`. Raises `NotSupported` where it has none."""
        features = await self.features()
        available = _hash_algorithms(features) | {name for name, verb in _X_COMMANDS.items() if verb in features}
        for algorithm in ALGORITHMS:
            if algorithm in available:
                return algorithm
        raise NotSupported("the server makes no hashes")

    async def _set_type(self, kind: str) -> None:
        if self._type != kind:
            self._type = ""
            await self._control.expect("TYPE", kind)
            self._type = kind


def parse_size(reply: Reply) -> int:
    """What a reply to SIZE says. Raises `RemoteProtocolError`."""
    text = reply.text.strip()
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise RemoteProtocolError(f"a size is a number: {text[:40]!a}")
    return int(text)


_DIGITS = {"SHA-256": 64, "SHA-512": 128, "SHA-1": 40, "MD5": 32, "CRC32": 8}


def _find_hash(text: str, algorithm: str) -> str:
    """The hash in a reply, which has other words before it, and the file's name behind it."""
    words = text.split()
    found = [word for word in words if re.fullmatch(f"[0-9A-Fa-f]{{{_DIGITS[algorithm]}}}", word)]
    if not found and algorithm == "CRC32":  # some leave zeros in front out
        found = [word for word in words[-1:] if re.fullmatch("[0-9A-Fa-f]{1,8}", word)]
    if not found:
        raise RemoteProtocolError(f"no hash: {text[:100]!a}")
    return found[0].lower().rjust(_DIGITS[algorithm], "0")


def _hash_algorithms(features: Mapping[str, str]) -> set[str]:
    """What FEAT says of HASH: names with semicolons between, a star at the one that is chosen."""
    return {name.strip(" *").upper() for name in features.get("HASH", "").split(";")} - {""}


def check(*arguments: str) -> None:
    """Refuse what cannot be sent before anything is."""
    for argument in arguments:
        format_command("NOOP", argument)


def check_way(active: bool, proxy: str | None) -> None:
    """Refuse what cannot work."""
    if active and proxy is not None:
        raise LocalProtocolError("a server cannot connect to us through a proxy: leave active out")


def check_login(user: str | None, password: str | None, account: str | None) -> None:
    """The same for a login, whose message must not show what is wrong."""
    for what, value in (("user", user), ("password", password), ("account", account)):
        try:
            if value is not None:
                format_command("PASS", value)
        except LocalProtocolError:
            raise LocalProtocolError(f"the {what} cannot be sent: a line end, a NUL, or too long") from None

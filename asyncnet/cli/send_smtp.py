"""`asyncnet send`: messages over one connection after another, each used as long as it is of use."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from asyncnet.cli.descriptors import read_some
from asyncnet.cli.logins import ask_password, netrc_password
from asyncnet.cli.progress import Display, Report, explain
from asyncnet.cli.send import SendOptions
from asyncnet.endpoints import Endpoint, Scheme
from asyncnet.errors import AsyncnetError, LocalProtocolError
from asyncnet.printable import printable
from asyncnet.smtp.address import MailAddress
from asyncnet.smtp.client import (
    SMTPURL,
    MessageRefused,
    Outcome,
    OutcomeUnknown,
    SMTPClient,
    SMTPClientTimeouts,
    StartTLS,
    parse_url,
)
from asyncnet.transports.certificates import client_context
from asyncnet.transports.tunnels import parse_proxy

if TYPE_CHECKING:
    import ssl


class NotSent(AsyncnetError):
    """Somebody does not get the message."""


class MailSender:
    """Sends messages to the server of a URL. Raises ConfigurationError and LocalProtocolError for wrong options."""

    def __init__(self, url: str, options: SendOptions) -> None:
        self._url = parse_url(url)
        self._options = options
        self._sender = None if options.sender is None else _address(options.sender)
        self._recipients = [_address(recipient) for recipient in options.recipients]
        if options.proxy is not None:
            parse_proxy(options.proxy)
        self._starttls = None if options.starttls is None else StartTLS(options.starttls)
        self._tls = self._context()
        self._password = _find_password(self._url)
        self._stack = AsyncExitStack()
        self._smtp: SMTPClient | None = None

    def _context(self) -> ssl.SSLContext | None:
        if self._options.ca is None and self._options.verify:
            return None
        return client_context(Endpoint(Scheme.TCP, tls=True, ca=self._options.ca), verify=self._options.verify)

    async def send(self, file: str, screen: Display, report: Report) -> None:
        """Send `file` ("-": standard input). Raises whatever goes wrong; who is refused is named on the screen."""
        data = await _read_stdin() if file == "-" else await _read(file)
        report.begin(0, len(data))
        done, is_whole = 0, False

        def progress(size: int, total: int | None) -> None:
            nonlocal done, is_whole
            report.advance(size - done)
            done, is_whole = size, size == total

        smtp = await self._client()
        try:
            sent = await smtp.send_message(
                data, sender=self._sender, recipients=self._recipients or None, progress=progress
            )
        except LocalProtocolError as error:
            raise NotSent(str(error)) from error  # of this message, not of the options
        except MessageRefused as error:
            if len({str(outcome.error) for outcome in error.outcomes}) == 1:
                raise
            _complain(error.outcomes, file, screen)
            raise NotSent("nobody gets it") from error
        except (trio.Cancelled, KeyboardInterrupt):  # Trio raises this one where it finds us at work
            if is_whole:
                screen.complain(_shown(file), "interrupted: nobody knows whether the server has taken it")
            raise
        except OutcomeUnknown as error:
            _complain([outcome for outcome in error.outcomes if outcome.error is not None], file, screen)
            raise
        if sent.refused:
            _complain(sent.refused, file, screen)
            raise NotSent(f"{len(sent.refused)} of its {len(sent.outcomes)} recipients do not get it")
        people = "1 recipient" if len(sent.outcomes) == 1 else f"{len(sent.outcomes)} recipients"
        report.saved = f"{_shown(file)} to {people}"

    async def _client(self) -> SMTPClient:
        """The connection, or another one if it is of no more use."""
        if self._smtp is None or not self._smtp.is_usable:
            await self._stack.aclose()
            options = self._options
            self._smtp = await self._stack.enter_async_context(
                SMTPClient.connect(
                    self._url,
                    password=self._password,
                    starttls=self._starttls,
                    tls=self._tls,
                    name=options.name,
                    insecure_auth=options.insecure_auth or not options.verify,
                    proxy=options.proxy,
                    timeouts=_timeouts(options.timeout),
                )
            )
        return self._smtp

    async def aclose(self) -> None:
        """Say goodbye."""
        await self._stack.aclose()


def _complain(outcomes: list[Outcome] | tuple[Outcome, ...], file: str, screen: Display) -> None:
    for outcome in outcomes:
        if outcome.error is not None:
            screen.complain(f"{_shown(file)} to {printable(str(outcome.recipient.address))}", explain(outcome.error))


def _shown(file: str) -> str:
    return "standard input" if file == "-" else printable(file)


def _address(text: str) -> MailAddress:
    try:
        return MailAddress.parse(text)
    except ValueError as error:
        raise LocalProtocolError(f"{printable(text)} is no address: {error}") from error


def _find_password(url: SMTPURL) -> str | None:
    if url.user is None or url.password is not None:
        return url.password
    password = netrc_password(url.user, url.host)
    return ask_password(url.user, url.host) if password is None else password


def _timeouts(seconds: float | None) -> SMTPClientTimeouts:
    if seconds is None:
        return SMTPClientTimeouts()
    return SMTPClientTimeouts(**dict.fromkeys((field.name for field in fields(SMTPClientTimeouts)), seconds))


async def _read(file: str) -> bytes:
    """All of a file, or of a pipe, which may have to be waited for."""
    return await trio.to_thread.run_sync(Path(file).read_bytes, abandon_on_cancel=True)


async def _read_stdin() -> bytes:
    data = bytearray()
    while piece := await trio.to_thread.run_sync(read_some, 0, abandon_on_cancel=True):
        data += piece
    return bytes(data)

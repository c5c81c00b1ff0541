"""What `asyncnet mail` does: asks a POP3 server, and prints messages as they come."""

from __future__ import annotations

import argparse
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from asyncnet.cli.descriptors import write_all
from asyncnet.cli.jobs import Job, finish, move_all
from asyncnet.cli.logins import Login, ask_password, netrc_login
from asyncnet.cli.mail_text import Heading, read_message
from asyncnet.cli.progress import Display, Report, shown
from asyncnet.endpoints import Endpoint, Scheme
from asyncnet.errors import ConfigurationError, RemoteProtocolError
from asyncnet.pop3.client import POP3Client, ReplyError
from asyncnet.pop3.url import POP3URL, parse_url
from asyncnet.transports.certificates import client_context
from asyncnet.transports.tunnels import parse_proxy

MOST_SHOWN = 32 << 20
"""The largest message that is shown, in bytes: it is taken apart in memory."""

LONGEST_HEAD = 256 * 1024
"""How much of a message's head is looked at for the list, in bytes."""


def run(args: argparse.Namespace) -> int:
    """List the mailbox that the URL names, or show one of its messages. Returns the exit status."""
    url = parse_url(args.url)
    if args.proxy is not None:
        parse_proxy(args.proxy)
    login = _find_login(url)
    tls = client_context(Endpoint(Scheme.TCP, tls=True, ca=args.ca), verify=not args.insecure)

    async def do(report: Report) -> None:
        async with _connected(args, url, login, tls) as pop3:
            if args.action == "list":
                await _list(pop3, as_json=args.json)
            elif args.raw:
                await _copy(pop3, args.number)
            else:
                await _show(pop3, args.number)

    async def work(screen: Display) -> int:
        job = Job(shown(args.url), "mail", do, onto_stdout=True, plain="pop3://")
        return await move_all([job], 1, screen)

    async def close() -> None:
        """There is nothing beside the one connection."""

    return finish(work, close, command="mail", quiet=True)


def _find_login(url: POP3URL) -> Login:
    if url.user is not None and url.password is not None:
        return Login(url.user, url.password)
    found = netrc_login(url.host)
    if found is not None and url.user in (None, found.user):
        return found
    if url.user is None:
        raise ConfigurationError(
            f"whose mailbox? Write {url.scheme}://USER@{url.authority}, or name the user in ~/.netrc"
        )
    return Login(url.user, ask_password(url.user, url.host))


@asynccontextmanager
async def _connected(
    args: argparse.Namespace, url: POP3URL, login: Login, tls: ssl.SSLContext
) -> AsyncIterator[POP3Client]:
    async with POP3Client.connect(
        url,
        user=login.user,
        password=login.password,
        starttls=None if args.starttls is None else args.starttls == "required",
        tls=None if args.starttls == "never" else tls,
        insecure_auth=args.insecure_auth,
        proxy=args.proxy,
        timeout=args.timeout,
    ) as pop3:
        yield pop3


async def _list(pop3: POP3Client, *, as_json: bool) -> None:
    for number, size in sorted((await pop3.list()).items()):
        heading = Heading()
        try:
            heading = Heading.parse(await _head(pop3, number))
        except ReplyError:
            pass  # it has no TOP, or another program has removed the message
        if as_json:
            line = json.dumps({"number": number, "size": size, **heading.as_json()})
        else:
            line = f"{number:>4} {size:>9} {heading.as_line()}".rstrip()
        await _print(f"{line}\n".encode("utf-8", "backslashreplace"))


async def _head(pop3: POP3Client, number: int) -> bytes:
    """The beginning of a head; what is too much is thrown away, and keeps nobody from the other messages."""
    head = bytearray()
    size = 0
    async with pop3.retrieve(number, lines=0) as pieces:
        async for piece in pieces:
            head += piece[: LONGEST_HEAD - len(head)]
            size += len(piece)
            if size > MOST_SHOWN:
                raise RemoteProtocolError(f"TOP {number} 0: more than {MOST_SHOWN} bytes")
    return bytes(head)


async def _copy(pop3: POP3Client, number: int) -> None:
    async with pop3.retrieve(number) as pieces:
        async for piece in pieces:
            await _print(piece)


async def _show(pop3: POP3Client, number: int) -> None:
    content = await pop3.read(number, limit=MOST_SHOWN)
    text = await trio.to_thread.run_sync(read_message, content, abandon_on_cancel=True)
    await _print(text.encode("utf-8", "backslashreplace"))


async def _print(data: bytes) -> None:
    await trio.to_thread.run_sync(write_all, 1, data, abandon_on_cancel=True)

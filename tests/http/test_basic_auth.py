"""BasicAuth: who is asked, who is let in, and what a password costs."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.abc import Clock

from asyncnet.auth import Identity, LoginGuard, ScramKeys
from asyncnet.errors import ConfigurationError
from asyncnet.http import BasicAuth, HTTPHandler, Request, Response
from asyncnet.testing import stream_pair
from asyncnet.transports.address import Address
from tests.http.client import Client

HOME = Address("127.0.0.1", 40000)
AWAY = Address("192.0.2.1", 40000)


class Users:
    """Knows anna, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    async def verify(self, name: str, password: str, *, peer: Address) -> Identity | None:
        self.asked.append((name, password))
        await trio.sleep(0)
        return Identity(name) if (name, password) == ("anna", "pass:wörd") else None

    async def scram_keys(self, name: str) -> ScramKeys | None:
        return None


async def who(request: Request) -> Response:
    return Response.text(f"you are {request.user}")


def request(credentials: str | None) -> bytes:
    field = b"" if credentials is None else b"Authorization: " + credentials.encode() + b"\r\n"
    return b"GET / HTTP/1.1\r\nHost: a\r\n" + field + b"\r\n"


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


@asynccontextmanager
async def guarded(users: Users, peer: Address = HOME, **options: bool) -> AsyncIterator[Client]:
    ours, theirs = stream_pair(client=peer, server=Address("127.0.0.1", 80))
    async with trio.open_nursery() as nursery, ours:
        nursery.start_soon(HTTPHandler(BasicAuth(who, users, realm="the club", **options)), theirs)
        yield Client(ours)


async def test_without_credentials_one_is_asked_for_them(autojump_clock: Clock) -> None:
    async with guarded(Users()) as client:
        status, headers, _ = await client.ask(request(None))
        assert (status, headers["www-authenticate"]) == (401, 'Basic realm="the club", charset="UTF-8"')


async def test_the_right_password_opens_and_the_application_learns_the_name(autojump_clock: Clock) -> None:
    async with guarded(Users()) as client:
        status, _, body = await client.ask(request(basic("anna", "pass:wörd")))
        assert (status, body) == (200, b"you are anna")


@pytest.mark.parametrize(
    "credentials",
    [
        "Bearer abc",
        "Basic",
        "Basic !!!",
        "Basic " + base64.b64encode(b"no colon").decode(),
        "Basic " + base64.b64encode(b"\xff\xfe:x").decode(),
        "Basic " + base64.b64encode(b"anna:" + bytes(3000)).decode(),
    ],
)
async def test_what_are_no_credentials_costs_no_check(autojump_clock: Clock, credentials: str) -> None:
    users = Users()
    async with guarded(users) as client:
        assert (await client.ask(request(credentials)))[0] == 401
    assert users.asked == []


async def test_a_second_authorization_field_is_no_credentials(autojump_clock: Clock) -> None:
    users = Users()
    field = f"Authorization: {basic('anna', 'pass:wörd')}\r\n".encode()
    async with guarded(users) as client:
        assert (await client.ask(b"GET / HTTP/1.1\r\nHost: a\r\n" + field + field + b"\r\n"))[0] == 401


async def test_a_success_is_remembered_for_a_minute_and_a_failure_never(autojump_clock: Clock) -> None:
    users = Users()
    async with guarded(users) as client:
        for _ in range(3):
            assert (await client.ask(request(basic("anna", "pass:wörd"))))[0] == 200
        assert len(users.asked) == 1
        await trio.sleep(61)
        assert (await client.ask(request(basic("anna", "pass:wörd"))))[0] == 200
        assert len(users.asked) == 2
        for _ in range(2):
            assert (await client.ask(request(basic("anna", "wrong"))))[0] == 401
        assert len(users.asked) == 4


async def test_failures_are_slowed_down(autojump_clock: Clock) -> None:
    async with guarded(Users()) as client:
        began = trio.current_time()
        for _ in range(3):
            assert (await client.ask(request(basic("anna", "wrong"))))[0] == 401
        assert trio.current_time() - began >= 7


async def test_in_the_clear_nobody_from_afar_is_asked(autojump_clock: Clock) -> None:
    users = Users()
    async with guarded(users, AWAY) as client:
        status, headers, _ = await client.ask(request(basic("anna", "pass:wörd")))
        assert status == 403
        assert "www-authenticate" not in headers
    assert users.asked == []
    async with guarded(users, AWAY, insecure_auth=True) as client:
        assert (await client.ask(request(basic("anna", "pass:wörd"))))[0] == 200


def test_a_realm_that_would_split_the_challenge_is_refused() -> None:
    for realm in ('a"b', "a\r\nb", "ä", "a\\b"):
        with pytest.raises(ConfigurationError, match="realm"):
            BasicAuth(who, Users(), realm=realm, guard=LoginGuard())

"""Mounts: which application gets a request, and what it is told of its place."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.abc import Clock

from asyncnet.errors import ConfigurationError
from asyncnet.http import ASGI, Files, HTTPHandler, Mounts, Request, Response
from asyncnet.http.lifespan import Receive, Scope, Send
from tests.http.client import served


def named(name: str) -> object:
    async def app(request: Request) -> Response:
        return Response.text(f"{name} {request.mounted_at}|{request.path}?{request.query}")

    return app


def request(target: str, host: str = "example.com", method: str = "GET") -> bytes:
    return f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


SITE = Mounts(
    {
        "/": named("root"),
        "/a": named("a"),
        "/a/b": named("ab"),
        "/ä ö": named("umlauts"),
        "admin.example.com/": named("admin"),
        "*.example.com/a": named("wild"),
    }
)


@pytest.mark.parametrize(
    ("target", "host", "answer"),
    [
        ("/", "x", "root |/?"),
        ("/x?y=/a", "x", "root |/x?y=/a"),
        ("/a/", "x", "a /a|/?"),
        ("/a/x/y?q", "x", "a /a|/x/y?q"),
        ("/ab", "x", "root |/ab?"),
        ("/a/b/", "x", "ab /a/b|/?"),
        ("/%61/x", "x", "a /%61|/x?"),
        ("/x%2Fb//y", "x", "root |/x/b//y?"),
        ("/a/x%2Fb//y%5C", "x", "a /a|/x/b//y\\?"),
        ("//x/", "x", "root |//x/?"),
        ("/%C3%A4%20%C3%B6/x", "x", "umlauts /%C3%A4%20%C3%B6|/x?"),
        ("/a/x", "admin.example.com", "admin |/a/x?"),
        ("/a/x", "ADMIN.Example.com.:8080", "admin |/a/x?"),
        ("/a/x", "w.x.example.com", "wild /a|/x?"),
        ("/a/x", "example.com", "a /a|/x?"),
        ("/a/x", "badexample.com", "a /a|/x?"),
        ("http://admin.example.com/a/x", "x", "admin |/a/x?"),
        ("/a/x", "[::1]:8080", "a /a|/x?"),
    ],
)
async def test_the_longest_place_takes_it(autojump_clock: Clock, target: str, host: str, answer: str) -> None:
    async with served(SITE) as client:
        assert (await client.ask(request(target, host)))[2].decode() == answer


@pytest.mark.parametrize("target", ["/x/../a/", "/a/./x", "/x/%2e%2E/a", "/a/..", "/."])
async def test_dots_are_refused_wherever_they_lead(autojump_clock: Clock, target: str) -> None:
    async with served(SITE) as client:
        assert (await client.ask(request(target)))[0] == 400


@pytest.mark.parametrize(
    "target",
    [
        "/a%2Fx",
        "/a%2F",
        "/%2Fa/x",
        "//a/x",
        "/%5Ca/x",
        "/a/%2Fb/x",
        "/a//b/x",
        "/x%2F..%2Fa/x",
        "/..%2Fa/x",
        "/.%2Fa/x",
        "/x%5C%2e%2e%5Ca/x",
        "/%61%2fx",
    ],
)
async def test_nobody_walks_around_a_place_by_slashes_that_only_some_applications_see(
    autojump_clock: Clock, target: str
) -> None:
    """One application may stand at "/" for all and, behind a password, at "/a": what it decodes, it would serve."""
    async with served(SITE) as client:
        assert (await client.ask(request(target)))[0] == 400
    async with served(Mounts({"/": named("root")})) as client:
        assert (await client.ask(request(target)))[0] == (400 if ".%" in target or "e%" in target else 200)


async def test_the_place_itself_is_redirected_behind_its_slash(autojump_clock: Clock) -> None:
    async with served(SITE) as client:
        for target, location in (("/a?x", "./a/?x"), ("/a/b", "./b/"), ("/%61", "./%61/")):
            status, headers, _ = await client.ask(request(target, method="POST"))
            assert (status, headers["location"]) == (308, location)


async def test_what_nobody_takes_is_not_found(autojump_clock: Clock) -> None:
    async with served(Mounts({"/a": named("a"), "b.example/": named("b")})) as client:
        assert (await client.ask(request("/", "c.example")))[0] == 404
        assert (await client.ask(request("/", "b.example")))[2] == b"b |/?"


async def test_mounts_stand_within_mounts_and_files_and_asgi_within_both(autojump_clock: Clock, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body = f"{scope['root_path']}|{scope['path']}|{scope['raw_path'].decode()}".encode()
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": body})

    site = Mounts({"/x": Mounts({"/y": Files(tmp_path), "/z": ASGI(app, lifespan="off")})})
    async with served(site) as client:
        assert (await client.ask(request("/x/z/a%20b")))[2] == b"/x/z|/x/z/a b|/x/z/a%20b"
    # A thread reads the file, and virtual time does not wait for threads.


async def test_a_mounted_folder_shows_its_files(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    async with served(Mounts({"/x": Files(tmp_path)})) as client:
        assert (await client.ask(request("/x/file")))[2] == b"content"
        assert (await client.ask(request("/x/../file")))[0] == 400


async def test_lifespans_within_are_begun_and_ended(autojump_clock: Clock) -> None:
    events: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for part in ("startup", "shutdown"):
            assert (await receive())["type"] == f"lifespan.{part}"
            events.append(part)
            await send({"type": f"lifespan.{part}.complete"})

    asgi = ASGI(app)
    async with HTTPHandler(Mounts({"/x": asgi, "/y": asgi, "/z": named("z")})):
        await trio.sleep(1)
        assert events == ["startup"]
    assert events == ["startup", "shutdown"]


@pytest.mark.parametrize("place", ["a", "", "/a/../b", "/a//b", "/a?b", "example.com:80/", "/."])
def test_a_wrong_place_is_refused(place: str) -> None:
    with pytest.raises(ConfigurationError, match="place"):
        Mounts({place: named("x")})


def test_one_place_is_one_applications() -> None:
    with pytest.raises(ConfigurationError, match="same place"):
        Mounts({"/a": named("x"), "/a/": named("y")})

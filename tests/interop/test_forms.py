"""Forms of a native handler, filled in by curl."""

from __future__ import annotations

import json
from pathlib import Path
from zlib import crc32

from asyncnet.http import HTTPHandler, Request, Response
from asyncnet.http.cookies import read_cookies, set_cookie
from asyncnet.http.forms import FormFile, FormLimits, read_form
from tests.interop.test_http import curl, serving, url


async def describe(request: Request) -> Response:
    """What the form holds, as JSON."""
    async with read_form(request, limits=FormLimits(file_size=4_000_000)) as form:
        return Response.json(
            [
                [name, value.filename, value.content_type, value.size, crc32(await value.read())]
                if isinstance(value, FormFile)
                else [name, value]
                for name, value in form.items
            ]
        )


async def test_fields_and_files_arrive_as_curl_has_them(tmp_path: Path) -> None:
    large = tmp_path / "large.bin"
    content = bytes(range(250)) * 12_000
    large.write_bytes(content)
    small = tmp_path / "small.txt"
    small.write_bytes(b"x" * 10)
    async with serving(HTTPHandler(describe)) as service:
        for encoding in ("Transfer-Encoding: chunked", "X-Nothing: 1"):
            answer = await curl(
                "--header", encoding,
                "--form-string", "text=\u20ac; &",
                "--form", f'f=@{large};filename="a b;\u00e4.bin"',
                "--form", f"f=@{small}",
                "--form", "text=2",
                url(service, "/"),
            )  # fmt: skip
            assert json.loads(answer) == [
                ["text", "\u20ac; &"],
                ["f", "a b;\u00e4.bin", "application/octet-stream", 3_000_000, crc32(content)],
                ["f", "small.txt", "text/plain", 10, crc32(b"x" * 10)],
                ["text", "2"],
            ]


async def test_fields_without_files_arrive() -> None:
    async with serving(HTTPHandler(describe)) as service:
        fields = ("--data-urlencode", "a=\u20ac & +", "--data-urlencode", "a=", "--data-urlencode", "b=1=2")
        assert json.loads(await curl(*fields, url(service, "/"))) == [["a", "\u20ac & +"], ["a", ""], ["b", "1=2"]]


async def test_what_is_refused_has_its_status(tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(bytes(5_000_000))
    status = ("--output", tmp_path / "ignored", "--write-out", "%{http_code}")
    async with serving(HTTPHandler(describe)) as service:
        assert await curl(*status, "--form", f"f=@{large}", url(service, "/")) == b"413"
        assert await curl(*status, "--json", "{}", url(service, "/")) == b"415"
        assert await curl(*status, "--data", "a=%ff", url(service, "/")) == b"400"


async def test_a_cookie_comes_back(tmp_path: Path) -> None:
    async def count(request: Request) -> Response:
        visits = int(read_cookies(request.headers).get("visits", "0")) + 1
        response = Response.text(str(visits))
        set_cookie(response.headers, "visits", str(visits), max_age=60, secure=False)
        return response

    async with serving(HTTPHandler(count)) as service:
        jar = ("--cookie", tmp_path / "jar", "--cookie-jar", tmp_path / "jar")
        assert [await curl(*jar, url(service, "/")) for _ in range(3)] == [b"1", b"2", b"3"]

"""Forms: what a browser sends, what an attacker sends, and what the application gets."""

from __future__ import annotations

import gc
import io
import os
import sys
import tracemalloc
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncnet.errors import ConfigurationError
from asyncnet.http import forms
from asyncnet.http.forms import Form, FormFile, FormLimits, MissingField, parse_urlencoded, read_form, safe_name
from asyncnet.http.messages import Headers, Request, Response
from asyncnet.http.multipart import MultipartDecoder, PartBegin, parse_parameters
from asyncnet.http.wire import RequestError
from tests.http.client import served

URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = 'multipart/form-data; boundary="b"'


class Body:
    """The body of a request, as the server has it: no generator, which would want to be closed."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        for piece in self._pieces:
            return piece
        raise StopAsyncIteration


def request_of(content_type: str | None, data: bytes | Iterable[bytes], **headers: str) -> Request:
    fields = Headers(headers)
    if content_type is not None:
        fields.add("content-type", content_type)
    return Request("POST", "/", fields, body=Body([data] if isinstance(data, bytes) else data))


LIMITS = FormLimits()


@asynccontextmanager
async def multipart(*parts: bytes, limits: FormLimits = LIMITS) -> AsyncIterator[Form]:
    body = b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + b"--b--\r\n"
    async with read_form(request_of(MULTIPART, body), limits=limits) as form:
        yield form


def field(name: str, value: bytes, *lines: str) -> bytes:
    head = "".join(f"{line}\r\n" for line in (f'Content-Disposition: form-data; name="{name}"', *lines))
    return head.encode() + b"\r\n" + value


def file(name: str, filename: str, content: bytes, content_type: str = "text/plain") -> bytes:
    return field(f'{name}"; filename="{filename}', content, f"Content-Type: {content_type}")


async def status_of(request: Request, **limits: int) -> int:
    """What the form is refused with."""
    with pytest.raises(RequestError) as caught:
        async with read_form(request, limits=FormLimits(**limits)):
            pass
    return caught.value.status


async def status_of_parts(*parts: bytes, **limits: int) -> int:
    with pytest.raises(RequestError) as caught:
        async with multipart(*parts, limits=FormLimits(**limits)):
            pass
    return caught.value.status


class TestURLEncoded:
    async def test_fields_keep_their_order_and_may_repeat(self) -> None:
        async with read_form(request_of(URLENCODED, b"a=1&b=2&a=3&c")) as form:
            assert form.items == [("a", "1"), ("b", "2"), ("a", "3"), ("c", "")]
            assert (form["a"], form.get_all("a"), form.get("x"), form.get("x", "y")) == ("1", ["1", "3"], None, "y")
            assert ("a" in form, "x" in form, len(form)) == (True, False, 4)
            assert (form.file("a"), form.files("a")) == (None, [])

    async def test_blanks_and_percent_signs_are_decoded_once(self) -> None:
        async with read_form(request_of(URLENCODED, b"n+%2B=%C3%A4+%2525&p=100%&q=%zz&&")) as form:
            assert form.items == [("n +", "\u00e4 %25"), ("p", "100%"), ("q", "%zz")]

    async def test_a_semicolon_separates_nothing(self) -> None:
        async with read_form(request_of(URLENCODED, b"a=1;b=2")) as form:
            assert form.items == [("a", "1;b=2")]

    async def test_a_missing_field_is_the_clients_fault(self) -> None:
        async def app(request: Request) -> Response:
            async with read_form(request) as form:
                return Response.text(form["name"])

        async with served(app) as client:
            head = f"POST / HTTP/1.1\r\nHost: a\r\nContent-Type: {URLENCODED}\r\nContent-Length: 6\r\n\r\n".encode()
            assert (await client.ask(head + b"name=x"))[2] == b"x"
            assert (await client.ask(head + b"nome=x"))[0] == 400
        with pytest.raises(KeyError):
            Form([])["x"]
        assert str(MissingField("x")) == "the form has no field 'x'"

    @pytest.mark.parametrize(
        "content_type", [None, "", "text/plain", "application/json", "multipart/mixed; boundary=b"]
    )
    async def test_another_type_is_415(self, content_type: str | None) -> None:
        assert await status_of(request_of(content_type, b"a=1")) == 415

    async def test_another_charset_is_415(self) -> None:
        assert await status_of(request_of(URLENCODED + "; charset=utf-16", b"a=1")) == 415
        async with read_form(request_of(URLENCODED.upper() + "; Charset=UTF-8", b"a=1")) as form:
            assert form["a"] == "1"

    @pytest.mark.parametrize("data", [b"a=%ff", b"%ff=a", b"a=\xff"])
    async def test_what_is_not_utf_8_is_400(self, data: bytes) -> None:
        assert await status_of(request_of(URLENCODED, data)) == 400

    async def test_too_much_is_413(self) -> None:
        async def refused(data: bytes, **limits: int) -> bool:
            assert await status_of(request_of(URLENCODED, data), **limits) == 413
            return True

        assert await refused(b"a&" * 11, fields=11)
        assert await refused(b"a=12345", field_size=4)
        assert await refused(b"abcde=1", name_size=4)
        assert await refused(b"a=123&b=123", fields_size=7)
        assert await refused(b"a" * 31, fields_size=10)
        assert await refused(b"a=1234567", total=8)
        assert await status_of(request_of(URLENCODED, b"", **{"content-length": "9"}), total=8) == 413

    @pytest.mark.parametrize("form", ["a={}", "{}=a", "{}"])
    async def test_a_field_that_is_too_long_however_it_is_encoded_is_not_decoded(self, form: str) -> None:
        data = form.format("%41" * 900_000).encode()
        tracemalloc.start()
        try:
            assert await status_of(request_of(URLENCODED, data)) == 413
            assert tracemalloc.get_traced_memory()[1] < 10 * len(data)
        finally:
            tracemalloc.stop()

    @settings(deadline=None)
    @given(st.lists(st.tuples(st.text(max_size=9), st.text(max_size=9))))
    def test_what_python_writes_is_read(self, items: list[tuple[str, str]]) -> None:
        items = [(name, value) for name, value in items if not _has_surrogate(name + value)]
        assert list(parse_urlencoded(urlencode(items).encode())) == items


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= char <= "\udfff" for char in text)


class TestMultipart:
    async def test_fields_and_files_keep_their_order(self) -> None:
        parts = (field("a", b"1"), file("f", "x.txt", b"content"), field("a", b"2\r\n--c"), file("f", "y", b""))
        async with multipart(*parts) as form:
            assert [name for name, _ in form.items] == ["a", "f", "a", "f"]
            assert form.get_all("a") == ["1", "2\r\n--c"]
            first, second = form.files("f")
            assert form.file("f") is first
            assert (first.filename, first.content_type, first.size, await first.read()) == (
                "x.txt",
                "text/plain",
                7,
                b"content",
            )
            assert (second.filename, second.size, await second.read()) == ("y", 0, b"")
            assert first.file.closed is False
        assert first.file.closed
        assert second.file.closed

    async def test_an_empty_form_is_one(self) -> None:
        async with multipart() as form:
            assert form.items == []

    async def test_where_no_file_was_chosen_there_is_none(self) -> None:
        async with multipart(file("f", "", b"", "application/octet-stream"), limits=FormLimits(files=0)) as form:
            assert form.file("f") is None

    async def test_line_ends_may_come_first_and_anything_last(self) -> None:
        body = b"\r\n\r\n--b\r\n" + field("a", b"1") + b"\r\n--b--\r\nepilogue --b\r\n"
        async with read_form(request_of(MULTIPART, body)) as form:
            assert form.items == [("a", "1")]

    @pytest.mark.parametrize("size", [10, 64 * 1024, 64 * 1024 + 1, 1_000_000])
    async def test_a_file_is_the_same_in_memory_and_on_disk(self, size: int, tmp_path: Path) -> None:
        content = os.urandom(size)
        async with multipart(file("f", "x", content), field("a", b"1")) as form:
            upload = form.file("f")
            assert upload is not None
            assert upload.is_on_disk is (size > 64 * 1024)
            assert upload.size == size
            assert await upload.read() == content
            assert upload.file.seek(0) == 0
            assert upload.file.read() == content
            await upload.save(tmp_path / "saved")
            await upload.save(tmp_path / "again")
            with pytest.raises(FileExistsError):
                await upload.save(tmp_path / "saved")
            assert form["a"] == "1"
        assert upload.file.closed
        assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "saved"]
        assert (tmp_path / "saved").read_bytes() == (tmp_path / "again").read_bytes() == content

    async def test_a_saved_file_is_whole_on_disk_before_it_has_its_name(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        synced: list[tuple[int, int]] = []
        sync = os.fsync

        def fsync(descriptor: int) -> None:
            sync(descriptor)
            status = os.fstat(descriptor)
            synced.append((status.st_size, status.st_nlink))

        monkeypatch.setattr(os, "fsync", fsync)
        async with multipart(file("f", "x", bytes(100_000))) as form:
            upload = form.file("f")
            assert upload is not None
            await upload.save(tmp_path / "saved")
        assert synced == [(100_000, 1)]  # under its first name alone

    async def test_a_large_file_is_not_held_in_memory(self) -> None:
        total, piece = 20_000_000, bytes(50_000)
        held = 0

        def body() -> Iterator[bytes]:
            nonlocal held
            yield b"--b\r\n" + file("f", "x", b"")
            for _ in range(total // len(piece)):
                yield piece
            held = sum(
                sys.getsizeof(item.file) + sys.getsizeof(item._pending)
                for item in gc.get_objects()
                if isinstance(item, FormFile)
            )
            yield b"\r\n--b--"

        async with read_form(request_of(MULTIPART, body())) as form:
            upload = form.file("f")
            assert upload is not None
            assert upload.size == total
        assert 0 < held < 1_000_000

    async def test_files_are_gone_when_the_form_is_left_by_a_failure_or_a_cancellation(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened: list[Any] = []
        make = forms._move_to_disk
        monkeypatch.setattr(forms, "_move_to_disk", lambda memory: opened.append(make(memory)) or opened[-1])
        content = bytes(100_000)

        with pytest.raises(ValueError, match="mine"):
            async with multipart(file("f", "x", content)):
                raise ValueError("mine")
        with pytest.raises(RequestError):
            body = [b"--b\r\n" + file("f", "x", content), b"\r\n--b nonsense"]
            async with read_form(request_of(MULTIPART, body)):
                pass
        with trio.CancelScope() as scope:

            class Stuck(Body):
                async def __anext__(self) -> bytes:
                    try:
                        return await super().__anext__()
                    except StopAsyncIteration:
                        scope.cancel()
                        await trio.sleep_forever()
                        raise

            stuck = Stuck([b"--b\r\n" + file("f", "x", content)])
            async with read_form(Request("POST", "/", Headers({"content-type": MULTIPART}), body=stuck)):
                pass
        assert len(opened) == 3
        assert all(file.closed for file in opened)

    async def test_names_come_as_they_were_sent(self) -> None:
        part = field('\u00e4 \\" \\\\ %22"; filename="..\\x/\u20ac.txt', b"")
        async with multipart(part) as form:
            ((name, upload),) = form.items
            assert name == '\u00e4 " \\ %22'
            assert isinstance(upload, FormFile)
            assert upload.filename == "..\\x/\u20ac.txt"
            assert upload.safe_name == "\u20ac.txt"

    @pytest.mark.parametrize(
        "head",
        [
            b"",
            b"Content-Type: text/plain\r\n",
            b"Content-Disposition: form-data\r\n",
            b"Content-Disposition: attachment; name=a\r\n",
            b"Content-Disposition: form-data; name=a; name=b\r\n",
            b'Content-Disposition: form-data; name=a; filename=b; FILENAME="c"\r\n',
            b'Content-Disposition: form-data; name="a\r\n',
            b'Content-Disposition: form-data; name="a" x\r\n',
            b"Content-Disposition: form-data; name=a b\r\n",
            b"Content-Disposition: form-data; name=\xff\r\n",
            b"Content-Disposition: form-data; name=a\r\nContent-Disposition: form-data; name=b\r\n",
            b"Content-Disposition: form-data; name=a\n\r\n",
            b"Content-Disposition: form-data; name=a\x00\r\n",
            b"Content-Disposition: form-data;\r\n name=a\r\n",
            b"Content-Disposition : form-data; name=a\r\n",
            b"Content-Disposition form-data; name=a\r\n",
            b": form-data\r\nContent-Disposition: form-data; name=a\r\n",
            b"Content-Disposition: form-data; name=a\r\nContent-Transfer-Encoding: base64\r\n",
            b"Content-Disposition: form-data; name=a\r\nContent-Type: text/plain; charset=utf-16\r\n",
        ],
    )
    async def test_a_malformed_head_is_400(self, head: bytes) -> None:
        assert await status_of_parts(head + b"\r\nx") == 400

    async def test_text_that_is_not_utf_8_is_400_and_a_file_may_be_anything(self) -> None:
        assert await status_of_parts(field("a", b"\xff")) == 400
        async with multipart(file("a", "x", b"\xff\x00")) as form:
            assert await form.files("a")[0].read() == b"\xff\x00"

    @pytest.mark.parametrize(
        "boundary",
        [
            "",
            "; boundary=",
            '; boundary=""',
            '; boundary="a\u00e9"',
            "; boundary=" + "a" * 71,
            '; boundary="a "',
            "; boundary=b; boundary=b",
            '; boundary="b',
            "; boundary=b c",
        ],
    )
    async def test_a_boundary_that_is_none_is_400(self, boundary: str) -> None:
        assert await status_of(request_of("multipart/form-data" + boundary, b"--b--")) == 400

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"--b",
            b"--b\r\n",
            b"--b\n" + field("a", b"1") + b"\n--b--",
            b"--b\r\n" + field("a", b"1"),
            b"--b\r\n" + field("a", b"1") + b"\r\n--b",
            b"--b\r\n" + field("a", b"1") + b"\r\n--b-",
            b"--b\r\n" + field("a", b"1") + b"\r\n--bb--",
            b"--b\r\n" + field("a", b"1") + b"\r\n--b \t x--",
            b"preamble\r\n--b--",
            b"\r\npreamble --b--",
            b"--c--",
            b"-",
        ],
    )
    async def test_a_body_without_its_boundaries_is_400(self, body: bytes) -> None:
        for pieces in ([body], [body[at : at + 1] for at in range(len(body))]):
            assert await status_of(request_of(MULTIPART, pieces)) == 400

    async def test_a_boundary_within_a_line_is_content(self) -> None:
        for content in (b"--b--", b"x\r\n--c--", b"x\n--b--\n", b"\r\n-\r\n--\r\n--a"):
            async with multipart(file("f", "x", content), field("a", content)) as form:
                assert await form.files("f")[0].read() == content
                assert form["a"] == content.decode()

    async def test_too_much_is_413(self) -> None:
        assert await status_of_parts(*[field("a", b"")] * 3, fields=2) == 413
        assert await status_of_parts(*[file("a", "x", b"")] * 3, files=2) == 413
        assert await status_of_parts(*[file("a", "", b"")] * 5, files=2, fields=2) == 413
        assert await status_of_parts(file("a", "x", bytes(11)), file_size=10) == 413
        assert await status_of_parts(field("a", bytes(11)), field_size=10) == 413
        assert await status_of_parts(field("a", bytes(5)), field("b", bytes(5)), fields_size=11) == 413
        assert await status_of_parts(field("abcde", b""), name_size=4) == 413
        assert await status_of_parts(field("a", b"", "X: 1", "Y: 1"), headers=2) == 413
        assert await status_of_parts(field("a", b"", "X: " + "1" * 100), head_size=120) == 413
        assert await status_of_parts(field("a", b"", "X: " + " " * 200), head_size=120) == 413
        assert await status_of_parts(field("a", b"", *["X" * 40 + ": 1"]), head_size=70) == 413
        assert await status_of_parts(file("a", "x", bytes(300)), total=200) == 413

    async def test_a_head_that_never_ends_is_refused_before_it_does(self) -> None:
        fed = 0

        def body() -> Iterator[bytes]:
            nonlocal fed
            yield b'--b\r\nContent-Disposition: form-data; name="'
            while True:
                fed += 1000
                yield b"a" * 1000

        assert await status_of(request_of(MULTIPART, body())) == 413
        assert fed <= 6000

    async def test_no_word_of_a_bad_form_gets_into_the_log_by_the_parser(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert await status_of(request_of(MULTIPART, b"--x")) == 400
        assert not caplog.records

    @pytest.mark.parametrize(
        "unit", [b"\r\n--boundar", b"\r\n--boundaryx", b"\r", b"\r\n", b"-", b"x", b"\r\n--boundary-\r"]
    )
    @pytest.mark.parametrize("piece", [1, 4096])
    def test_the_work_grows_with_the_size_and_no_faster(self, unit: bytes, piece: int) -> None:
        def work(size: int) -> int:
            decoder = MultipartDecoder("boundary", FormLimits())
            decoder.feed(b"--boundary\r\n" + file("f", "x", b""))
            data = (unit * (size // len(unit) + 1))[:size]
            pieces = [data[at : at + piece] for at in range(0, size, piece)]
            return count_lines(lambda: [decoder.feed(each) for each in pieces])

        assert work(40_000) < 4 * 1.5 * work(10_000) + 1000


def count_lines(function: Any) -> int:
    """How many lines of Python run in `function`: its work, whatever the machine is doing besides."""
    lines = 0

    def trace(frame: Any, event: str, argument: object) -> Any:
        nonlocal lines
        lines += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)
    return lines


content = st.lists(
    st.sampled_from([b"\r\n--b", b"\r\n", b"\r", b"\n", b"--b", b"--", b"-", b"b", b" ", b"\t", b"x", b"Content-"])
    | st.binary(max_size=3),
    max_size=12,
).map(b"".join)


def events_of(body: bytes, cuts: list[int]) -> list[object] | None:
    """What a decoder makes of a body cut at `cuts`, pieces of content put together; None if it is refused."""
    decoder = MultipartDecoder("b", FormLimits())
    events: list[object] = []
    places = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
    try:
        for start, end in pairwise(places):
            for event in decoder.feed(body[start:end]):
                if isinstance(event, bytes):
                    assert event
                    if events and isinstance(events[-1], bytes):
                        event = events.pop() + event  # type: ignore[operator]
                events.append(event)
        decoder.end()
    except RequestError:
        return None
    return events


class TestAnyCut:
    @settings(deadline=None)
    @given(st.lists(content, max_size=3), st.lists(st.integers(0, 1000), max_size=20), content)
    def test_a_body_is_the_same_however_it_is_cut(self, contents: list[bytes], cuts: list[int], tail: bytes) -> None:
        body = b"".join(b"--b\r\n" + field("a", each) + b"\r\n" for each in contents) + tail
        for end in (b"", b"--b--", b"\r\n--b--\r\n"):
            whole = events_of(body + end, [])
            assert events_of(body + end, cuts) == whole
            assert events_of(body + end, list(range(len(body + end)))) == whole

    @settings(deadline=None)
    @given(st.binary(max_size=100).filter(lambda data: b"\r\n--b" not in b"\r\n" + data), st.text(max_size=10))
    def test_what_was_put_in_comes_out(self, data: bytes, name: str) -> None:
        name = "".join(char for char in name if char.isprintable() and not _has_surrogate(char) and char not in '"\\')
        events = events_of(b"--b\r\n" + file(name, name, data) + b"\r\n--b--", [])
        assert events is not None
        assert events[0] == PartBegin(name, name, "text/plain")
        assert events[1:-1] == ([data] if data else [])

    @settings(deadline=None)
    @given(st.binary(), st.integers(1, 7))
    def test_noise_raises_nothing_but_request_errors(self, noise: bytes, piece: int) -> None:
        for body in (noise, b"--b\r\n" + noise, b"--b\r\nContent-Disposition: form-data; name=" + noise):
            events_of(body, list(range(0, len(body), piece)))

    @settings(deadline=None)
    @given(st.text())
    def test_parameters_raise_nothing_but_request_errors(self, text: str) -> None:
        for field in (text, "form-data; name=" + text, 'form-data; name="' + text):
            try:
                parse_parameters(field)
            except RequestError:
                pass


class TestSafeName:
    @pytest.mark.parametrize(
        ("given_name", "safe"),
        [
            ("photo.jpg", "photo.jpg"),
            ("../../etc/passwd", "passwd"),
            ("C:\\Users\\me\\photo.jpg", "photo.jpg"),
            ("..", "file"),
            (".", "file"),
            ("", "file"),
            ("/", "file"),
            (".bashrc", "bashrc"),
            ("...hidden", "hidden"),
            ("-rf", "rf"),
            ("a\x00b\r\nc\x1b.txt", "abc.txt"),
            ("\u202egpj.exe", "gpj.exe"),
            ("\u200bname\ufeff", "name"),
            ('a<b>:"c|?*.txt', "a_b___c___.txt"),
            ("CON", "_CON"),
            ("con .txt", "_con.txt"),
            ("lpt1.txt", "_lpt1.txt"),
            ("console.txt", "console.txt"),
            ("name. . ", "name"),
            ("a\u0308.txt", "\u00e4.txt"),
            ("a  b\u00a0c.txt", "a b c.txt"),
            ("\ud800.txt", "txt"),
            ("x" * 300 + ".jpg", "x" * 196 + ".jpg"),
            ("\u20ac" * 100 + ".jpg", "\u20ac" * 65 + ".jpg"),
        ],
    )
    def test_a_name_is_one_that_harms_nobody(self, given_name: str, safe: str) -> None:
        assert safe_name(given_name) == safe

    @settings(deadline=None)
    @given(st.text())
    def test_whatever_is_given_the_name_is_safe(self, name: str) -> None:
        safe = safe_name(name)
        assert safe
        assert not set(safe) & set('/\\<>:"|?*\x00')
        assert not safe.startswith((".", "-", "~", " "))
        assert not safe.endswith((".", " "))
        assert len(safe.encode()) <= 200
        assert safe.isprintable()
        assert safe_name(safe) == safe


async def test_without_python_multipart_the_administrator_is_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "python_multipart.multipart", None)
    with pytest.raises(ConfigurationError, match="pip install"):
        async with multipart():
            pass
    async with read_form(request_of(URLENCODED, b"a=1")) as form:
        assert form["a"] == "1"


def test_limits_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match=r"FormLimits\.total must be at least 0, not -1"):
        FormLimits(total=-1)


def test_a_form_shows_what_it_holds() -> None:
    upload = FormFile("f", "x", "")
    upload.file = io.BytesIO()
    assert repr(Form([("f", upload)])) == "Form([('f', <FormFile 'f': 'x', 0 bytes>)])"

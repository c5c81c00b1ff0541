"""`Files`: a folder over HTTP, as an application for `HTTPHandler` (RFC 9110 sections 8.8, 12.5.3, 13, 14; RFC 9111).

Theory of operation
===================

Every name, a compressed twin's too, is resolved beneath the root (`asyncnet.beneath`), and what was opened is what is
described and sent: nothing is looked up twice. Whatever does not lead to something below the root, or begins with a
dot, is not found.

The event loop never waits for the disk. A request is first answered with what the kernel can do at once: the names and
the first 32 KiB of a file that was asked for before are in memory, and are had in microseconds. Where that does not
work, the same is done once more in a thread. Larger contents are left to `Stream.send_file`.
"""

from __future__ import annotations

import errno
import fnmatch
import logging
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from io import FileIO
from typing import TypeAlias
from urllib.parse import unquote_to_bytes

import trio

from asyncnet.beneath import Beneath, check_name
from asyncnet.errors import ConfigurationError, LocalProtocolError
from asyncnet.http import mediatypes
from asyncnet.http.codings import SUFFIXES, acceptable
from asyncnet.http.conditions import failed_precondition, format_date, range_applies
from asyncnet.http.listing import MAX_LISTED, listing_page, quote_name
from asyncnet.http.messages import FileBody, Headers, Request, Response
from asyncnet.http.ranges import ByteRanges, Span, parse_ranges
from asyncnet.per_run import once_per_run
from asyncnet.transports.files import read_at, read_now

logger = logging.getLogger(__name__)

OUR_FAULT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.EAGAIN})
"""What says nothing about the file: whoever was told 404 would believe that it has gone. (EAGAIN: it is leased.)"""

SMALL = 32 * 1024
"""Up to this size, in bytes, a content is read where the file is opened, and leaves together with its head."""

REVALIDATE = "no-cache"
"""Cache-Control of what may change: a cache keeps it, and asks each time whether it is still the same (a 304)."""

IMMUTABLE = "public, max-age=31536000, immutable"
"""Cache-Control of what never changes under its name, as names with a hash of the content (RFC 8246)."""

LISTERS = 2
"""Threads that answer for folders at once. A listing of thousands of names keeps the processor for a tenth of a second
or more: more of them would make files wait for a thread, and all connections for the interpreter."""

WELL_KNOWN = ".well-known"
"""The one name with a dot that is meant for everybody (RFC 8615), at the top of the root."""

_Opened: TypeAlias = tuple[FileIO, os.stat_result]
_Opener: TypeAlias = Callable[[Sequence[str]], _Opened]


class Files:
    """Serves the files below `root` by GET and HEAD.

    A folder is answered by its file `index` if it has one (None: never), else by a listing if `listing` is true, else
    it is not found. A name that begins with a dot is not found, but for `/.well-known/`. Symlinks are followed as long
    as they stay below `root`.

    `precompressed` names the codings whose files are sent in place of the file beside them, where the client takes
    them: "br" (`page.html.br`), "zstd" (`.zst`), "gzip" (`.gz`); the first is preferred, True means all three. A twin
    older than its file is not sent: somebody forgot to compress it again.

    `cache` is the Cache-Control of files: one for all, or a mapping of patterns to one each, of which the first that
    fits counts: `{"assets/*": IMMUTABLE, "*.html": "no-cache"}`. A pattern with a slash is about the path below the
    root, one without about the name; `*` fits any characters, slashes too. What no pattern fits has "no-cache", None
    sends no such field.

    Several ranges come in one answer (multipart/byteranges), overlapping ones joined; more than 100 are ignored.
    Raises `ConfigurationError` if `root` is no folder, for an unknown coding and for what cannot be a Cache-Control.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        index: str | None = "index.html",
        listing: bool = True,
        precompressed: bool | Sequence[str] = False,
        cache: str | Mapping[str, str | None] | None = REVALIDATE,
    ) -> None:
        self._beneath = Beneath(root)
        self._index = index
        self._listing = listing
        self._codings = _checked_codings(precompressed)
        self._cache_rules, self._cache_control = _checked_cache(cache)
        self._listers = once_per_run(lambda: trio.CapacityLimiter(LISTERS))
        mediatypes.load()

    async def __call__(self, request: Request) -> Response:
        if request.method not in ("GET", "HEAD"):
            return Response.problem(405, {"allow": "GET, HEAD"})
        try:
            response = self._answer(request, wait=False)
        except BlockingIOError:
            limiter = self._listers() if request.raw_path.endswith("/") else None
            return await trio.to_thread.run_sync(self._answer_waiting, request, limiter=limiter)
        body = _small_content(request, response)
        if body is None:
            return response
        try:
            data = read_now(body.file, body.offset, body.count)
            if data is None:
                return await trio.to_thread.run_sync(_with_content, request, response, body)
        finally:
            body.file.close()
        response.body = data
        return response

    def _answer_waiting(self, request: Request) -> Response:
        response = self._answer(request, wait=True)
        body = _small_content(request, response)
        return response if body is None else _with_content(request, response, body)

    def _answer(self, request: Request, *, wait: bool) -> Response:
        """The answer; small contents are still in their file. Raises BlockingIOError where it would `wait`."""
        try:
            names, is_folder = split_path(request.raw_path)
            if is_folder:
                return self._folder(request, names, wait=wait)
            try:
                return self._file(request, names, wait=wait)
            except IsADirectoryError:
                # Relative, so that it stays on this host and below whatever prefix a proxy has taken off.
                query = f"?{request.query}" if request.query else ""
                return Response.redirect(f"./{quote_name(names[-1])}/{query}", 301)
        except (OSError, ValueError) as error:
            if isinstance(error, OSError):
                if not wait and isinstance(error, BlockingIOError):
                    raise
                if error.errno in OUR_FAULT:
                    return _unavailable(request, error.strerror)
            # Not there, not allowed, not a file: the difference is nobody's business.
            return Response.problem(404)

    def _folder(self, request: Request, names: Sequence[str], *, wait: bool) -> Response:
        if self._index is not None:
            try:
                return self._file(request, [*names, self._index], wait=wait)
            except FileNotFoundError:
                pass
        if not self._listing:
            return Response.problem(404)
        if not wait:
            raise BlockingIOError(errno.EAGAIN, "a listing waits for the disk")
        entries = [entry for entry in self._beneath.scan(names, limit=MAX_LISTED + 1) if not entry.name.startswith(".")]
        return Response.html(
            listing_page(names, entries, request.mounted_at),
            headers={
                "cache-control": "no-cache",
                "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'",
                "x-content-type-options": "nosniff",
            },
        )

    def _file(self, request: Request, names: Sequence[str], *, wait: bool) -> Response:
        open_file = self._beneath.open_with_stat if wait else self._beneath.open_now
        file, status = open_file(names)
        try:
            coding = ""
            if self._codings and (twin := self._find_twin(request, names, status, open_file)) is not None:
                file.close()
                file, status, coding = twin
            response = self._describe(request, names, file, status, coding)
        except BaseException:
            file.close()
            raise
        if request.method == "HEAD" or not isinstance(response.body, (FileBody, ByteRanges)):
            file.close()
        return response

    def _find_twin(
        self, request: Request, names: Sequence[str], plain: os.stat_result, open_file: _Opener
    ) -> tuple[FileIO, os.stat_result, str] | None:
        """The compressed twin that the client likes best, and its coding; None if the file itself is to be sent."""
        for coding in acceptable(request.headers.get("accept-encoding"), self._codings):
            try:
                file, status = open_file([*names[:-1], names[-1] + SUFFIXES[coding]])
            except OSError as error:
                if error.errno in OUR_FAULT:
                    raise
                continue  # none, or one that leads out, or no file
            # Whole seconds: what compresses a file and keeps its time may keep no more of it.
            if int(status.st_mtime) >= int(plain.st_mtime):
                return file, status, coding
            file.close()
        return None

    def _describe(
        self, request: Request, names: Sequence[str], file: FileIO, status: os.stat_result, coding: str
    ) -> Response:
        """The answer for an open file: preconditions first (RFC 9110 section 13.2.2), then the ranges."""
        now = time.time()
        size = status.st_size
        modified = max(0, min(int(status.st_mtime), int(now)))  # not later than Date (section 8.8.2.1)
        etag = f'"{status.st_mtime_ns:x}-{status.st_ctime_ns:x}-{size:x}{coding and "-" + coding}"'
        raw = [(b"etag", etag.encode("ascii")), (b"last-modified", format_date(modified)), ACCEPT_RANGES]
        if (cache_control := self._cache_control_of(names)) is not None:
            raw.append((b"cache-control", cache_control))
        if self._codings:
            raw.append(VARY)
        headers = Headers.checked(raw)
        asked = _CONDITIONS.intersection([name for name, _ in request.headers.raw])
        if asked:
            failed = failed_precondition(request.headers, etag, modified, now)
            if failed == 412:
                return _refused(412, headers)
            if failed == 304:
                return Response(304, headers)
        raw.append(NO_SNIFFING)
        kind = mediatypes.content_type(names[-1])
        spans = None
        if b"range" in asked and request.method == "GET" and range_applies(request.headers, etag, modified, now):
            spans = parse_ranges(request.headers["range"], size)
            if coding and spans is not None and len(spans) > 1:
                spans = None  # Content-Encoding would be about the parts as a whole, which are not coded
        if spans is not None and not spans:
            headers["content-range"] = f"bytes */{size}"
            return _refused(416, headers)
        if coding:
            raw.append((b"content-encoding", coding.encode("ascii")))
        if spans is None:
            raw.append((b"content-type", kind.encode("ascii")))
            return Response(200, headers, FileBody(file, 0, size))
        return _partial(headers, file, spans, size, kind)

    def _cache_control_of(self, names: Sequence[str]) -> bytes | None:
        for fits, of_path, value in self._cache_rules:
            if fits("/".join(names) if of_path else names[-1]):
                return value
        return self._cache_control


ACCEPT_RANGES = (b"accept-ranges", b"bytes")
NO_SNIFFING = (b"x-content-type-options", b"nosniff")
VARY = (b"vary", b"accept-encoding")

_CONDITIONS = frozenset({b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since", b"range"})


def _refused(status: int, headers: Headers) -> Response:
    """What one request has brought upon itself: a cache that kept it by the file's own rule would answer others so."""
    headers["cache-control"] = "no-store"
    return Response.problem(status, headers)


def _partial(headers: Headers, file: FileIO, spans: Sequence[Span], size: int, kind: str) -> Response:
    """206: one range as it is, several as parts (RFC 9110 section 15.3.7)."""
    if len(spans) == 1:
        headers["content-type"] = kind
        headers["content-range"] = spans[0].content_range(size)
        return Response(206, headers, FileBody(file, spans[0].offset, spans[0].count))
    body = ByteRanges(file, spans, size, kind)
    headers["content-type"] = body.content_type
    headers["content-length"] = str(body.length)
    return Response(206, headers, body)


def _small_content(request: Request, response: Response) -> FileBody | None:
    """The body, if it is to be read here and not left to `Stream.send_file`."""
    body = response.body
    return body if type(body) is FileBody and body.count <= SMALL and request.method == "GET" else None


def _with_content(request: Request, response: Response, body: FileBody) -> Response:
    """The response with what is in the file in place of the file. Waits for the disk."""
    try:
        data = read_at(body.file, body.offset, body.count)
    except OSError as error:
        return _unavailable(request, error.strerror)
    finally:
        body.file.close()
    if len(data) < body.count:
        return _unavailable(request, "it became shorter while it was read")
    response.body = data
    return response


def _unavailable(request: Request, why: str | None) -> Response:
    logger.error("%s cannot be read: %s", request.target, why)
    return Response.problem(503, {"retry-after": "1"})  # it may be there: caches keep a 404


_is_plain_path = re.compile(r"(?:/[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99})+/?", re.ASCII).fullmatch


def split_path(raw_path: str) -> tuple[list[str], bool]:
    """The components of a request's path, each decoded once, and whether it ends with a slash.

    Raises ValueError, or `OutsideRoot`, for what can name nothing here: no path, names that begin with a dot (but for
    `.well-known`, at the top), empty ones, and those with an encoded slash, a backslash or NUL.
    """
    if not raw_path.startswith("/"):
        raise ValueError("not a path")
    *parts, last = raw_path[1:].split("/")
    is_folder = not last
    if last:
        parts.append(last)
    if _is_plain_path(raw_path) is not None:
        return parts, is_folder
    names = [unquote_to_bytes(part).decode("utf-8", "surrogateescape") for part in parts]
    for place, name in enumerate(names):
        check_name(name)
        if name.startswith(".") and (place or name != WELL_KNOWN):
            raise ValueError("a hidden name")
    return names, is_folder


# The options


def _checked_codings(precompressed: bool | Sequence[str]) -> tuple[str, ...]:
    if isinstance(precompressed, bool):
        return tuple(SUFFIXES) if precompressed else ()
    for coding in precompressed:
        if coding not in SUFFIXES:
            raise ConfigurationError(f"no precompressed coding: {coding!r} (there are {', '.join(SUFFIXES)})")
    return tuple(precompressed)


_Rule: TypeAlias = tuple[Callable[[str], object], bool, bytes | None]
"""Whether a rule fits; whether it is about the path; its Cache-Control."""


def _checked_cache(cache: str | Mapping[str, str | None] | None) -> tuple[list[_Rule], bytes | None]:
    """The rules in their order, and what files get that none fits."""
    if cache is None or isinstance(cache, str):
        return [], _checked_value(cache)
    rules: list[_Rule] = [
        (re.compile(fnmatch.translate(pattern.removeprefix("/"))).match, "/" in pattern, _checked_value(value))
        for pattern, value in cache.items()
    ]
    return rules, _checked_value(REVALIDATE)


def _checked_value(value: str | None) -> bytes | None:
    try:
        return None if value is None else Headers({"cache-control": value}).raw[0][1]
    except LocalProtocolError as error:
        raise ConfigurationError(f"no Cache-Control: {error}") from None

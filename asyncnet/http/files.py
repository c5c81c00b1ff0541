"""`Files`: a folder over HTTP, as an application for `HTTPHandler` (RFC 9110 sections 8.8, 13 and 14, RFC 9111).

Paths are resolved beneath the root (`asyncnet.beneath`); whatever does not lead to something below it, or begins with a
dot, is not found. All work on the file system is done in a thread.
"""

from __future__ import annotations

import errno
import html
import logging
import mimetypes
import os
import re
import stat
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import formatdate, parsedate_to_datetime
from io import FileIO
from urllib.parse import quote, unquote_to_bytes

import trio

from asyncnet.beneath import Beneath, Entry, check_name
from asyncnet.http.messages import FileBody, Headers, Request, Response

logger = logging.getLogger(__name__)

OUR_FAULT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO})
"""What says nothing about the file: whoever was told 404 would believe that it has gone."""

SMALL = 32 * 1024
"""Up to this size, in bytes, a file is read where it is opened, and leaves together with its head."""

MAX_LISTED = 10_000
"""How many names a listing shows."""

LAST_MOMENT = 253402300799
"""The end of the year 9999: file systems keep later times, calendars do not."""


class Files:
    """Serves the files below `root` by GET and HEAD.

    A folder is answered by its file `index` if it has one (None: never), else by a listing if `listing` is true, else
    it is not found. A name that begins with a dot is not found. Symlinks are followed as long as they stay below
    `root`. Raises `ConfigurationError` if `root` is no folder.

    Of several ranges in one request none is sent, but the whole file: so ranges cannot be used to multiply it.
    """

    def __init__(self, root: str | os.PathLike[str], *, index: str | None = "index.html", listing: bool = True) -> None:
        self._beneath = Beneath(root)
        self._index = index
        self._listing = listing

    async def __call__(self, request: Request) -> Response:
        if request.method not in ("GET", "HEAD"):
            return Response.problem(405, {"allow": "GET, HEAD"})
        return await trio.to_thread.run_sync(self._answer, request)

    def _answer(self, request: Request) -> Response:
        try:
            names, is_folder = split_path(request.raw_path)
            found = self._beneath.stat(names)
            if not stat.S_ISDIR(found.st_mode):
                return Response.problem(404) if is_folder else self._file(request, names)
            if not is_folder:
                # Relative, so that it stays on this host and below whatever prefix a proxy has taken off.
                query = f"?{request.query}" if request.query else ""
                return Response.redirect(f"./{quote_name(names[-1])}/{query}", 301)
            return self._folder(request, names)
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno in OUR_FAULT:
                logger.error("%s cannot be read: %s", request.target, error.strerror)
                return Response.problem(503, {"retry-after": "1"})  # it may be there: caches keep a 404
            # Not there, not allowed, not a file: the difference is nobody's business.
            return Response.problem(404)

    def _folder(self, request: Request, names: Sequence[str]) -> Response:
        if self._index is not None:
            try:
                return self._file(request, [*names, self._index])
            except FileNotFoundError:
                pass
        if not self._listing:
            return Response.problem(404)
        entries = [entry for entry in self._beneath.scan(names, limit=MAX_LISTED + 1) if not entry.name.startswith(".")]
        return Response.html(
            listing_page(names, entries),
            headers={
                "cache-control": "no-cache",
                "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'",
                "x-content-type-options": "nosniff",
            },
        )

    def _file(self, request: Request, names: Sequence[str]) -> Response:
        file = self._beneath.open(names)
        try:
            response = respond_with_file(request, file, names[-1], time.time())
        except BaseException:
            file.close()
            raise
        if not isinstance(response.body, FileBody) or request.method == "HEAD":
            file.close()
        return response


def split_path(raw_path: str) -> tuple[list[str], bool]:
    """The components of a request's path, each decoded once, and whether it ends with a slash.

    Raises ValueError, or `OutsideRoot`, for what can name nothing here: no path, names that begin with a dot, empty
    ones, and those with an encoded slash, a backslash or NUL.
    """
    if not raw_path.startswith("/"):
        raise ValueError("not a path")
    *parts, last = raw_path[1:].split("/")
    is_folder = not last
    if last:
        parts.append(last)
    names = [unquote_to_bytes(part).decode("utf-8", "surrogateescape") for part in parts]
    for name in names:
        check_name(name)
        if name.startswith("."):
            raise ValueError("a hidden name")
    return names, is_folder


def quote_name(name: str) -> str:
    """A file's name as one component of a URL, with the bytes that it has on disk."""
    return quote(name.encode("utf-8", "surrogateescape"), safe="")


# One file


def respond_with_file(request: Request, file: FileIO, name: str, now: float) -> Response:
    """The answer to GET or HEAD for an open file: preconditions first (RFC 9110 section 13.2.2), then the range."""
    status = os.fstat(file.fileno())
    headers = Headers(
        {
            # Not later than Date (section 8.8.2.1).
            "last-modified": formatdate(max(0, min(int(status.st_mtime), int(now))), usegmt=True),
            "etag": f'"{status.st_mtime_ns:x}-{status.st_ctime_ns:x}-{status.st_size:x}"',
            "accept-ranges": "bytes",
        }
    )
    failed = check_preconditions(request.headers, headers)
    if failed == 412:
        return Response.problem(412, headers)
    if failed == 304:
        return Response(304, headers)
    headers["content-type"] = content_type(name)
    headers["x-content-type-options"] = "nosniff"
    size = status.st_size
    span = None
    if request.method == "GET" and range_applies(request.headers, headers, now):
        span = parse_range(request.headers.get("range", ""), size)
    if span is None:
        return _content(file, 0, size, 200, headers, request.method)
    first, count = span
    if not count:
        return Response.problem(416, {"content-range": f"bytes */{size}"})
    headers["content-range"] = f"bytes {first}-{first + count - 1}/{size}"
    return _content(file, first, count, 206, headers, request.method)


def _content(file: FileIO, offset: int, count: int, status: int, headers: Headers, method: str) -> Response:
    if count > SMALL or method == "HEAD":
        return Response(status, headers, FileBody(file, offset, count))
    file.seek(offset)
    data = file.read(count)
    if len(data) < count:
        raise OSError("the file became shorter while it was read")
    return Response(status, headers, data)


def check_preconditions(request: Headers, current: Headers) -> int | None:
    """412 or 304 if a precondition says so, in the order of RFC 9110 section 13.2.2."""
    etag, modified = current["etag"], _seconds(current["last-modified"])
    if_match = request.get("if-match")
    if if_match is not None:
        if not _matches(if_match, etag, weakly=False):
            return 412
    else:
        unmodified_since = _seconds(request.get("if-unmodified-since"))
        if unmodified_since is not None and modified is not None and modified > unmodified_since:
            return 412
    if_none_match = request.get("if-none-match")
    if if_none_match is not None:
        return 304 if _matches(if_none_match, etag, weakly=True) else None
    modified_since = _seconds(request.get("if-modified-since"))
    if modified_since is not None and modified is not None and modified <= modified_since:
        return 304
    return None


_find_tags = re.compile(r'(W/)?("[\x21\x23-\x7e\x80-\xff]*")').findall


def _matches(field: str, etag: str, *, weakly: bool) -> bool:
    """Whether the list of entity tags has ours, which is strong (section 8.8.3.2)."""
    if field.strip() == "*":
        return True
    return any(tag == etag and (weakly or not weak) for weak, tag in _find_tags(field))


def _seconds(date: str | None) -> float | None:
    """An HTTP date in seconds since 1970; None for none and for what is no date (which is ignored)."""
    if date is None:
        return None
    try:
        moment = parsedate_to_datetime(date)
        return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()
    except (ValueError, OverflowError):
        return None


def range_applies(request: Headers, current: Headers, now: float) -> bool:
    """Whether If-Range lets the range through (section 13.1.5): a strong tag or a strong date, exactly ours."""
    if_range = request.get("if-range")
    if if_range is None:
        return True
    if if_range.endswith('"'):
        return if_range == current["etag"]
    modified = _seconds(current["last-modified"])
    # A file could have changed again within the second that its date names.
    return if_range == current["last-modified"] and modified is not None and modified < now - 1


_is_range = re.compile(r"bytes=[ \t]*(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))[ \t]*", re.ASCII | re.IGNORECASE).fullmatch


def parse_range(field: str, size: int) -> tuple[int, int] | None:
    """The offset and count of a single byte range (section 14.1.2), a count of 0 if it cannot be satisfied.

    None where the field is to be ignored: another unit, no range, more than one.
    """
    match = _is_range(field)
    if match is None:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        if not size and int(suffix):
            return None  # satisfied by all there is, which no Content-Range can express
        count = min(int(suffix), size)
        return size - count, count
    start = int(first)
    end = min(int(last), size - 1) if last else size - 1
    if last and int(last) < start:
        return None
    return start, max(0, end - start + 1)


_COMPRESSED = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}


def content_type(name: str) -> str:
    """The media type that the name's ending stands for; text is UTF-8. A compressed file is what it is on disk."""
    kind, coding = mimetypes.guess_type("./" + name)
    if coding is not None:
        return _COMPRESSED.get(coding, "application/octet-stream")
    if kind is None:
        return "application/octet-stream"
    if kind.startswith("text/") or kind == "application/javascript":
        return f"{kind}; charset=utf-8"
    return kind


# A folder

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 56rem; margin: 0 auto; padding: 1rem; }}
h1 {{ font-size: 1.2rem; overflow-wrap: anywhere; }}
table {{ width: 100%; border-collapse: collapse; }}
td {{ padding: .4rem .5rem; border-top: 1px solid #8884; }}
td:first-child {{ overflow-wrap: anywhere; }}
td + td {{ text-align: right; white-space: nowrap; opacity: .7; font-variant-numeric: tabular-nums; }}
a {{ text-decoration: none; }}
a:hover, a:focus {{ text-decoration: underline; }}
@media (max-width: 36rem) {{ td:last-child {{ display: none; }} }}
</style>
</head>
<body>
<h1>{title}</h1>
<table>
{rows}</table>
{note}</body>
</html>
"""


def listing_page(names: Sequence[str], entries: Sequence[Entry]) -> str:
    """A folder's page: folders first, then files, each with its size and the time (UTC) it was changed."""
    ordered = sorted(entries[:MAX_LISTED], key=lambda entry: (not entry.is_folder, entry.name.casefold(), entry.name))
    rows = [_row("../", "../", "", "")] if names else []
    for entry in ordered:
        slash = "/" if entry.is_folder else ""
        changed = datetime.fromtimestamp(min(max(0, entry.stat.st_mtime), LAST_MOMENT), UTC).strftime("%Y-%m-%d %H:%M")
        size = "" if entry.is_folder else readable_size(entry.stat.st_size)
        rows.append(_row(f"./{quote_name(entry.name)}{slash}", _shown(entry.name) + slash, size, changed))
    note = "" if len(entries) <= MAX_LISTED else f"<p>Only {MAX_LISTED} names are shown.</p>\n"
    title = "/" + "".join(f"{_shown(name)}/" for name in names)
    return _PAGE.format(title=title, rows="".join(rows), note=note)


def _row(link: str, text: str, size: str, changed: str) -> str:
    return f'<tr><td><a href="{link}">{text}</a></td><td>{size}</td><td>{changed}</td></tr>\n'


def _shown(name: str) -> str:
    """A name as text in a page: escaped, with a mark for each byte that is no UTF-8."""
    return html.escape(name.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))


def readable_size(size: int) -> str:
    """A size for people: "17 B", "4.2 KiB", "3.0 GiB"."""
    if size < 1024:
        return f"{size} B"
    amount = float(size)
    for unit in ("KiB", "MiB", "GiB"):
        amount /= 1024
        if amount < 1023.95:
            return f"{amount:.1f} {unit}"
    return f"{amount / 1024:.1f} TiB"

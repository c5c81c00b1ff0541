"""`asyncnet fetch` for http and https: one URL into a file, resumed where that is possible, or onto standard output."""

from __future__ import annotations

import re
from email.utils import formatdate, parsedate_to_datetime
from pathlib import Path
from urllib.parse import unquote

import trio

from asyncnet.cli.download import DownloadError, Partial, Validators, safe_name, status_of
from asyncnet.cli.fetch import FetchOptions
from asyncnet.cli.progress import Report
from asyncnet.cli.saving import pass_on, pass_on_to_device, save
from asyncnet.endpoints import Endpoint, Scheme
from asyncnet.http.client import HTTPClient, Requesting
from asyncnet.http.client_limits import ClientLimits, ClientTimeouts
from asyncnet.http.client_response import ClientResponse
from asyncnet.http.messages import FileBody, Headers
from asyncnet.http.url import parse_url
from asyncnet.printable import printable
from asyncnet.transports.certificates import client_context

_find_filename = re.compile(r"(?i)(?:^|;)\s*filename\s*=\s*(?:\"((?:[^\"\\]|\\.)*)\"|([^\s;]+))").search
_find_extended = re.compile(r"(?i)(?:^|;)\s*filename\*\s*=\s*utf-8'[^']*'([^\s;]+)").search


class HTTPFetcher:
    """Fetches by HTTP: one client for all URLs of a run."""

    def __init__(self, options: FetchOptions) -> None:
        self._options = options
        headers = Headers({"accept-encoding": "identity"})  # a file as it is, which can be resumed
        for name, value in options.headers:
            headers[name] = value
        seconds = options.timeout
        verified = options.ca is not None or not options.verify
        rules = Endpoint(Scheme.TCP, tls=True, ca=options.ca, alpn=("http/1.1",))
        self._client = HTTPClient(
            headers=headers,
            redirects=options.redirects,
            limits=ClientLimits(connections=options.jobs, per_origin=options.jobs),
            timeouts=ClientTimeouts(connect=seconds, send=seconds, head=seconds, body=seconds),
            tls=client_context(rules, verify=options.verify) if verified else None,
            proxy=options.proxy,
            environment=options.proxy is None,
        )

    @staticmethod
    def file_name(url: str) -> str:
        """The name to save `url` under. Raises URLError."""
        return safe_name(parse_url(url).path)

    def prepare(self, url: str) -> None:
        """There is nothing to ask the user for."""

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def fetch(self, url: str, target: Path | None, report: Report) -> None:
        """Fetch `url` into `target` (None: onto standard output). Raises whatever goes wrong."""
        if await pass_on_to_device(target, lambda sink: self._pass_on(url, sink, report)) or target is None:
            return
        if self._options.resume and not self._options.force and await self._is_there(url, target, report):
            return
        partial = await trio.to_thread.run_sync(lambda: Partial(target, replace=self._options.force))
        try:
            final = await self._fetch_into(partial, url, report)
            report.saved = await trio.to_thread.run_sync(partial.finish, final)
        except BaseException:
            report.is_resumable = partial.abandon()
            raise

    async def _is_there(self, url: str, target: Path, report: Report) -> bool:
        """Whether `target` is there, as long as what the server has, and no older: going on means to do nothing."""
        status = await trio.to_thread.run_sync(status_of, target)
        if status is None:
            return False
        size, saved = status.st_size, formatdate(status.st_mtime, usegmt=True)
        async with self._request(url, [("range", f"bytes={size}-"), ("if-unmodified-since", saved)]) as response:
            if response.status == 416:
                is_whole = _is_whole(response, size)
            else:
                is_whole = response.status == 200 and _length(response) == size
            if is_earlier(saved, response.headers.get("last-modified", "")):
                is_whole = False  # not every server heeds the condition
        if is_whole:
            report.begin(size, size)
            report.saved, report.was_there = target, True
        return is_whole

    async def _pass_on(self, url: str, sink: int, report: Report) -> None:
        """Write what comes to the descriptor `sink`, which can neither be resumed nor renamed."""
        async with self._request(url, []) as response:
            _check(response)
            report.begin(0, _length(response))
            await pass_on(response.body, sink, report)

    def _request(self, url: str, headers: list[tuple[str, str]]) -> Requesting:
        options = self._options
        body = FileBody(options.data_file, 0, options.data_size) if options.data_file else options.data
        return self._client.request(options.method, url, headers=headers, body=body, decode=False)

    async def _fetch_into(self, partial: Partial, url: str, report: Report) -> Path | None:
        """Bring `partial` to its end; returns the name that the server wants for it, if that counts."""
        known = partial.known() if self._options.resume else None
        headers: list[tuple[str, str]] = []
        if known is not None and known.url == url and known.condition:
            headers = [("range", f"bytes={partial.size}-"), ("if-range", known.condition)]
        else:
            known = None
        async with self._request(url, headers) as response:
            if known is not None and response.status == 416 and _is_whole(response, partial.size):
                partial.go_on()
                return None
            if known is None or response.status != 206:
                if response.status != 416:
                    return await self._from_start(partial, url, response, report)
            elif (whole := _size_of_whole(response, partial.size, known)) is not None:
                partial.go_on()
                await self._receive(partial, response, report)
                if partial.size != whole:
                    raise DownloadError(f"the server spoke of {whole} bytes in all, and there are {partial.size} now")
                return self._proposed(response, partial)
        # Something else than what we have: the whole once more.
        async with self._request(url, []) as response:
            return await self._from_start(partial, url, response, report)

    async def _from_start(self, partial: Partial, url: str, response: ClientResponse, report: Report) -> Path | None:
        _check(response)
        get = response.headers.get
        modified = get("last-modified", "")
        validators = Validators(url, get("etag", ""), modified if is_earlier(modified, get("date", "")) else "")
        await trio.to_thread.run_sync(partial.begin, validators)
        await self._receive(partial, response, report)
        return self._proposed(response, partial)

    async def _receive(self, partial: Partial, response: ClientResponse, report: Report) -> None:
        length = _length(response)
        report.begin(partial.size, None if length is None else partial.size + length)
        await save(partial, response.body, report)

    def _proposed(self, response: ClientResponse, partial: Partial) -> Path | None:
        disposition = response.headers.get("content-disposition")
        if not self._options.server_names or disposition is None:
            return None
        name = disposition_name(disposition)
        return None if name is None else partial.target.with_name(name)


def disposition_name(value: str) -> str | None:
    """The file's name in a Content-Disposition field (RFC 6266), made safe; None if there is none."""
    if extended := _find_extended(value):
        return safe_name(unquote(extended[1], errors="replace").replace("%", "_"), default="download")
    if plain := _find_filename(value):
        text = re.sub(r"\\(.)", r"\1", plain[1]) if plain[1] is not None else plain[2]
        return safe_name(text.replace("%", "_"), default="download")
    return None


def is_earlier(first: str, second: str) -> bool:
    """Whether the date `first` is a second earlier than `second`, or more.

    A Last-Modified that is so much earlier than the answer's Date tells two contents apart, since no second change had
    the same date (RFC 9110 section 8.8.2.2).
    """
    try:
        return (parsedate_to_datetime(second) - parsedate_to_datetime(first)).total_seconds() >= 1
    except (TypeError, ValueError, OverflowError):
        return False


def _check(response: ClientResponse) -> None:
    """Raise DownloadError unless the response brings the whole content."""
    status, reason = response.status, printable(response.reason)
    if 300 <= status < 400:
        raise DownloadError(f"{status} {reason}: it redirects, and --max-redirects says not to follow")
    if not response.is_success or status == 206:
        hint = ": an option --header may bring what it wants" if status in (401, 403, 407) else ""
        raise DownloadError(f"the server answered {status} {reason}".rstrip() + hint)


def _length(response: ClientResponse) -> int | None:
    value = response.headers.get("content-length", "")
    return int(value) if re.fullmatch("[0-9]{1,19}", value) else None


def _size_of_whole(response: ClientResponse, size: int, known: Validators) -> int | None:
    """How long the whole is, if a 206 brings all that is missing behind `size` bytes (RFC 9110 section 14.4).

    None also if its validators are not those of what is there: not every server heeds If-Range (section 15.3.7.3).
    """
    get = response.headers.get
    match = re.fullmatch(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19})", get("content-range", ""))
    if match is None or int(match[1]) != size or int(match[2]) + 1 != int(match[3]):
        return None
    noted = (known.etag, known.modified)
    given = (get("etag", ""), get("last-modified", ""))
    if any(old and new and old != new for old, new in zip(noted, given, strict=True)):
        return None
    return int(match[3])


def _is_whole(response: ClientResponse, size: int) -> bool:
    """Whether a 416 says that the content has just the `size` bytes that are there."""
    return response.headers.get("content-range", "") == f"bytes */{size}"

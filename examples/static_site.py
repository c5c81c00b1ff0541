"""A static site: a folder with cache rules and compressed twins, a page of our own beside it, and an access log.

    python examples/static_site.py [FOLDER [ENDPOINT]]

Where `page.html.br`, `.zst` or `.gz` lies beside `page.html`, it goes to the clients that take it: `gzip -k page.html`
makes one. Ctrl-C ends it.
"""

from __future__ import annotations

import html
import sys

from asyncnet import run
from asyncnet.http import AccessLog, Files, HTTPHandler, Mounts, Request, Response
from asyncnet.http.files import IMMUTABLE, REVALIDATE

CACHE = {
    "assets/*": IMMUTABLE,  # their names change with what is in them
    "*.html": REVALIDATE,  # browsers ask each time whether it is still the same
    "*": "public, max-age=3600",
}


async def you(request: Request) -> Response:
    agent = html.escape(request.headers.get("user-agent", "nobody in particular"))
    return Response.html(f"<!DOCTYPE html>\n<title>You</title>\n<p>You are {agent}, from {request.peer}.</p>\n")


def main(folder: str = ".", endpoint: str = "tcp://127.0.0.1:8080") -> None:
    site = Mounts({"/": Files(folder, cache=CACHE, precompressed=True), "/you": you})
    run(HTTPHandler(site, access_log=AccessLog(write=print)), endpoint)


if __name__ == "__main__":
    main(*sys.argv[1:])

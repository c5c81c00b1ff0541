"""A guest book: a handler of our own that shows a form, reads what comes back, a file too, and shows it to everybody.

python examples/form.py [ENDPOINT]
"""

from __future__ import annotations

import html
import sys
from collections import deque

from asyncnet import run
from asyncnet.http import FormLimits, HTTPHandler, Request, Response, read_form

PAGE = """<!DOCTYPE html>
<html lang="en"><meta name="viewport" content="width=device-width"><title>Guest book</title>
<style>body { font: 16px/1.5 sans-serif; max-width: 40rem; margin: auto; padding: 1rem }
input, textarea { display: block; width: 100%%; box-sizing: border-box; font: inherit; margin-bottom: .5rem }
dd { white-space: pre-wrap; overflow-wrap: anywhere }</style>
<h1>Guest book</h1>
<form method="post" enctype="multipart/form-data">
<label>Name <input name="name" required maxlength="80"></label>
<label>Words <textarea name="words" required maxlength="2000" rows="4"></textarea></label>
<label>A file, if you like <input type="file" name="file"></label>
<button>Write</button></form>
<dl>%s</dl></html>
"""
LIMITS = FormLimits(total=10 << 20, field_size=10_000, files=1)
SECURITY = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'"}
entries: deque[str] = deque(maxlen=50)


async def guest_book(request: Request) -> Response:
    if request.path != "/":
        return Response.problem(404)
    if request.method in ("GET", "HEAD"):
        return Response.html(PAGE % "\n".join(entries), headers=SECURITY)
    if request.method != "POST":
        return Response.problem(405, {"allow": "GET, HEAD, POST"})
    if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
        return Response.problem(403)  # a page elsewhere that has its visitors write here
    async with read_form(request, limits=LIMITS) as form:
        name, words = html.escape(form["name"]), html.escape(form["words"])
        if file := form.file("file"):
            words += html.escape(f"\n[{file.safe_name}, {file.size} bytes]")
    entries.appendleft(f"<dt>{name}</dt><dd>{words}</dd>")
    return Response.redirect("./", 303)  # so that a reload does not write it twice


if __name__ == "__main__":
    run(HTTPHandler(guest_book), *(sys.argv[1:] or ["tcp://127.0.0.1:8081"]))

"""A WSGI application without a framework, held to PEP 3333 by the standard library's validator."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import parse_qs
from wsgiref.validate import validator


def site(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    path, query = environ["PATH_INFO"].encode("latin-1").decode(), parse_qs(environ["QUERY_STRING"])
    fields = [("Content-Type", "text/plain; charset=utf-8")]
    if path.startswith("/hello/"):
        visits = int(environ.get("HTTP_COOKIE", "visits=0").partition("=")[2]) + 1
        text = f"Hello {path[7:]}, {query['q'][0]} http://{environ['HTTP_HOST']}{environ['REQUEST_URI']}"
        start_response("200 OK", [*fields, ("Set-Cookie", f"visits={visits}")])
        return [text.encode()]
    if path == "/add":
        numbers = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps({"sum": sum(numbers), "started": True}).encode()]
    if path == "/digest":
        total = hashlib.sha256()
        while piece := environ["wsgi.input"].read(50_000):
            total.update(piece)
        start_response("200 OK", fields)
        return [total.hexdigest().encode()]
    if path == "/stream":
        start_response("200 OK", fields)
        return lines(int(query["lines"][0]))
    if path == "/file":
        start_response("200 OK", [("Content-Type", "application/octet-stream")])
        file: Iterable[bytes] = environ["wsgi.file_wrapper"](open(os.environ["LARGE"], "rb"))  # noqa: SIM115  the server closes it
        return file
    raise ValueError("the application's")


def lines(count: int) -> Iterator[bytes]:
    try:
        for number in range(count):
            yield f"line {number}\n".encode()
    finally:
        print("the stream has ended", flush=True)


app = validator(site)

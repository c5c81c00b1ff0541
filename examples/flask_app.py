"""A Flask application, served under WSGI: it is blocking code, and runs in threads.

python examples/flask_app.py [ENDPOINT]      (or: asyncnet serve http ENDPOINT --wsgi examples.flask_app:app)
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator

from asyncnet import run
from asyncnet.http import WSGI, HTTPHandler

try:
    from flask import Flask, Response, render_template_string, request, session
except ImportError:
    sys.exit("this example needs Flask: pip install flask")

PAGE = """<!DOCTYPE html>
<html lang="en"><meta name="viewport" content="width=device-width"><title>Flask</title>
<h1>Hello {{ name }}</h1>
<p>This is your visit number {{ visits }}. <a href="/count">Count to a million.</a></p>
<form><input name="name" placeholder="your name"> <button>Say hello</button></form></html>
"""
app = Flask(__name__)
app.secret_key = secrets.token_bytes(32)  # signs the cookie that counts


@app.get("/")
def hello() -> str:
    session["visits"] = session.get("visits", 0) + 1
    return render_template_string(PAGE, name=request.args.get("name", "World"), visits=session["visits"])


@app.get("/count")
def count() -> Response:
    def lines() -> Iterator[str]:  # streamed: nothing is made before the client takes it
        for number in range(0, 1_000_000, 1000):
            yield "".join(f"{n}\n" for n in range(number + 1, number + 1001))

    return Response(lines(), mimetype="text/plain")


if __name__ == "__main__":
    run(HTTPHandler(WSGI(app)), *(sys.argv[1:] or ["tcp://127.0.0.1:8083"]))

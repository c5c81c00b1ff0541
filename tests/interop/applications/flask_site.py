"""A Flask application, made by a factory."""

import hashlib
import os
from collections.abc import Iterator
from typing import Any

import flask


def make_app() -> flask.Flask:
    app = flask.Flask(__name__)

    @app.get("/hello/<name>")
    def hello(name: str) -> Any:
        visits = int(flask.request.cookies.get("visits", "0")) + 1
        response = flask.make_response(f"Hello {name}, {flask.request.args['q']} {flask.request.url}")
        response.set_cookie("visits", str(visits))
        return response

    @app.post("/add")
    def add() -> Any:
        return flask.jsonify(sum=sum(flask.request.get_json()), started=True)

    @app.post("/upload")
    def upload() -> Any:
        file = flask.request.files["file"]
        digest = hashlib.sha256(file.read()).hexdigest()
        return flask.jsonify(text=flask.request.form["text"], filename=file.filename, digest=digest)

    @app.post("/digest")
    def digest() -> Any:
        total = hashlib.sha256()
        while piece := flask.request.stream.read(50_000):
            total.update(piece)
        return total.hexdigest()

    @app.get("/stream")
    def stream() -> Any:
        count = int(flask.request.args["lines"])

        def lines() -> Iterator[str]:
            try:
                for number in range(count):
                    yield f"line {number}\n"
            finally:
                print("the stream has ended", flush=True)

        return flask.Response(lines(), mimetype="text/plain")

    @app.get("/file")
    def file() -> Any:
        return flask.send_file(os.environ["LARGE"], conditional=True)

    @app.get("/error")
    def error() -> Any:
        raise ValueError("the application's")

    return app

"""Media types: the same on every system, for what the web is made of."""

from __future__ import annotations

import mimetypes

import pytest

from asyncnet.http.mediatypes import content_type, of_ending


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.html", "text/html; charset=utf-8"),
        ("a.CSS", "text/css; charset=utf-8"),
        ("a.js", "text/javascript; charset=utf-8"),
        ("a.mjs", "text/javascript; charset=utf-8"),
        ("a.md", "text/markdown; charset=utf-8"),
        ("a.wasm", "application/wasm"),
        ("a.png", "image/png"),
        ("a.webp", "image/webp"),
        ("a.avif", "image/avif"),
        ("a.svg", "image/svg+xml"),
        ("a.woff2", "font/woff2"),
        ("a.mp4", "video/mp4"),
        ("a.json", "application/json"),
        ("a.webmanifest", "application/manifest+json"),
        ("a.tar.gz", "application/gzip"),
        ("a.tgz", "application/gzip"),
        ("a.css.br", "application/octet-stream"),
        ("a.txt.Z", "application/octet-stream"),
        ("a.xz", "application/x-xz"),
        ("a", "application/octet-stream"),
        ("html", "application/octet-stream"),
        ("a.", "application/octet-stream"),
        ("data:text", "application/octet-stream"),
        ("a.data:text/html", "application/octet-stream"),
        ("a.caf\udce9", "application/octet-stream"),
    ],
)
def test_the_type_follows_the_name(name: str, kind: str) -> None:
    assert content_type(name) == kind


def test_the_system_cannot_make_a_script_of_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    of_ending.cache_clear()
    monkeypatch.setattr(mimetypes, "guess_type", lambda url: ("text/plain", None))
    assert content_type("a.js") == "text/javascript; charset=utf-8"
    of_ending.cache_clear()


def test_a_rarer_ending_is_what_the_system_says(monkeypatch: pytest.MonkeyPatch) -> None:
    of_ending.cache_clear()
    monkeypatch.setattr(mimetypes, "guess_type", lambda url: ("text/x-rare", None))
    assert content_type("a.rare") == "text/x-rare; charset=utf-8"
    of_ending.cache_clear()

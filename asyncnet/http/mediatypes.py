"""The media type that a file's name stands for: the same on every system, for `http.files`.

`mimetypes` asks what the system has installed, and systems differ in what the web is made of: so these have a table
here. It still knows the rarer endings.
"""

from __future__ import annotations

import mimetypes
from functools import lru_cache

UNKNOWN = "application/octet-stream"

_TYPES = {
    # text (RFC 6657: UTF-8 is said below)
    "css": "text/css",
    "csv": "text/csv",
    "htm": "text/html",
    "html": "text/html",
    "ics": "text/calendar",
    "js": "text/javascript",
    "log": "text/plain",
    "md": "text/markdown",
    "mjs": "text/javascript",
    "txt": "text/plain",
    "vcf": "text/vcard",
    "vtt": "text/vtt",
    # data
    "atom": "application/atom+xml",
    "geojson": "application/geo+json",
    "json": "application/json",
    "jsonld": "application/ld+json",
    "map": "application/json",
    "pdf": "application/pdf",
    "rss": "application/rss+xml",
    "toml": "application/toml",
    "wasm": "application/wasm",
    "webmanifest": "application/manifest+json",
    "xhtml": "application/xhtml+xml",
    "xml": "application/xml",
    "yaml": "application/yaml",
    "yml": "application/yaml",
    # images
    "apng": "image/apng",
    "avif": "image/avif",
    "bmp": "image/bmp",
    "gif": "image/gif",
    "heic": "image/heic",
    "heif": "image/heif",
    "ico": "image/vnd.microsoft.icon",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "jxl": "image/jxl",
    "png": "image/png",
    "svg": "image/svg+xml",
    "tif": "image/tiff",
    "tiff": "image/tiff",
    "webp": "image/webp",
    # sound and pictures that move
    "aac": "audio/aac",
    "flac": "audio/flac",
    "m3u8": "application/vnd.apple.mpegurl",
    "m4a": "audio/mp4",
    "m4v": "video/mp4",
    "mkv": "video/matroska",
    "mov": "video/quicktime",
    "mp3": "audio/mpeg",
    "mp4": "video/mp4",
    "mpd": "application/dash+xml",
    "oga": "audio/ogg",
    "ogg": "audio/ogg",
    "ogv": "video/ogg",
    "opus": "audio/ogg",
    "ts": "video/mp2t",
    "wav": "audio/wav",
    "weba": "audio/webm",
    "webm": "video/webm",
    # fonts
    "otf": "font/otf",
    "ttc": "font/collection",
    "ttf": "font/ttf",
    "woff": "font/woff",
    "woff2": "font/woff2",
    # archives: a compressed file is what it is on disk, not a coding of what is in it
    "7z": "application/x-7z-compressed",
    "br": UNKNOWN,
    "bz2": "application/x-bzip2",
    "epub": "application/epub+zip",
    "gz": "application/gzip",
    "svgz": "application/gzip",
    "tar": "application/x-tar",
    "tgz": "application/gzip",
    "whl": "application/zip",
    "xz": "application/x-xz",
    "z": UNKNOWN,
    "zip": "application/zip",
    "zst": "application/zstd",
}


def load() -> None:
    """Have `mimetypes` read the system's tables, which waits for the disk: before anybody is served."""
    if not mimetypes.inited:
        mimetypes.init()


def content_type(name: str) -> str:
    """The media type that the name's ending stands for; text is UTF-8."""
    _, dot, ending = name.rpartition(".")
    return of_ending(ending.lower()) if dot else UNKNOWN


@lru_cache(maxsize=1024)
def of_ending(ending: str) -> str:
    """The media type that the ending, in small letters and without its dot, stands for."""
    kind = _TYPES.get(ending)
    if kind is None:
        kind, coding = mimetypes.guess_type(f"./a.{ending}")
        if kind is None or coding is not None:
            return UNKNOWN
    return f"{kind}; charset=utf-8" if kind.startswith("text/") else kind

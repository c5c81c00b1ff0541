"""A folder's page: what is in it, readable on a phone too. For `http.files`."""

from __future__ import annotations

import html
from collections.abc import Sequence
from datetime import UTC, datetime
from urllib.parse import quote, unquote_to_bytes

from asyncnet.beneath import Entry

MAX_LISTED = 10_000
"""How many names a listing shows."""

LAST_MOMENT = 253402300799
"""The end of the year 9999: file systems keep later times, calendars do not."""

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
th, td {{ padding: 0 0 0 1rem; border-bottom: 1px solid #8884; text-align: right; white-space: nowrap; }}
th {{ font-weight: normal; }}
th, td + td {{ color: #777; color: light-dark(#555, #aaa); font-variant-numeric: tabular-nums; }}
th:first-child, td:first-child {{ padding: 0; text-align: left; white-space: normal; overflow-wrap: anywhere; }}
a {{ display: block; padding: .6rem 0; text-decoration: none; }}
a[href$="/"] {{ font-weight: bold; }}
a:hover, a:focus {{ text-decoration: underline; }}
@media (max-width: 36rem) {{ th:last-child, td:last-child {{ display: none; }} }}
</style>
</head>
<body>
<h1>{title}</h1>
<table>
{rows}</table>
{note}</body>
</html>
"""


def listing_page(names: Sequence[str], entries: Sequence[Entry], mounted_at: str = "") -> str:
    """A folder's page: folders first, then files, each with its size and the time (UTC) it was changed.

    `mounted_at` is what stands before the names in the URL, percent-encoded.
    """
    ordered = sorted(entries[:MAX_LISTED], key=lambda entry: (not entry.is_folder, entry.name.casefold(), entry.name))
    rows = ["<tr><th>Name</th><th>Size</th><th>Changed (UTC)</th></tr>\n"] if entries else []
    if names:
        rows.append(_row("../", "../", "", ""))
    for entry in ordered:
        slash = "/" if entry.is_folder else ""
        changed = datetime.fromtimestamp(min(max(0, entry.stat.st_mtime), LAST_MOMENT), UTC).strftime("%Y-%m-%d %H:%M")
        size = "" if entry.is_folder else readable_size(entry.stat.st_size)
        rows.append(_row(f"./{quote_name(entry.name)}{slash}", _shown(entry.name) + slash, size, changed))
    note = "" if entries else "<p>There is nothing here.</p>\n"
    if len(entries) > MAX_LISTED:
        note = f"<p>Only {MAX_LISTED} names are shown.</p>\n"
    above = unquote_to_bytes(mounted_at).decode("utf-8", "surrogateescape")
    title = _shown(above.rstrip("/") + "/") + "".join(f"{_shown(name)}/" for name in names)
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


def quote_name(name: str) -> str:
    """A file's name as one component of a URL, with the bytes that it has on disk."""
    return quote(name.encode("utf-8", "surrogateescape"), safe="")

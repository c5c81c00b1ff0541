"""Reads the news: RSS and Atom feeds, fetched at once. What strangers send as XML goes through defusedxml: no bombs.

python examples/rss_reader.py URL...          (exit status 1 if one cannot be read)
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from xml.etree.ElementTree import Element, ParseError

import trio

from asyncnet import AsyncnetError
from asyncnet.http import HTTPClient
from asyncnet.printable import printable

try:
    from defusedxml.common import DefusedXmlException
    from defusedxml.ElementTree import fromstring
except ImportError:
    sys.exit("this example needs defusedxml: pip install defusedxml")


def news(feed: Element) -> Iterator[str]:
    """Title and link of each item (RSS 0.9 to 2.0) and entry (Atom, RFC 4287), in whatever namespace they are."""
    for item in [*feed.iterfind(".//{*}item"), *feed.iterfind(".//{*}entry")]:
        links = [link.text or link.get("href") or "" for link in item.iterfind("{*}link")]
        yield "* " + " ".join((item.findtext("{*}title") or "(no title)").split())
        yield "  " + "".join(links[:1]).strip()


async def read(client: HTTPClient, url: str) -> bool:
    """Print the news of one feed, and tell whether there was something to read."""
    try:
        response = (await client.get(url, limit=4 << 20)).raise_for_status()
        lines = list(news(fromstring(response.content)))
    except DefusedXmlException as error:
        print(printable(f"{url} is refused, since it is made to do harm: {error}"), file=sys.stderr)
        return False
    except (OSError, AsyncnetError, trio.BrokenResourceError, ParseError, LookupError, ValueError) as error:
        print(printable(f"{url} cannot be read: {error}"), file=sys.stderr)
        return False
    print("\n".join(map(printable, [url, *lines])))
    return True


async def main(urls: list[str]) -> int:
    were_read: list[bool] = []

    async def note(url: str) -> None:
        were_read.append(await read(client, url))

    async with HTTPClient() as client, trio.open_nursery() as nursery:
        for url in urls:
            nursery.start_soon(note, url)
    return 0 if all(were_read) else 1


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python examples/rss_reader.py URL...")
    sys.exit(trio.run(main, sys.argv[1:]))

"""The options of `asyncnet serve http`, and the handler that they ask for.

Whatever serves HTTP is imported when a handler is made: `--help` needs none of it.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from asyncnet.cli.applications import load_application
from asyncnet.cli.log import enable_again
from asyncnet.cli.options import count, size
from asyncnet.errors import ConfigurationError

if TYPE_CHECKING:
    from asyncnet.http import HTTPHandler

EPILOG = """\
examples:
  asyncnet serve http tcp://127.0.0.1:8080 --root public
  asyncnet serve http 'tls://*:443' --cert chain.pem --key key.pem --root /srv/www --precompressed --no-listing
  asyncnet serve http tcp://127.0.0.1:8080 --root dist --cache 'assets/*=public, max-age=31536000, immutable'
  asyncnet serve http unix:/run/shop.sock?mode=660 --asgi shop.main:app
  asyncnet serve http tcp://127.0.0.1:8080 --wsgi 'shop:create_app()' --app-dir /srv/shop
  asyncnet passwd users.toml anna && asyncnet serve http tcp://127.0.0.1:8080 --users users.toml
"""

_CODINGS = ("br", "zstd", "gzip")

_NEEDS = {
    "index": "--root",
    "no_index": "--root",
    "no_listing": "--root",
    "precompressed": "--root",
    "cache": "--root",
    "lifespan": "--asgi",
    "threads": "--wsgi",
    "app_dir": "--asgi or --wsgi",
    "realm": "--users",
    "insecure_auth": "--users",
}
"""Which option means nothing without which: whoever gives it believes that it does something."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the kind `http`."""
    site = parser.add_argument_group("what to serve; MODULE:APP is imported, and MODULE:MAKE() is called once")
    what = site.add_mutually_exclusive_group()
    what.add_argument("--root", metavar="DIR", help="the files of a folder (default: the current one)")
    what.add_argument("--asgi", metavar="MODULE:APP", help="an ASGI application: Starlette, FastAPI, Quart-Trio, ...")
    what.add_argument("--wsgi", metavar="MODULE:APP", help="a WSGI application: Flask, Django, Zope, ...")
    site.add_argument("--app-dir", metavar="DIR", help="where MODULE is looked for first (default: the current folder)")
    site.add_argument(
        "--lifespan",
        choices=["auto", "on", "off"],
        help="whether an ASGI application is told of start and end (default: auto: if it wants to be)",
    )
    site.add_argument("--threads", metavar="N", type=count, help="for a WSGI application (default: 40)")

    files = parser.add_argument_group("files, with --root")
    index = files.add_mutually_exclusive_group()
    index.add_argument("--index", metavar="NAME", help="the file that answers for its folder (default: index.html)")
    index.add_argument("--no-index", action="store_true", help="list folders even where they have such a file")
    files.add_argument("--no-listing", action="store_true", help="do not list folders")
    files.add_argument(
        "--precompressed",
        metavar="CODING,...",
        nargs="?",
        const=_CODINGS,
        type=_codings,
        help="send page.html.br, .zst or .gz for page.html, unless it is older; =br,gzip names those that count, "
        "the best one first",
    )
    files.add_argument(
        "--cache",
        metavar="[PATTERN=]VALUE",
        action="append",
        type=_cache_rule,
        help="the Cache-Control of files, or of those that fit a pattern; repeat for several, of which the first that "
        "fits counts; none sends no such header (default: no-cache)",
    )

    access = parser.add_argument_group("passwords")
    access.add_argument("--users", metavar="FILE", help="ask for a name and a password of this file (asyncnet passwd)")
    access.add_argument("--realm", metavar="TEXT", help="what the password is for, as browsers show it")
    access.add_argument(
        "--insecure-auth", action="store_true", help="take passwords without TLS, too: anybody on the way can read them"
    )

    protocol = parser.add_argument_group("HTTP")
    protocol.add_argument(
        "--max-body", metavar="SIZE", type=size, default=1 << 30, help="of a request's body (default: 1G)"
    )
    protocol.add_argument(
        "--engine",
        choices=["auto", "h11", "httptools"],
        default="auto",
        help="what parses requests (default: httptools where it is installed, else h11)",
    )
    protocol.add_argument(
        "--access-log",
        choices=["combined", "json", "off"],
        default="combined",
        help="a line for each request, beside the log; then connections that ended well have none (default: "
        "%(default)s)",
    )


def _codings(text: str) -> tuple[str, ...]:
    codings = tuple(text.split(","))
    if not set(codings) <= set(_CODINGS) or len(set(codings)) < len(codings):
        raise argparse.ArgumentTypeError(
            f"{text!r} names no codings: write --precompressed, or --precompressed=br,gzip"
        )
    return codings


_DIRECTIVES = frozenset(
    {"max-age", "s-maxage", "stale-while-revalidate", "stale-if-error", "private", "no-cache", "min-fresh", "max-stale"}
)
"""The parts of a Cache-Control that take an argument (RFC 9111 section 5.2, RFC 5861)."""


def _cache_rule(text: str) -> tuple[str | None, str | None]:
    """The pattern (None: for all files) and the value (None: no such header) of "[PATTERN=]VALUE".

    "public, max-age=60" has no pattern: what stands in front of its first "=" ends with a directive's name.
    """
    pattern, equals, value = text.partition("=")
    if not equals or pattern.rpartition(",")[2].strip().lower() in _DIRECTIVES:
        pattern, value = "", text
    elif not pattern:
        raise argparse.ArgumentTypeError(f"{text!r} has no pattern in front of =")
    if not value.strip():
        raise argparse.ArgumentTypeError(f"{text!r} has no value: none sends no Cache-Control")
    return pattern or None, None if value.strip() == "none" else value.strip()


def make_handler(args: argparse.Namespace) -> HTTPHandler:
    """The handler for these options. Raises ConfigurationError, and whatever an application raises at its import."""
    from asyncnet.http import AccessLog, BasicAuth, HTTPHandler, HTTPLimits, LogFormat

    _check(args)
    app = _application(args)
    enable_again()
    if args.users is not None:
        from asyncnet.auth import UserFile

        realm = "asyncnet" if args.realm is None else args.realm
        app = BasicAuth(app, UserFile(args.users), realm=realm, insecure_auth=args.insecure_auth)
    return HTTPHandler(
        app,
        limits=HTTPLimits(body=args.max_body),
        engine=_engine(args.engine),
        access_log=None if args.access_log == "off" else AccessLog(LogFormat(args.access_log)),
    )


def _check(args: argparse.Namespace) -> None:
    """Refuse options that would do nothing."""
    given = {"--root" if args.asgi is None and args.wsgi is None else ""}
    given |= {f"--{name}" for name in ("asgi", "wsgi", "users") if getattr(args, name) is not None}
    for name, needed in _NEEDS.items():
        if getattr(args, name) not in (None, False) and given.isdisjoint(needed.split(" or ")):
            raise ConfigurationError(f"--{name.replace('_', '-')} goes with {needed}")


def _application(args: argparse.Namespace) -> Any:
    from asyncnet.http import ASGI, WSGI, Files

    if args.asgi is not None:
        app = load_application(args.asgi, args.app_dir or ".", "ASGI")
        return ASGI(app, lifespan=args.lifespan or "auto")
    if args.wsgi is not None:
        app = load_application(args.wsgi, args.app_dir or ".", "WSGI")
        return WSGI(app, threads=args.threads or 40)
    options: dict[str, Any] = {} if args.cache is None else {"cache": _cache(args.cache)}
    if args.no_index:
        options["index"] = None
    elif args.index is not None:
        if "/" in args.index or args.index.startswith("."):
            raise ConfigurationError(f"--index {args.index}: a file's name, without a folder or a dot in front")
        options["index"] = args.index
    return Files(
        "." if args.root is None else args.root,
        listing=not args.no_listing,
        precompressed=args.precompressed or (),
        **options,
    )


def _cache(rules: list[tuple[str | None, str | None]]) -> dict[str, str | None] | str | None:
    """The rules as `Files` takes them: that for all files behind the others."""
    patterns = [pattern for pattern, _ in rules]
    twice = next((pattern for pattern in patterns if patterns.count(pattern) > 1), "")
    if twice != "":
        raise ConfigurationError(f"two --cache for {'all files' if twice is None else twice}")
    found = dict(rules)
    everything = found.pop(None, "no-cache")
    named = {pattern: value for pattern, value in found.items() if pattern is not None}
    return {**named, "*": everything} if named else everything


def _engine(name: str) -> Any:
    if name == "auto":
        return None
    from asyncnet.http.engine import H11Engine

    if name == "h11":
        return H11Engine()
    try:
        from asyncnet.http.httptools_engine import HttptoolsEngine
    except ImportError:
        raise ConfigurationError("httptools is not installed: pip install 'asyncnet[http]'") from None
    return HttptoolsEngine()

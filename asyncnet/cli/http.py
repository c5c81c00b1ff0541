"""The options of `asyncnet serve http`, and the handler that they ask for.

Whatever serves HTTP is imported when a handler is made: `--help` needs none of it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from asyncnet.cli.options import count, size
from asyncnet.errors import ConfigurationError

if TYPE_CHECKING:
    from asyncnet.http import HTTPHandler


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the kind `http`."""
    site = parser.add_argument_group("what to serve")
    what = site.add_mutually_exclusive_group()
    what.add_argument("--root", metavar="DIR", default=".", help="the files of a folder (default: the current one)")
    what.add_argument("--asgi", metavar="MODULE:APP", help="an ASGI application: Starlette, FastAPI, Quart-Trio, ...")
    what.add_argument("--wsgi", metavar="MODULE:APP", help="a WSGI application: Flask, Django, Zope, ...")
    site.add_argument(
        "--app-dir", metavar="DIR", default=".", help="where MODULE is looked for first (default: the current folder)"
    )
    site.add_argument(
        "--lifespan",
        choices=["auto", "on", "off"],
        default="auto",
        help="whether an ASGI application is told of start and end (default: %(default)s)",
    )
    site.add_argument(
        "--threads", metavar="N", type=count, default=40, help="for a WSGI application (default: %(default)s)"
    )

    files = parser.add_argument_group("files")
    files.add_argument("--no-listing", action="store_true", help="do not list folders")
    files.add_argument(
        "--precompressed", action="store_true", help="send page.html.br, .zst or .gz for page.html where they are newer"
    )
    files.add_argument(
        "--cache-control", metavar="VALUE", help="of files, such as 'public, max-age=3600' (default: no-cache)"
    )

    access = parser.add_argument_group("passwords")
    access.add_argument("--users", metavar="FILE", help="ask for a name and a password of this file (asyncnet passwd)")
    access.add_argument("--realm", metavar="TEXT", default="asyncnet", help="what is asked for (default: %(default)s)")
    access.add_argument(
        "--insecure-auth", action="store_true", help="take passwords without TLS, too: anybody on the way can read them"
    )

    protocol = parser.add_argument_group("HTTP")
    protocol.add_argument("--max-body", metavar="SIZE", type=size, help="of a request (default: 1G)", default=1 << 30)
    protocol.add_argument(
        "--engine",
        choices=["auto", "h11", "httptools"],
        default="auto",
        help="what parses requests (default: httptools where it is installed)",
    )
    protocol.add_argument(
        "--access-log",
        choices=["combined", "json", "off"],
        default="combined",
        help="a line for each request (default: %(default)s)",
    )


def make_handler(args: argparse.Namespace) -> HTTPHandler:
    """The handler for these options. Raises ConfigurationError."""
    from asyncnet.http import AccessLog, BasicAuth, HTTPHandler, HTTPLimits, LogFormat

    app = _application(args)
    if args.users is not None:
        from asyncnet.auth import UserFile

        app = BasicAuth(app, UserFile(args.users), realm=args.realm, insecure_auth=args.insecure_auth)
    return HTTPHandler(
        app,
        limits=HTTPLimits(body=args.max_body),
        engine=_engine(args.engine),
        access_log=None if args.access_log == "off" else AccessLog(LogFormat(args.access_log)),
    )


def _application(args: argparse.Namespace) -> Any:
    from asyncnet.http import ASGI, WSGI, Files

    if args.asgi is not None:
        return ASGI(load_application(args.asgi, args.app_dir), lifespan=args.lifespan)
    if args.wsgi is not None:
        return WSGI(load_application(args.wsgi, args.app_dir), threads=args.threads)
    options = {} if args.cache_control is None else {"cache": args.cache_control}
    return Files(args.root, listing=not args.no_listing, precompressed=args.precompressed, **options)


def load_application(place: str, folder: str) -> Callable[..., Any]:
    """Import "module:name", or call "module:name()". Raises ConfigurationError that says what is wrong."""
    module, colon, name = place.partition(":")
    is_factory = name.endswith("()")
    name = name.removesuffix("()")
    if not (module and colon and name):
        raise ConfigurationError(f"{place!r} is no application: write MODULE:APP, such as shop.main:app")
    sys.path.insert(0, folder)
    try:
        found: Any = import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # something that the module itself imports
        raise ConfigurationError(f"no module {module!r}: --app-dir says where to look for it") from None
    try:
        for part in name.split("."):
            found = getattr(found, part)
    except AttributeError:
        raise ConfigurationError(f"the module {module!r} has no {name!r}") from None
    if is_factory:
        found = found()
    if not callable(found):
        raise ConfigurationError(f"{place!r} is no application: it cannot be called")
    made: Callable[..., Any] = found
    return made


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

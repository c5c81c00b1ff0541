"""`Mounts`: several applications under one handler, by path and by host.

What could go wrong, and why it does not: whoever protects `/admin` must not be walked around. Components are compared
decoded, so that `/%61dmin` is `/admin`. The application behind another mount might read more into a path than is
written there: so one with `.` or `..` in it is refused, and one that names another place for whoever takes encoded
slashes and backslashes for slashes, and several slashes for one (`/admin%2Fusers`, `//admin/users`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from asyncnet.errors import ConfigurationError
from asyncnet.http.application import AnyApplication, Application, Enclosing, as_application, send_response
from asyncnet.http.exchange import Exchange
from asyncnet.http.messages import Response
from asyncnet.http.wire import RequestError


@dataclass(frozen=True, slots=True)
class _Mount:
    host: str
    """In small letters; "" for every host; "*.example.com" for all below example.com."""
    path: tuple[bytes, ...]
    app: Application

    def takes_host(self, host: str) -> bool:
        if self.host.startswith("*."):
            return host.endswith(self.host[1:])
        return not self.host or host == self.host


class Mounts(Enclosing):
    """Sends each request to the application whose place it names.

    `places` maps "/path", "host/path" or "*.host/path" to applications of any kind. A place with a host goes before
    one without, a host by name before a wildcard, a longer path before a shorter one; a path is compared component by
    component. The application sees its place as `request.mounted_at` (ASGI: `root_path`, WSGI: `SCRIPT_NAME`), and
    paths begin behind it; a request for the place without a slash behind it is redirected. What nobody takes is
    answered 404.

    Raises ConfigurationError for a wrong place.
    """

    def __init__(self, places: Mapping[str, AnyApplication]) -> None:
        super().__init__(places.values())
        mounts = [_mount(place, app) for place, app in places.items()]
        self._mounts = sorted(
            mounts, key=lambda mount: (not mount.host, mount.host.startswith("*"), -len(mount.host), -len(mount.path))
        )
        if len({(mount.host, mount.path) for mount in mounts}) < len(mounts):
            raise ConfigurationError("two applications are mounted at the same place")

    async def respond(self, exchange: Exchange) -> None:
        raw = exchange.raw_path.split(b"/")[1:]
        components = tuple(unquote_to_bytes(component) for component in raw)
        mount = self._find(exchange.host, components)
        if b"%" in exchange.raw_path or b"/." in exchange.raw_path or b"//" in exchange.raw_path:
            resolved = _as_a_lenient_application_reads(components)
            if b"." in resolved or b".." in resolved:
                raise RequestError(400, "a path that is not resolved")
            if self._find(exchange.host, resolved) is not mount:
                raise RequestError(400, "a path that may be read as another place")
        if mount is None:
            await send_response(exchange, Response.problem(404))
            return
        depth = len(mount.path)
        if depth and len(components) == depth:
            query = f"?{exchange.query.decode('ascii')}" if exchange.query else ""
            location = f"./{raw[-1].decode('ascii')}/{query}"
            await send_response(exchange, Response.redirect(location, 308))
            return
        taken = sum(len(component) + 1 for component in raw[:depth])
        exchange.mounted_at += exchange.raw_path[:taken]
        exchange.raw_path = exchange.raw_path[taken:]
        await mount.app.respond(exchange)

    def _find(self, host: str, components: tuple[bytes, ...]) -> _Mount | None:
        for mount in self._mounts:
            if components[: len(mount.path)] == mount.path and mount.takes_host(host):
                return mount
        return None


def _as_a_lenient_application_reads(components: tuple[bytes, ...]) -> tuple[bytes, ...]:
    return tuple(part for part in b"/".join(components).replace(b"\\", b"/").split(b"/") if part)


def _mount(place: str, app: AnyApplication) -> _Mount:
    host, slash, path = place.partition("/")
    if not slash or "?" in place or "#" in place or ":" in host:
        raise ConfigurationError(f"{place!r} is no place: write '/path', 'host/path' or '*.host/path', without a port")
    components = tuple(unquote_to_bytes(component) for component in path.rstrip("/").split("/")) if path else ()
    if components == (b"",):
        components = ()
    if not {b"", b".", b".."}.isdisjoint(components):
        raise ConfigurationError(f"{place!r} is no place: an empty component or dots in its path")
    return _Mount(host.lower().rstrip("."), components, as_application(app))

"""Which proxy leads to an origin, by the environment's variables or by one setting. Used by `http.client`.

The variables are what curl made of them: `http_proxy` (in small letters alone: a CGI program's environment holds the
header Proxy as HTTP_PROXY, CVE-2016-5385), `https_proxy`, `all_proxy` and `no_proxy` in small or capital letters.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping

from asyncnet.http.url import Origin
from asyncnet.transports.tunnels import ProxyURL, parse_proxy

_has_port = re.compile(r"(?:^|[^:\[\]]):[0-9]*$|\]:[0-9]*$").search
_KINDS = {"http": "http", "ws": "http", "https": "https", "wss": "https"}
_PORTS = {"http": 80, "socks5": 1080, "socks5h": 1080}


class Proxies:
    """The proxies to use: `http` and `https` for these schemes, except to the hosts that `exceptions` names.

    Raises EndpointError for the URL of a proxy that is none.
    """

    def __init__(self, http: str | None = None, https: str | None = None, exceptions: str = "") -> None:
        self._texts = {"http": http and _completed(http), "https": https and _completed(https)}
        self._proxies = {scheme: parse_proxy(text) if text else None for scheme, text in self._texts.items()}
        self._exceptions = [part.lower() for part in re.split(r"[,\s]+", exceptions) if part]

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Proxies:
        """What the variables of `environment` say."""

        def find(*names: str) -> str | None:
            return next((value for name in names if (value := environment.get(name, "").strip())), None)

        everywhere = ("all_proxy", "ALL_PROXY")
        return cls(
            find("http_proxy", *everywhere),
            find("https_proxy", "HTTPS_PROXY", *everywhere),
            find("no_proxy", "NO_PROXY") or "",
        )

    def choose(self, origin: Origin) -> ProxyURL | None:
        """The proxy for `origin`, or None."""
        proxy = self._proxies[_KINDS[origin.scheme]]
        if proxy is None or (self._exceptions and self._is_exception(origin)):
            return None
        return proxy

    def text(self, origin: Origin) -> str | None:
        """The proxy for `origin` as `asyncnet.connect` takes it."""
        return None if self.choose(origin) is None else self._texts[_KINDS[origin.scheme]]

    def _is_exception(self, origin: Origin) -> bool:
        """Whether no_proxy names the host: "*", a name and all names below it, an address, a network; maybe a port."""
        host = origin.host.removesuffix(".")
        for exception in self._exceptions:
            if exception == "*":
                return True
            name, port = _split(exception)
            if port and int(port) != origin.port:
                continue
            name = name.removeprefix("*").strip(".")
            if host == name or host.endswith(f".{name}") or _is_within(host, name):
                return True
        return False


def _split(exception: str) -> tuple[str, str]:
    """Name and port of an entry of no_proxy."""
    match = re.fullmatch(r"\[(.*)\](?::([0-9]+))?|([^:]*):([0-9]+)", exception)
    if match is None:
        return exception, ""
    return match[1] or match[3] or "", match[2] or match[4] or ""


def _is_within(host: str, network: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def _completed(text: str) -> str:
    """`text` with the scheme and the port that people leave out."""
    if "://" not in text:
        text = f"http://{text}"
    scheme, _, rest = text.partition("://")
    rest = rest.removesuffix("/")
    if scheme in _PORTS and _has_port(rest.rpartition("@")[2]) is None:
        rest = f"{rest}:{_PORTS[scheme]}"
    return f"{scheme}://{rest}"

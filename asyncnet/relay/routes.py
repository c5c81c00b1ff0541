"""`Routes`: which target an address's mail goes to. What the administrator has said goes before the DNS.

A destination is what the queue schedules by: where a host that is down holds up its own mail only, and what connections
are made to. Mail for a domain of our own has "local:example.org", mail through a host that was named that host's URL,
and all other mail its domain in A-labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import trio

from asyncnet.mailbox.storage import Mailboxes
from asyncnet.relay.mailbox_target import MailboxTarget
from asyncnet.relay.routing import Finder, Host, NoRoute
from asyncnet.relay.smtp_target import Manners, to_domain, to_host
from asyncnet.relay.targets import Target
from asyncnet.smtp.address import MailAddress, ascii_domain
from asyncnet.smtp.url import SMTPURL, parse_url

_LOCAL = "local:"


class Routes:
    """Where mail goes.

    `local`: domains whose mail is delivered here, and the mailboxes of their users. `via`: domains whose mail goes to a
    host of the administrator's choice. `default`: the host for all others (a smarthost); without it `router` finds the
    exchangers of each domain, and without both there is no way to any other. `manners` are for other hosts; for those
    that were named there may be others, as `host_manners`.

    Raises URLError for a URL that is none. The address "postmaster", which has no domain, is that of the first of the
    local domains.
    """

    def __init__(
        self,
        *,
        local: Mapping[str, Mailboxes] | None = None,
        via: Mapping[str, SMTPURL | str] | None = None,
        default: SMTPURL | str | None = None,
        router: Finder | None = None,
        manners: Manners = Manners(),
        host_manners: Manners | None = None,
    ) -> None:
        self._local = {ascii_domain(domain.lower()): boxes for domain, boxes in (local or {}).items()}
        self._via = {ascii_domain(domain.lower()): _url(url) for domain, url in (via or {}).items()}
        self._default = None if default is None else _url(default)
        self._router = router
        self._manners = manners
        self._host_manners = host_manners or manners
        self._hosts = {str(url): url for url in (*self._via.values(), *([self._default] if self._default else ()))}

    @property
    def named(self) -> frozenset[str]:
        """The destinations that the administrator has named; the hosts of all others are anybody's."""
        return frozenset((*(f"{_LOCAL}{domain}" for domain in self._local), *self._hosts))

    def is_local(self, address: MailAddress) -> bool:
        """Whether mail for it is delivered here, if there is such a user."""
        return self.destination_of(address).startswith(_LOCAL)

    def destination_of(self, address: MailAddress) -> str:
        """The destination of an address."""
        domain = address.ascii_domain or next(iter(self._local), "")
        if domain in self._local:
            return f"{_LOCAL}{domain}"
        url = self._via.get(domain, self._default)
        return domain if url is None else str(url)

    def target(self, destination: str) -> Target:
        """Where a destination's mail is handed over. `destination_of` has named it, under the routes of now."""
        if destination.startswith(_LOCAL):
            return MailboxTarget(self._local[destination.removeprefix(_LOCAL)])
        url = self._hosts.get(destination)
        if url is not None:
            return to_host(url, self._host_manners)
        return to_domain(destination, self._router or _NoWay(), self._manners)


def _url(url: SMTPURL | str) -> SMTPURL:
    return parse_url(url) if isinstance(url, str) else url


class _NoWay:
    """Finds nobody."""

    async def hosts(self, domain: str) -> Sequence[Host]:
        await trio.lowlevel.checkpoint()
        raise NoRoute("5.4.4", f"this host sends no mail to {domain}")

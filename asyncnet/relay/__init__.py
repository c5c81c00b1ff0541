"""What keeps mail and passes it on: a durable queue, and the relay that empties it.

`Relay` is a `smtp.delivery.Delivery` with a queue on a disk (`queue`), whose mail goes where `Routes` lead: to
mailboxes, to hosts that were named, to the exchangers that the DNS tells. `bounces` writes what senders are told.
`admin.QueueAdmin` looks into the queue and changes it, from another process too. `pip install "asyncnet[relay]"` brings
SQLAlchemy and dnspython. The names are imported when they are first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncnet.relay.dns import DNSResolver as DNSResolver
    from asyncnet.relay.limits import QueueLimits as QueueLimits
    from asyncnet.relay.retry import RetryPolicy as RetryPolicy
    from asyncnet.relay.routes import Routes as Routes
    from asyncnet.relay.routing import Ourselves as Ourselves
    from asyncnet.relay.routing import Router as Router
    from asyncnet.relay.runner import Relay as Relay
    from asyncnet.relay.runner import RelayLimits as RelayLimits
    from asyncnet.relay.runner import RelayTimes as RelayTimes
    from asyncnet.relay.smtp_target import Manners as Manners
else:
    from asyncnet.lazy import lazy_names

    __all__, __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "dns": ("DNSResolver",),
            "limits": ("QueueLimits",),
            "retry": ("RetryPolicy",),
            "routes": ("Routes",),
            "routing": ("Ourselves", "Router"),
            "runner": ("Relay", "RelayLimits", "RelayTimes"),
            "smtp_target": ("Manners",),
        },
    )

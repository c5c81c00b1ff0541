"""The options of `asyncnet serve smtp`, and the handler that they ask for.

Whatever serves SMTP is imported when a handler is made: `--help` needs none of it.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from asyncnet.cli.begun_tls import begun_tls
from asyncnet.cli.options import count, duration, network, size
from asyncnet.endpoints import Endpoint, Scheme, parse
from asyncnet.errors import ConfigurationError, LocalProtocolError
from asyncnet.printable import printable

if TYPE_CHECKING:
    from asyncnet.auth import UserFile
    from asyncnet.mailbox.storage import Mailboxes
    from asyncnet.relay.dns import DNSResolver
    from asyncnet.relay.routes import Routes
    from asyncnet.relay.routing import Ourselves
    from asyncnet.relay.runner import Relay
    from asyncnet.relay.smtp_target import Manners
    from asyncnet.smtp.client import SMTPURL
    from asyncnet.smtp.delivery import Delivery
    from asyncnet.smtp.policies import Rule
    from asyncnet.smtp.server import SMTPHandler

logger = logging.getLogger("asyncnet.smtp")

EPILOG = """\
What gets a 250 is on the disk, in the queue in --spool; from there it goes to mailboxes (--local), to the host of
--relay-to, or else to the mail exchangers of its domain. `asyncnet queue list --spool DIR` shows what waits there.

Anybody may send to the domains of --local. Who may send to others: users who log in (--users), and clients in the
networks of --trust. Users of a domain have a Maildir in its DIR (`mkdir -p DIR/anna/new` makes one); who is in --users
gets one when it is needed, and so does postmaster. `asyncnet serve pop3 --mail DIR --users FILE` lets them read it.

examples:
  asyncnet serve smtp tcp://127.0.0.1:2525 --spool spool --local example.org=mail --users users.toml
  asyncnet serve smtp 'tcp://*:25' --cert chain.pem --key key.pem --spool /var/spool/asyncnet \\
      --local example.org=/srv/mail
  asyncnet serve smtp 'tcp://*:587' --role submission --cert chain.pem --spool spool --users users.toml \\
      --relay-to smtp://mail.example.net:587
  asyncnet serve smtp tcp://127.0.0.1:2525 --spool spool --trust 127.0.0.0/8 --relay-to smtp://mail.example.net
  asyncnet serve smtp tcp://127.0.0.1:2525 --discard
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the kind `smtp`."""
    what = parser.add_argument_group("what becomes of the mail; one of --spool and --discard")
    what.add_argument("--spool", metavar="DIR", help="the folder of the queue, for this relay alone")
    what.add_argument("--discard", action="store_true", help="throw all mail away: to try clients")
    what.add_argument(
        "--local",
        metavar="DOMAIN=DIR",
        action="append",
        type=_local,
        default=[],
        help="a domain whose mail is delivered here, and the folder with a Maildir for each of its users; repeat",
    )
    what.add_argument(
        "--quota", metavar="SIZE", type=size, help="of each mailbox of --local: past it mail waits, and then comes back"
    )
    what.add_argument(
        "--aliases", metavar="FILE", help='other addresses (TOML): "info@example.org" = ["anna@example.org"]'
    )
    what.add_argument(
        "--relay-to",
        metavar="URL",
        help="the host for all other mail: smtp://[user@]host[:port]; the password is that of ~/.netrc",
    )
    what.add_argument(
        "--relay-domain",
        metavar="DOMAIN=URL",
        action="append",
        type=_via,
        default=[],
        help="the host for a domain's mail, which anybody may send; lmtp://host and lmtp+unix:PATH as well; repeat",
    )

    who = parser.add_argument_group("who may send")
    who.add_argument(
        "--role",
        choices=["mx", "submission", "lmtp"],
        default="mx",
        help="mx: mail from anybody; submission: from users who log in; lmtp: from a server before it (default: mx)",
    )
    who.add_argument("--users", metavar="FILE", help="let whoever has a password in this file log in (asyncnet passwd)")
    who.add_argument(
        "--trust",
        metavar="NET",
        action="append",
        type=network,
        default=[],
        help="clients who may send to anybody; repeat",
    )
    who.add_argument(
        "--check-senders",
        action="store_true",
        help="users send by their own addresses alone: those of their entry in --users, else their name",
    )
    who.add_argument("--require-tls", action="store_true", help="nothing is done without TLS, with --cert")
    who.add_argument(
        "--insecure-auth", action="store_true", help="take passwords without TLS, too: anybody on the way can read them"
    )
    who.add_argument(
        "--messages-per-hour",
        metavar="N",
        type=count,
        help="of each user, and of each address that nobody has logged in from; more have to come again later",
    )
    who.add_argument("--max-size", metavar="SIZE", type=size, help="of a message (default: 50M)")
    who.add_argument(
        "--normalise-from",
        metavar="NET",
        action="append",
        type=network,
        default=[],
        help="clients whose lines end with LF alone, and are put right; those of all others are refused; repeat",
    )

    out = parser.add_argument_group("how mail goes on, with --spool; TIME is 90, 90s, 5m, 1h")
    out.add_argument("--hostname", metavar="NAME", help="what this host calls itself (default: its own name)")
    out.add_argument(
        "--tls-out",
        choices=["opportunistic", "required", "never"],
        help="TLS to other hosts (default: required where a password is told, else opportunistic)",
    )
    out.add_argument("--relay-ca", metavar="FILE", help="who vouches for the hosts that are named here (PEM)")
    out.add_argument("--name-server", metavar="ADDRESS[:PORT]", help="which DNS to ask (default: the system's)")
    out.add_argument(
        "--retry-after", metavar="TIME", type=duration, help="the first pause after a failure (default: 5m)"
    )
    out.add_argument(
        "--warn-after", metavar="TIME", type=duration, help="when a sender is told of a delay, or off (default: 4h)"
    )
    out.add_argument("--expire-after", metavar="TIME", type=duration, help="when mail is given up (default: 120h)")


def _local(text: str) -> tuple[str, str]:
    domain, equals, folder = text.partition("=")
    if not equals or not folder:
        raise argparse.ArgumentTypeError(f"{text!r} is no domain and folder: write example.org=DIR")
    return _domain(domain), folder


def _via(text: str) -> tuple[str, str]:
    domain, equals, url = text.partition("=")
    if not equals or not url:
        raise argparse.ArgumentTypeError(f"{text!r} is no domain and URL: write example.org=lmtp://127.0.0.1")
    return _domain(domain), url


def _domain(text: str) -> str:
    from asyncnet.smtp.address import parse_domain

    try:
        return parse_domain(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(f"{text!r}: {exc}") from None


def make_handler(args: argparse.Namespace) -> SMTPHandler:
    """The handler for these options. Raises ConfigurationError."""
    _check(args)
    from asyncnet.smtp.delivery import Role
    from asyncnet.smtp.limits import SMTPLimits

    users = None
    if args.users is not None:
        from asyncnet.auth import UserFile

        users = UserFile(args.users)
    options: dict[str, Any] = {
        "role": Role(args.role),
        "hostname": args.hostname,
        "users": users,
        "tls": begun_tls(args, "smtp"),
        "tls_required": args.require_tls,
        "insecure_auth": args.insecure_auth,
        "normalise_from": args.normalise_from,
        "limits": SMTPLimits() if args.max_size is None else SMTPLimits(message=args.max_size),
    }
    if args.discard:
        from asyncnet.smtp.discard import Discard
        from asyncnet.smtp.server import SMTPHandler

        return SMTPHandler(Discard(), **options)
    return _relaying(args, users, options)


def _relaying(args: argparse.Namespace, users: UserFile | None, options: dict[str, Any]) -> SMTPHandler:
    from asyncnet.cli.smtp_relay import RelayingHandler

    _check_hostname(args)
    local = {domain: _mailboxes(folder, users, args.quota) for domain, folder in args.local}
    relay = _relay(args, local)
    return RelayingHandler(relay, _guarded(args, relay, local), **options)


def _check(args: argparse.Namespace) -> None:
    """Refuse what takes no mail, and options that would do nothing."""
    if args.discard == (args.spool is not None):
        raise ConfigurationError("where the mail goes is said by --spool DIR (a relay's queue) or --discard, not both")
    rules = (args.trust, args.aliases, args.check_senders, args.messages_per_hour)
    if args.discard and any((args.local, args.relay_to, args.relay_domain, *rules)):
        raise ConfigurationError("--discard keeps nothing: --local, --relay-to and their kin go with --spool")
    if args.spool is not None and not (args.local or args.relay_domain or args.users or args.trust):
        raise ConfigurationError(
            "nobody could send anything: --local DOMAIN=DIR takes mail for a domain, --users FILE and --trust NET say "
            "who may send to others"
        )
    if args.role == "submission" and args.users is None:
        raise ConfigurationError("--role submission takes mail from users who log in: it goes with --users FILE")
    if args.retry_after == math.inf:
        raise ConfigurationError("--retry-after off: what has failed once would wait for ever")
    if args.require_tls and args.cert is None and not all(parse(text).tls for text in args.endpoints):
        raise ConfigurationError("--require-tls needs --cert FILE: no client could do as it is told")
    for name in ("insecure_auth", "check_senders"):
        if getattr(args, name) and args.users is None:
            raise ConfigurationError(f"--{name.replace('_', '-')} goes with --users")
    if args.quota is not None and not args.local:
        raise ConfigurationError("--quota goes with --local")
    if args.relay_ca is not None and args.relay_to is None and not args.relay_domain:
        raise ConfigurationError("--relay-ca goes with --relay-to or --relay-domain")
    domains = [domain for domain, _ in (*args.local, *args.relay_domain)]
    for domain in domains:
        if domains.count(domain) > 1:
            raise ConfigurationError(f"the mail of {domain} goes to one place: --local or --relay-domain name it twice")
    for domain, folder in args.local:
        if not os.path.isdir(folder):
            raise ConfigurationError(f"--local {domain}={folder}: there is no such folder")


def _mailboxes(folder: str, users: UserFile | None, quota: int | None) -> Mailboxes:
    from asyncnet.cli.smtp_relay import UsersMailboxes
    from asyncnet.mailbox.local_parts import LocalParts

    return LocalParts(UsersMailboxes(folder, users, quota))


def _relay(args: argparse.Namespace, local: dict[str, Mailboxes]) -> Relay:
    from asyncnet.relay.retry import RetryPolicy
    from asyncnet.relay.runner import Relay

    usual = RetryPolicy()
    retry = RetryPolicy(
        first=args.retry_after or usual.first,
        longest=max(args.retry_after or 0, usual.longest),
        warning=args.warn_after or usual.warning,
        expiry=args.expire_after or usual.expiry,
    )
    return Relay(args.spool, _routes(args, local), host=_hostname(args), retry=retry)


def _hostname(args: argparse.Namespace) -> str:
    from asyncnet.smtp.server import own_hostname

    return own_hostname(args.hostname)


def _check_hostname(args: argparse.Namespace) -> None:
    """Say so where most exchangers would not listen to us."""
    name = _hostname(args)
    if args.hostname is None and args.relay_to is None and "." not in name:
        logger.warning("this host calls itself %s: others refuse mail from a name without a domain: --hostname", name)


def _routes(args: argparse.Namespace, local: dict[str, Mailboxes]) -> Routes:
    from asyncnet.relay.routes import Routes
    from asyncnet.relay.routing import Router
    from asyncnet.smtp.url import parse_url

    manners, host_manners = _manners(args)
    via = {domain: _with_password(parse_url(url)) for domain, url in args.relay_domain}
    default = None if args.relay_to is None else _with_password(parse_url(args.relay_to))
    for url in (*via.values(), *([default] if default else ())):
        _check_way(url, host_manners)
    return Routes(
        local=local,
        via=via,
        default=default,
        router=Router(_resolver(args), ourselves=_ourselves(args)),
        manners=manners,
        host_manners=host_manners,
    )


def _with_password(url: SMTPURL) -> SMTPURL:
    """The password is the netrc file's where the URL has none: everybody on the machine can read a command line. A
    server asks nobody."""
    from dataclasses import replace

    from asyncnet.cli.logins import netrc_password

    if url.user is None or url.password is not None:
        return url
    password = netrc_password(url.user, url.host)
    if password is None:
        raise ConfigurationError(f"{url}: the password is missing: write it into ~/.netrc, for this host and this user")
    return replace(url, password=password)


def _check_way(url: SMTPURL, manners: Manners) -> None:
    """Refuse what no message could ever go by."""
    from asyncnet.smtp.client import check_way

    try:
        check_way(url, starttls=None if url.scheme == "smtps" else manners.starttls, tls=manners.tls)
    except LocalProtocolError as exc:
        raise ConfigurationError(f"no mail could go to {url}: {exc}") from exc


def _manners(args: argparse.Namespace) -> tuple[Manners, Manners]:
    """Towards hosts that the DNS names, and towards those of the administrator's."""
    from dataclasses import replace

    from asyncnet.relay.smtp_target import Manners
    from asyncnet.smtp.client import StartTLS

    manners = Manners(name=args.hostname, starttls=None if args.tls_out is None else StartTLS(args.tls_out))
    if args.relay_ca is None:
        return manners, manners
    from asyncnet.transports.certificates import client_context

    return manners, replace(manners, tls=client_context(Endpoint(Scheme.TCP, tls=True, ca=args.relay_ca)))


def _ourselves(args: argparse.Namespace) -> Ourselves:
    """Known by our name, and by the addresses where we listen at the port of exchangers: at another port of the same
    machine the mail may be somebody else's."""
    from asyncnet.relay.routing import SMTP_PORT, Ourselves

    addresses, everywhere = list[str](), False
    for endpoint in map(parse, args.endpoints):
        if endpoint.scheme is Scheme.TCP and endpoint.port == SMTP_PORT:
            address = _numeric(endpoint.host)
            if address is None:
                everywhere = True
            else:
                addresses.append(address)
        elif endpoint.scheme in (Scheme.FD, Scheme.SYSTEMD):
            everywhere = True  # its port may be that one
    return Ourselves([_hostname(args)], addresses, everywhere=everywhere)


def _numeric(host: str) -> str | None:
    """The address of one interface; None for a name, and for all of them."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return None if address.is_unspecified else str(address)


def _resolver(args: argparse.Namespace) -> DNSResolver:
    from asyncnet.relay.dns import DNSResolver

    if args.name_server is None:
        return DNSResolver()
    host, port = _host_and_port(args.name_server)
    return DNSResolver([host], port=port)


def _host_and_port(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":") if text.count(":") == 1 or text.startswith("[") else (text, "", "")
    try:
        return str(ip_address(host.strip("[]"))), int(port) if colon and port else 53
    except ValueError:
        raise ConfigurationError(
            f"--name-server is an address, such as 192.0.2.1 or 127.0.0.1:5353, not {text}"
        ) from None


def _guarded(args: argparse.Namespace, relay: Relay, local: dict[str, Mailboxes]) -> Delivery:
    """The rules that stand in front of the relay."""
    from asyncnet.cli.smtp_aliases import AliasFile
    from asyncnet.smtp.address import MailAddress, ascii_domain
    from asyncnet.smtp.delivery import Refused
    from asyncnet.smtp.policies import (
        Guarded,
        KnownRecipients,
        NoOpenRelay,
        Postmaster,
        QualifiedDomains,
        RateLimit,
        SendersOfUsers,
    )

    ours = [*local, *(domain for domain, _ in args.relay_domain)]
    boxes = {ascii_domain(domain): found for domain, found in local.items()}

    async def is_known(address: MailAddress) -> bool:
        try:
            await boxes[address.ascii_domain].of(address.local)
        except LookupError:
            return False
        except OSError as exc:
            logger.error("the mailbox of %s cannot be opened: %s", printable(str(address)), exc)
            raise Refused(451, "4.3.0", "The mailbox cannot be opened: please come again.") from exc
        return True

    rules: list[Rule] = []
    if args.messages_per_hour is not None:
        rules.append(RateLimit(messages=args.messages_per_hour))
    if ours:
        rules.append(Postmaster(ours[0]))
    rules.append(NoOpenRelay(ours, trusted=args.trust))
    if args.role == "submission":
        rules.append(QualifiedDomains(domains=ours))
    if args.check_senders:
        rules.append(SendersOfUsers())
    if args.aliases is not None:
        rules.append(AliasFile(args.aliases, known=is_known))
    rules.append(KnownRecipients(is_known, domains=local))
    return Guarded(relay, *rules)

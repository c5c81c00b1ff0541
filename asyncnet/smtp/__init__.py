"""Mail: a server that receives it (RFC 5321, and LMTP, RFC 2033) and a client that sends it.

A server is `SMTPHandler(delivery, …)`, which hands what comes to a `Delivery`. A client is
`async with SMTPClient.connect(url) as smtp`. What keeps mail and passes it on is in `asyncnet.relay`, where it lies at
last in `asyncnet.mailbox`.

The names are imported when they are first asked for, so that a client loads no server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncnet.smtp.address import MailAddress as MailAddress
    from asyncnet.smtp.client import MessageRefused as MessageRefused
    from asyncnet.smtp.client import NotSupported as NotSupported
    from asyncnet.smtp.client import Outcome as Outcome
    from asyncnet.smtp.client import OutcomeUnknown as OutcomeUnknown
    from asyncnet.smtp.client import PermanentReplyError as PermanentReplyError
    from asyncnet.smtp.client import ReplyError as ReplyError
    from asyncnet.smtp.client import Sent as Sent
    from asyncnet.smtp.client import ServiceClosing as ServiceClosing
    from asyncnet.smtp.client import SMTPClient as SMTPClient
    from asyncnet.smtp.client import StartTLS as StartTLS
    from asyncnet.smtp.client import TransientReplyError as TransientReplyError
    from asyncnet.smtp.client import URLError as URLError
    from asyncnet.smtp.client_limits import SMTPClientTimeouts as SMTPClientTimeouts
    from asyncnet.smtp.delivery import Client as Client
    from asyncnet.smtp.delivery import CommitsEach as CommitsEach
    from asyncnet.smtp.delivery import Delivery as Delivery
    from asyncnet.smtp.delivery import Refused as Refused
    from asyncnet.smtp.delivery import Role as Role
    from asyncnet.smtp.delivery import Transaction as Transaction
    from asyncnet.smtp.discard import Discard as Discard
    from asyncnet.smtp.envelope import Body as Body
    from asyncnet.smtp.envelope import Envelope as Envelope
    from asyncnet.smtp.envelope import Notify as Notify
    from asyncnet.smtp.envelope import Recipient as Recipient
    from asyncnet.smtp.envelope import Returned as Returned
    from asyncnet.smtp.extensions import Extensions as Extensions
    from asyncnet.smtp.inbox import Inbox as Inbox
    from asyncnet.smtp.inbox import Message as Message
    from asyncnet.smtp.limits import SMTPLimits as SMTPLimits
    from asyncnet.smtp.limits import SMTPTimeouts as SMTPTimeouts
    from asyncnet.smtp.policies import Aliases as Aliases
    from asyncnet.smtp.policies import Guarded as Guarded
    from asyncnet.smtp.policies import KnownRecipients as KnownRecipients
    from asyncnet.smtp.policies import NoOpenRelay as NoOpenRelay
    from asyncnet.smtp.policies import Postmaster as Postmaster
    from asyncnet.smtp.policies import QualifiedDomains as QualifiedDomains
    from asyncnet.smtp.policies import RateLimit as RateLimit
    from asyncnet.smtp.policies import Rule as Rule
    from asyncnet.smtp.policies import SendersOfUsers as SendersOfUsers
    from asyncnet.smtp.server import SMTPHandler as SMTPHandler
    from asyncnet.smtp.url import SMTPURL as SMTPURL
else:
    from asyncnet.lazy import lazy_names

    __all__, __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "address": ("MailAddress",),
            "client": (
                "MessageRefused",
                "NotSupported",
                "Outcome",
                "OutcomeUnknown",
                "PermanentReplyError",
                "ReplyError",
                "SMTPClient",
                "Sent",
                "ServiceClosing",
                "StartTLS",
                "TransientReplyError",
                "URLError",
            ),
            "client_limits": ("SMTPClientTimeouts",),
            "delivery": ("Client", "CommitsEach", "Delivery", "Refused", "Role", "Transaction"),
            "discard": ("Discard",),
            "envelope": ("Body", "Envelope", "Notify", "Recipient", "Returned"),
            "extensions": ("Extensions",),
            "inbox": ("Inbox", "Message"),
            "limits": ("SMTPLimits", "SMTPTimeouts"),
            "policies": (
                "Aliases",
                "Guarded",
                "KnownRecipients",
                "NoOpenRelay",
                "Postmaster",
                "QualifiedDomains",
                "RateLimit",
                "Rule",
                "SendersOfUsers",
            ),
            "server": ("SMTPHandler",),
            "url": ("SMTPURL",),
        },
    )

"""The rules in front of a delivery: nobody relays who may not, recipients are who they are, mail comes at its rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from asyncnet.auth.identity import Identity
from asyncnet.smtp.address import MailAddress
from asyncnet.smtp.delivery import Client, CommitsEach, Refused, Role
from asyncnet.smtp.envelope import Envelope, Notify, Recipient
from asyncnet.smtp.policies import (
    Aliases,
    Guarded,
    KnownRecipients,
    NoOpenRelay,
    Postmaster,
    QualifiedDomains,
    RateLimit,
    Rule,
    SendersOfUsers,
)
from asyncnet.transports.address import NOWHERE, Address
from tests.smtp.recorder import Recorder, Users, connected

ANYBODY = Client(Address("203.0.113.9", 1), "client.example")
ANNA = Client(Address("203.0.113.9", 1), "client.example", identity=Identity("anna"))
NOTHING = Envelope(None)


async def allowed(rule: Rule, address: str, client: Client = ANYBODY) -> bool:
    recipient = Recipient(MailAddress.parse(address) if "@" in address else MailAddress(address, ""))
    try:
        return await rule.recipient(recipient, NOTHING, client) == (recipient,)
    except Refused as refusal:
        return not refusal.is_permanent


class TestNoOpenRelay:
    RULE = NoOpenRelay(["Example.org", "bücher.example", "[192.0.2.1]"], trusted=["198.51.100.0/24"])

    @pytest.mark.parametrize(
        "address",
        [
            *("anna@example.org", "anna@EXAMPLE.ORG", '"an na"@example.org', "postmaster", "anna@bücher.example"),
            *("anna@xn--bcher-kva.example", "anna@[192.0.2.1]", "anna+lists@example.org"),
        ],
    )
    async def test_mail_for_us_is_taken_from_everybody(self, address: str) -> None:
        assert await allowed(self.RULE, address)

    @pytest.mark.parametrize(
        "address",
        [
            "victim@elsewhere.example",
            "victim@sub.example.org",
            "victim@example.org.elsewhere.example",
            "victim@notexample.org",
            "victim@[198.51.100.1]",
            '"victim@example.org"@elsewhere.example',
            # routes of old, which whoever is behind us may still follow
            "victim%elsewhere.example@example.org",
            '"victim@elsewhere.example"@example.org',
            "elsewhere.example!victim@example.org",
            '"victim%elsewhere.example"@example.org',
            r'"victim\@elsewhere.example"@example.org',
            '"@elsewhere.example:victim"@example.org',
            '"victim%elsewhere.example@"@[192.0.2.1]',
        ],
    )
    async def test_nobody_slips_past(self, address: str) -> None:
        assert not await allowed(self.RULE, address)

    async def test_users_and_trusted_networks_send_to_everybody(self) -> None:
        assert await allowed(self.RULE, "carl@elsewhere.example", ANNA)
        assert await allowed(self.RULE, "carl@elsewhere.example", Client(Address("198.51.100.7", 1), "a"))
        assert not await allowed(self.RULE, "carl@elsewhere.example", Client(Address("198.51.101.7", 1), "a"))
        assert not await allowed(self.RULE, "carl@elsewhere.example", Client(Address(path="/run/x", uid=0), "a"))

    async def test_where_no_domain_is_ours_there_is_no_postmaster(self) -> None:
        rule = NoOpenRelay([])
        assert not await allowed(rule, "postmaster")
        assert await allowed(rule, "postmaster", ANNA)

    async def test_nobody_is_trusted_unless_that_was_said(self) -> None:
        for peer in (Address("127.0.0.1", 1), Address("::1", 1), NOWHERE):
            assert not await allowed(NoOpenRelay(["example.org"]), "carl@elsewhere.example", Client(peer, "a"))

    @pytest.mark.parametrize(
        "path",
        [
            "<@example.org:victim@elsewhere.example>",
            "<@example.org,@elsewhere.example:victim@elsewhere.example>",
            "<victim%elsewhere.example@example.org>",
            '<"victim@elsewhere.example"@example.org>',
            "<victim@elsewhere.example@example.org>",
            "<victim@elsewhere.example> <anna@example.org>",
            "<victim@elsewhere.example\0@example.org>",
            "<elsewhere.example!victim@example.org>",
            "<@elsewhere.example:victim%elsewhere.example@example.org>",
        ],
    )
    async def test_no_path_in_rcpt_slips_past_either(self, path: str, autojump_clock: MockClock) -> None:
        recorder = Recorder()
        async with connected(Guarded(recorder, self.RULE)) as peer:
            await peer.expect("250", "MAIL FROM:<anna@example.org>")  # that the sender is ours means nothing
            assert (await peer.do(f"RCPT TO:{path}")).is_permanent_failure
            await peer.expect("503", "DATA")
        assert recorder.taken[0].recipients == []

    async def test_a_source_route_to_us_is_ignored(self, autojump_clock: MockClock) -> None:
        recorder = Recorder()
        async with connected(Guarded(recorder, self.RULE)) as peer:
            await peer.expect("250", "MAIL FROM:<>")
            await peer.expect("250", "RCPT TO:<@elsewhere.example:anna@example.org>")
        assert recorder.taken[0].recipients == [Recipient(MailAddress("anna", "example.org"))]

    def test_domains_and_targets_are_lists(self) -> None:
        with pytest.raises(TypeError, match="not one string"):
            NoOpenRelay("example.org")
        with pytest.raises(TypeError, match="not one string"):
            Aliases({"a@example.org": "b@example.org"})


class TestRecipients:
    async def test_only_who_is_known_gets_mail(self) -> None:
        rule = KnownRecipients(["anna@example.org", "Carl@Example.org"])
        for address, known in {
            "anna@example.org": True,
            '"anna"@example.org': True,
            "ANNA@example.org": True,
            "carl@example.org": True,
            "anna@example.net": False,
            "bert@example.org": False,
            "postmaster": True,
            "Postmaster@example.org": True,
        }.items():
            assert await allowed(rule, address) == known, address

    async def test_a_coroutine_may_know(self) -> None:
        asked = []

        async def ask(address: MailAddress) -> bool:
            asked.append(str(address))
            return address.local == "anna"

        rule = KnownRecipients(ask, domains=["example.org"])
        assert await allowed(rule, "anna@example.org")
        assert not await allowed(rule, "bert@example.org")
        assert await allowed(rule, "bert@elsewhere.example")
        assert asked == ["anna@example.org", "bert@example.org"]


async def test_postmaster_alone_is_the_one_of_a_domain(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    rules = Postmaster("Example.org"), Aliases({"postmaster@example.org": ["anna@example.org"]})
    async with connected(Guarded(recorder, *rules)) as peer:
        await peer.begin("POSTMASTER", "carl@example.net")
    assert [str(one.address) for one in recorder.taken[0].recipients] == ["anna@example.org", "carl@example.net"]


class TestAliases:
    @pytest.mark.parametrize(
        ("address", "found"),
        [
            ("info@example.org", ["anna@example.org", "carl@example.net"]),
            ("INFO@example.org", ["anna@example.org", "carl@example.net"]),
            ("all@example.org", ["anna@example.org", "carl@example.net", "bert@example.org"]),
            ("anna@example.org", ["anna@example.org"]),
            ("anna+lists@example.org", ["anna@example.org"]),
            ("info+x@example.org", ["anna@example.org", "carl@example.net"]),
            ("self@example.org", ["self@example.org", "anna@example.org"]),
            ("nobody@example.org", []),
            ("who@caught.example", ["anna@example.org"]),
            ("who+x@caught.example", ["anna@example.org"]),
            ("known@caught.example", ["known@caught.example"]),
            ("known+x@caught.example", ["known@caught.example"]),
            ("+x@example.org", ["+x@example.org"]),
            ("who@example.net", ["who@example.net"]),
            ("postmaster", ["postmaster"]),
        ],
    )
    async def test_they_lead_to_mailboxes(self, address: str, found: list[str]) -> None:
        rule = Aliases(
            {
                "info@example.org": ["anna@example.org", "carl@example.net"],
                "all@example.org": ["info@example.org", "bert@example.org", "anna@example.org"],
                "self@example.org": ["self@example.org", "anna@example.org"],
                "nobody@example.org": [],
                "@caught.example": ["anna@example.org"],
            },
            known=["known@caught.example"],
            separator="+",
        )
        recipient = Recipient(
            MailAddress.parse(address) if "@" in address else MailAddress(address, ""), original="rfc822;x@y"
        )
        result = await rule.recipient(recipient, NOTHING, ANYBODY)
        assert [str(one.address) for one in result] == found
        assert {one.original for one in result} <= {"rfc822;x@y"}

    @pytest.mark.parametrize(
        ("wished", "of_others"),
        [
            (set(), set()),
            ({Notify.NEVER}, {Notify.NEVER}),
            ({Notify.FAILURE, Notify.DELAY}, {Notify.FAILURE, Notify.DELAY}),
            ({Notify.SUCCESS, Notify.FAILURE}, {Notify.FAILURE}),
            ({Notify.SUCCESS}, {Notify.NEVER}),
        ],
    )
    async def test_success_is_told_once(self, wished: set[Notify], of_others: set[Notify]) -> None:
        rule = Aliases({"all@example.org": [f"{name}@example.org" for name in ("anna", "bert", "carl")]})
        recipient = Recipient(MailAddress("all", "example.org"), frozenset(wished))
        found = await rule.recipient(recipient, NOTHING, ANYBODY)
        assert [one.notify for one in found] == [wished, of_others, of_others]
        recipient = Recipient(MailAddress("anna", "example.org"), frozenset(wished))
        assert await rule.recipient(recipient, NOTHING, ANYBODY) == [recipient]

    def test_those_that_go_in_circles_are_refused(self) -> None:
        with pytest.raises(ValueError, match=r"alias [ab]@example\.org leads back to itself"):
            Aliases({"a@example.org": ["b@example.org"], "b@example.org": ["a@example.org"]})

    async def test_each_address_is_followed_once(self) -> None:
        asked = []

        async def known(address: MailAddress) -> bool:
            asked.append(str(address))
            return True

        aliases = {"@example.org": ["a0@example.org"]}
        for number in range(10):  # which has a thousand ways to each of the last two
            targets = [f"a{number + 1}@example.org", f"b{number + 1}@example.org"]
            aliases |= {f"a{number}@example.org": targets, f"b{number}@example.org": targets}
        recipient = Recipient(MailAddress("a0", "example.org"))
        found = await Aliases(aliases, known=known).recipient(recipient, NOTHING, ANYBODY)
        assert [str(one.address) for one in found] == ["a10@example.org", "b10@example.org"]
        assert asked == ["a10@example.org", "b10@example.org"]

    async def test_a_way_may_be_long(self) -> None:
        rule = Aliases({f"a{number}@example.org": [f"a{number + 1}@example.org"] for number in range(5000)})
        [found] = await rule.recipient(Recipient(MailAddress("a0", "example.org")), NOTHING, ANYBODY)
        assert str(found.address) == "a5000@example.org"

    @pytest.mark.parametrize(
        ("address", "found"),
        [
            ("who@example.org", ["anna@example.net", "carl@example.net"]),  # by way of an alias
            ("who@caught.example", ["who@caught.example"]),
            ("gone@caught.example", ["gone@caught.example"]),
            ("list@caught.example", ["list@caught.example"]),
            ("detail@example.org", ["detail@example.org"]),
            ("detail+x@example.org", ["detail+x@example.org"]),
        ],
    )
    async def test_one_that_leads_to_nobody_but_itself_is_itself(self, address: str, found: list[str]) -> None:
        rule = Aliases(
            {
                "@example.org": ["info@example.org"],
                "info@example.org": ["anna@example.net", "carl@example.net"],
                "@caught.example": ["list@caught.example"],
                "list@caught.example": ["gone@caught.example"],
                "detail@example.org": ["detail+x@example.org"],
            },
            separator="+",
        )
        result = await rule.recipient(Recipient(MailAddress.parse(address)), NOTHING, ANYBODY)
        assert [str(one.address) for one in result] == found

    @pytest.mark.parametrize("aliases", [{"a": ["b@example.org"]}, {"a@example.org": ["b"]}, {"@": ["b@example.org"]}])
    def test_addresses_that_are_none_are_refused(self, aliases: Mapping[str, list[str]]) -> None:
        with pytest.raises(ValueError, match=r"address|domain"):
            Aliases(aliases)

    async def test_a_mailbox_gets_one_copy(self, autojump_clock: MockClock) -> None:
        recorder = Recorder()
        rule = Aliases({"info@example.org": ["anna@example.org", "carl@example.org"]})
        async with connected(Guarded(recorder, rule)) as peer:
            await peer.send(b"A: b\r\n", "anna@example.org", "info@example.org")
        assert [one.address.local for one in recorder.taken[0].recipients] == ["anna", "carl"]

    @pytest.mark.parametrize("each", [True, False])
    async def test_what_is_for_nobody_is_thrown_away(self, each: bool, autojump_clock: MockClock) -> None:
        recorder = Recorder(each=each)
        delivery = Guarded(recorder, Aliases({"nobody@example.org": []}))
        async with connected(delivery, role=Role.LMTP, hello="LHLO a.example") as peer:
            assert (await peer.send(b"A: b\r\n", "nobody@example.org")).code == 250
        assert recorder.ends == [["abort"]]


class TestGuarded:
    async def test_outcomes_are_those_of_who_gets_it(self, autojump_clock: MockClock) -> None:
        recorder = Recorder(each=True)
        rule = Aliases({"info@example.org": ["anna@example.org", "full@example.org"]})
        async with connected(Guarded(recorder, rule), role=Role.LMTP, hello="LHLO a.example") as peer:
            await peer.begin("anna@example.org", "info@example.org", "carl@example.org")
            await peer.expect("354", "DATA")
            await peer.scripted.send(b"A: b\r\n.\r\n")
            assert [(await peer.reply()).code for _ in range(3)] == [250, 452, 250]

    async def test_it_offers_what_its_delivery_offers(self) -> None:
        for each in (True, False):
            transaction = await Guarded(Recorder(each=each)).start(NOTHING, ANYBODY)
            assert isinstance(transaction, CommitsEach) == each

    async def test_a_message_that_is_given_up_is_given_up_behind_it(self, autojump_clock: MockClock) -> None:
        recorder = Recorder()
        async with connected(Guarded(recorder)) as peer:
            await peer.begin()
            await peer.expect("250", "RSET")
        assert recorder.ends == [["abort"]]


class TestDomains:
    RULE = QualifiedDomains(domains=["localhost"])

    @pytest.mark.parametrize(
        ("address", "is_qualified"),
        [
            *(("carl@example.org", True), ("carl@localhost", True), ("carl@LOCALHOST", True), ("postmaster", True)),
            *(("carl@[192.0.2.1]", True), ("carl@[IPv6:2001:db8::1]", True), ("carl@bücher\u3002example", True)),
            *(("carl@sales", False), ("carl@bücher", False), ("postmaster@sales", False), ('"a.b@c.d"@sales', False)),
        ],
    )
    async def test_they_have_a_dot_or_are_known(self, address: str, is_qualified: bool) -> None:
        assert await allowed(self.RULE, address) == is_qualified

    async def test_the_server_says_so_by_554(self, autojump_clock: MockClock) -> None:
        async with connected(Guarded(Recorder(), self.RULE), role=Role.SUBMISSION) as peer:
            await peer.expect("554 5.1.8", "MAIL FROM:<anna@sales>")
            await peer.expect("250 2.1.0", "MAIL FROM:<>")
            await peer.expect("554 5.1.2", "RCPT TO:<carl@sales>")
            await peer.expect("250 2.1.5", "RCPT TO:<postmaster>")


class TestSenders:
    @pytest.mark.parametrize(
        ("name", "settings", "sender", "is_theirs"),
        [
            ("anna@example.org", {}, "anna@example.org", True),
            ("anna@example.org", {}, "Anna@EXAMPLE.org", True),
            ("anna@example.org", {}, "bert@example.org", False),
            ("anna", {}, "anna@example.org", False),
            ("anna", {"addresses": ["anna@example.org", "@anna.example"]}, "anna@example.org", True),
            ("anna", {"addresses": ["anna@example.org", "@anna.example"]}, "who@anna.example", True),
            ("anna", {"addresses": ["anna@example.org", "@anna.example"]}, "who@sub.anna.example", False),
            ("anna", {"addresses": "anna@example.org"}, "anna@example.org", True),
            ("anna", {"addresses": []}, "anna@example.org", False),
        ],
    )
    async def test_users_send_in_their_own_name(
        self, name: str, settings: dict[str, Any], sender: str, is_theirs: bool
    ) -> None:
        client = Client(NOWHERE, "a", identity=Identity(name, settings))
        envelope = Envelope(MailAddress.parse(sender))
        if is_theirs:
            assert await SendersOfUsers().sender(envelope, client) is envelope
        else:
            with pytest.raises(Refused, match=r"553 5\.7\.1"):
                await SendersOfUsers().sender(envelope, client)
        assert await SendersOfUsers().sender(NOTHING, client) is NOTHING
        assert await SendersOfUsers().sender(envelope, ANYBODY) is envelope

    @pytest.mark.parametrize("addresses", [5, [5], ["anna", "b c@example.org"], True])
    async def test_what_is_no_list_of_addresses_is_told_in_a_line(
        self, addresses: object, caplog: pytest.LogCaptureFixture
    ) -> None:
        client = Client(NOWHERE, "a", identity=Identity("anna", {"addresses": addresses}))
        with pytest.raises(Refused, match=r"451 4\.3\.0"):
            await SendersOfUsers().sender(Envelope(MailAddress.parse("anna@example.org")), client)
        (message,) = caplog.messages
        assert message.startswith('user anna: write addresses = ["anna@example.org", "@example.net"] (')

    async def test_the_server_says_so(self, autojump_clock: MockClock) -> None:
        async with connected(
            Guarded(Recorder(), SendersOfUsers()),
            users=Users("anna", addresses=["anna@example.org"]),
            insecure_auth=True,
        ) as peer:
            await peer.expect("235", "AUTH PLAIN AGFubmEAYW5uYQ==")
            await peer.expect("553 5.7.1", "MAIL FROM:<boss@example.org>")
            await peer.expect("250 2.1.0", "MAIL FROM:<anna@example.org>")


class TestRates:
    @staticmethod
    async def count(rule: RateLimit, client: Client, tries: int) -> int:
        taken = 0
        for _ in range(tries):
            try:
                await rule.sender(NOTHING, client)
                taken += 1
            except Refused as refusal:
                if refusal.enhanced != "4.7.1":
                    raise
        return taken

    async def test_a_client_has_so_many_messages_an_hour(self, autojump_clock: MockClock) -> None:
        rule = RateLimit(messages=60, burst=5)
        assert await self.count(rule, ANYBODY, 10) == 5
        await trio.sleep(60)
        assert await self.count(rule, ANYBODY, 10) == 1
        await trio.sleep(36000)
        assert await self.count(rule, ANYBODY, 10) == 5

    async def test_each_client_and_each_user_counts_for_itself(self, autojump_clock: MockClock) -> None:
        rule = RateLimit(messages=3)
        near = Client(Address("2001:db8::1", 1), "a"), Client(Address("2001:db8::2", 1), "a")
        far = Client(Address("2001:db8:1::1", 1), "a")
        assert [await self.count(rule, client, 2) for client in (*near, far)] == [2, 1, 2]
        assert await self.count(rule, ANYBODY, 5) == 3
        assert await self.count(rule, ANNA, 5) == 3
        assert await self.count(rule, Client(Address("198.51.100.1", 1), "a", identity=Identity("anna")), 5) == 0
        assert await self.count(rule, Client(Address(path=""), "a"), 5) == 5

    async def test_recipients_have_a_rate_of_their_own(self, autojump_clock: MockClock) -> None:
        recorder = Recorder()
        async with connected(Guarded(recorder, RateLimit(recipients=2))) as peer:
            await peer.begin("a@example.org", "b@example.org")
            await peer.expect("451 4.7.1", "RCPT TO:<c@example.org>")

    async def test_only_so_many_are_remembered(self, autojump_clock: MockClock) -> None:
        rule = RateLimit(messages=1, most=2)
        clients = [Client(Address(f"192.0.2.{number}", 1), "a") for number in range(3)]
        assert [await self.count(rule, client, 2) for client in clients] == [1, 1, 1]
        assert await self.count(rule, clients[2], 1) == 0
        assert await self.count(rule, clients[0], 1) == 1  # it was forgotten

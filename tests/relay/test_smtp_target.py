"""Handing mail over to other hosts, as those hosts see it: good ones, strange ones, and none."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import trio

from asyncnet import serve
from asyncnet.relay.messages import DamagedContent
from asyncnet.relay.routing import Exchanger, NoRoute, Router
from asyncnet.relay.smtp_target import MOST_ASKED, Door, Manners, SMTPTarget, to_domain, to_host
from asyncnet.relay.targets import Courier, Parcel, Unreachable, Verdict
from asyncnet.smtp.address import IPAddress, MailAddress
from asyncnet.smtp.client import StartTLS, parse_url
from asyncnet.smtp.client_limits import SMTPClientTimeouts
from asyncnet.smtp.envelope import Body, Envelope, Recipient
from asyncnet.stream import Stream
from tests.relay.use import to

MESSAGE = b"Subject: hello\r\n\r\nhow are you?\r\n.\r\n"
ANNA = Envelope(MailAddress("anna", "example.org"))
PLAIN = Manners(name="mail.example.net", starttls=StartTLS.NEVER)


def parcel(*recipients: str, content: bytes = MESSAGE, envelope: Envelope = ANNA, piece: int = 1 << 16) -> Parcel:
    async def read() -> AsyncGenerator[bytes, None]:
        for start in range(0, len(content), piece):
            await trio.lowlevel.checkpoint()
            yield content[start : start + piece]

    return Parcel(envelope, tuple(to(*(recipients or ("carl@example.com",)))), len(content), read)


@dataclass
class Host:
    """A server that answers each command with what a test has set for it; "" closes the connection."""

    replies: dict[str, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    messages: list[bytes] = field(default_factory=list)
    connections: int = 0
    port: int = 0
    extensions: Sequence[str] = ("PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES", "DSN", "SIZE 100000000")

    def reply(self, line: str) -> str:
        found = self.replies.get(line) or self.replies.get(line.partition(" ")[0].upper())
        if found is not None or line in self.replies:
            return found or ""
        usual = {"DATA": "354 go on", "QUIT": "221 bye"}
        return usual.get(line.partition(" ")[0].upper(), "250 2.0.0 ok")

    async def __call__(self, bare: trio.abc.Stream) -> None:
        stream = Stream.of(bare)
        self.connections += 1
        await stream.send_all(self.replies.get("greeting", "220 mx.example.com").encode() + b"\r\n")
        while True:
            line = (await stream.receive_until(b"\r\n", limit=2000)).decode().rstrip()
            self.said.append(line)
            reply = self.reply(line)
            if line.startswith("EHLO ") and "EHLO" not in self.replies:
                lines = ["mx.example.com", *self.extensions]
                reply = "\r\n".join(f"250{'-' if each is not lines[-1] else ' '}{each}" for each in lines)
            if not reply:
                return
            await stream.send_all(reply.encode() + b"\r\n")
            if reply.startswith(("221", "421")):
                return
            if reply.startswith("354"):
                content = b""
                while not (content == b".\r\n" or content.endswith(b"\r\n.\r\n")):
                    content += await stream.receive_until(b"\r\n", limit=1 << 24)
                self.messages.append(content)
                end = self.replies.get("end", "250 2.0.0 taken")
                if not end:
                    return
                await stream.send_all(end.encode() + b"\r\n")


@asynccontextmanager
async def running(*hosts: Host) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        for host in hosts:
            service = await nursery.start(serve, host, "tcp://127.0.0.1:0")
            host.port = int(service.endpoints[0].rpartition(":")[2])
        yield
        nursery.cancel_scope.cancel()


def doors(*ports: int) -> SMTPTarget:
    async def find() -> Sequence[Door]:
        return [
            Door(parse_url(f"smtp://mx{number}.example.com:{port}"), "127.0.0.1") for number, port in enumerate(ports)
        ]

    return SMTPTarget(find, PLAIN)


@asynccontextmanager
async def courier(*hosts: Host) -> AsyncIterator[Courier]:
    async with running(*hosts):
        made = doors(*(host.port for host in hosts)).courier()
        yield made
        await made.aclose()


async def hand_over(made: Courier, parcel: Parcel) -> list[Verdict]:
    """What has become of it, for each recipient."""
    verdicts: dict[int, Verdict] = {}
    await made.hand_over(parcel, verdicts)
    return [verdicts[index] for index in range(len(parcel.recipients))]


async def refused(made: Courier) -> Unreachable:
    with pytest.raises(Unreachable) as caught:
        await hand_over(made, parcel())
    return caught.value


def codes(verdicts: Sequence[Verdict]) -> list[int]:
    return [verdict.reply.code for verdict in verdicts]


class TestConversations:
    @pytest.mark.parametrize("size", [10, 200_000])
    async def test_a_host_gets_what_was_sent(self, size: int) -> None:
        host, content = Host(), MESSAGE + b"x" * size + b"\r\n"
        async with courier(host) as made:
            (verdict,) = await hand_over(made, parcel(content=content))
        assert verdict.reply.code == 250
        assert verdict.host == "mx0.example.com"
        assert verdict.tells_success
        assert host.messages == [content.replace(b"\r\n.", b"\r\n..") + b".\r\n"]
        assert host.said[0] == "EHLO mail.example.net"
        assert "MAIL FROM:<anna@example.org>" in host.said[1]
        assert host.said[-1] == "QUIT"

    async def test_one_connection_serves_many_messages(self) -> None:
        host = Host()
        async with courier(host) as made:
            for _ in range(3):
                await hand_over(made, parcel())
        assert (host.connections, len(host.messages)) == (1, 3)

    async def test_each_recipient_has_a_verdict(self) -> None:
        host = Host({"RCPT TO:<b@x.example>": "550 5.1.1 nobody", "RCPT TO:<c@x.example>": "451 4.2.0 later"})
        async with courier(host) as made:
            verdicts = await hand_over(made, parcel("a@x.example", "b@x.example", "c@x.example"))
        assert codes(verdicts) == [250, 550, 451]

    async def test_those_beyond_what_a_host_takes_at_once_go_in_another_transaction(self) -> None:
        class Few(Host):
            def reply(self, line: str) -> str:
                if line.startswith("RCPT "):
                    transaction = " ".join(self.said).rpartition("MAIL FROM")[2]
                    if transaction.count("RCPT TO") > 2:
                        return "452 4.5.3 too many recipients"
                return super().reply(line)

        host = Few()
        async with courier(host) as made:
            verdicts = await hand_over(made, parcel(*(f"a{number}@x.example" for number in range(5))))
        assert codes(verdicts) == [250] * 5
        assert len(host.messages) == 3

    async def test_a_limit_that_a_host_tells_is_kept(self) -> None:
        host = Host(extensions=("PIPELINING", "LIMITS RCPTMAX=2"))
        async with courier(host) as made:
            verdicts = await hand_over(made, parcel(*(f"a{number}@x.example" for number in range(5))))
        assert codes(verdicts) == [250] * 5
        assert len(host.messages) == 3

    async def test_nor_are_there_more_domains_than_it_takes_at_once(self) -> None:
        host = Host(extensions=("PIPELINING", "LIMITS RCPTDOMAINMAX=2"))
        async with courier(host) as made:
            addresses = ("a@x.example", "b@y.example", "c@X.example", "d@z.example", "e@x.example", "f@y.example")
            verdicts = await hand_over(made, parcel(*addresses))
        assert codes(verdicts) == [250] * 6
        transactions = " ".join(host.said).split("MAIL FROM")[1:]
        assert [said.count("RCPT TO") for said in transactions] == [3, 2, 1]

    async def test_of_what_a_host_says_a_part_is_kept(self) -> None:
        long = "\r\n".join([*(f"550-5.1.1 {'x' * 500}" for _ in range(99)), "550 5.1.1 end"])
        async with courier(Host({"RCPT": long})) as made:
            (verdict,) = await hand_over(made, parcel())
        assert len(str(verdict.reply)) < 1100
        assert str(verdict.reply).startswith("550 5.1.1 xxx")

    async def test_a_host_that_takes_nobody_is_asked_once(self) -> None:
        host = Host({"RCPT": "452 4.5.3 too many recipients"})
        async with courier(host) as made:
            assert codes(await hand_over(made, parcel("a@x.example", "b@x.example"))) == [452, 452]
        assert sum(line.startswith("MAIL") for line in host.said) == 1

    async def test_what_a_host_has_taken_stays_taken_though_it_then_leaves(self) -> None:
        class Leaving(Host):
            def reply(self, line: str) -> str:
                if line == "RCPT TO:<b@x.example>":
                    self.replies["greeting"] = "554 5.7.1 no more"
                    return "452 4.5.3 too many recipients"
                return "" if line.startswith("MAIL") and self.messages else super().reply(line)

        host = Leaving()
        async with courier(host) as made:
            verdicts = await hand_over(made, parcel("a@x.example", "b@x.example"))
        assert codes(verdicts) == [250, 452]
        assert len(host.messages) == 1

    async def test_and_though_the_content_is_damaged_before_the_others_have_it(self) -> None:
        reads = 0

        async def read() -> AsyncGenerator[bytes, None]:
            nonlocal reads
            reads += 1
            if reads == 2:
                raise DamagedContent("changed")
            yield MESSAGE

        host = Host(extensions=("PIPELINING", "LIMITS RCPTMAX=1"))
        verdicts: dict[int, Verdict] = {}
        async with courier(host) as made:
            with pytest.raises(DamagedContent):
                await made.hand_over(replace(parcel("a@x.example", "b@x.example"), read=read), verdicts)
        assert verdicts[0].reply.code == 250
        assert not verdicts[1].reply.is_success

    async def test_an_older_host_that_has_too_many_says_552(self) -> None:
        host = Host({"RCPT TO:<b@x.example>": "552 too many recipients", "RCPT TO:<c@x.example>": "552 5.2.2 full"})
        async with courier(host) as made:
            verdicts = await hand_over(made, parcel("a@x.example", "b@x.example", "c@x.example"))
        assert codes(verdicts) == [250, 452, 552]

    async def test_the_rest_goes_where_the_first_ones_were_refused(self) -> None:
        host = Host({"RCPT TO:<a0@x.example>": "550 5.1.1 nobody"}, extensions=("PIPELINING", "LIMITS RCPTMAX=1"))
        async with courier(host) as made:
            verdicts = await hand_over(made, parcel("a0@x.example", "a1@x.example", "a2@x.example"))
        assert codes(verdicts) == [550, 250, 250]

    @pytest.mark.parametrize("size", [10, 200_000])
    async def test_a_host_is_told_the_size_that_a_message_has(self, size: int) -> None:
        host, content = Host(), MESSAGE + b"x" * size + b"\r\n"
        envelope = Envelope(ANNA.sender, size=99_000_000)
        async with courier(host) as made:
            await hand_over(made, parcel(content=content, envelope=envelope))
        assert f"SIZE={len(content)}" in " ".join(host.said)


class TestContent:
    EIGHT = "Subject: hello\r\nContent-Type: text/plain; charset=utf-8\r\n\r\ngrüße\r\n".encode()

    async def test_a_host_that_takes_seven_bits_gets_seven(self) -> None:
        host = Host(extensions=("PIPELINING",))
        async with courier(host) as made:
            envelope = Envelope(ANNA.sender, Body.EIGHT_BIT)
            assert codes(await hand_over(made, parcel(content=self.EIGHT, envelope=envelope))) == [250]
        (message,) = host.messages
        assert message.isascii()
        assert b"quoted-printable" in message
        assert b"gr=C3=BC=C3=9Fe" in message

    async def test_one_that_takes_eight_gets_eight(self) -> None:
        host = Host()
        async with courier(host) as made:
            await hand_over(made, parcel(content=self.EIGHT, envelope=Envelope(ANNA.sender, Body.EIGHT_BIT)))
        assert "BODY=8BITMIME" in " ".join(host.said)
        assert host.messages == [self.EIGHT + b".\r\n"]

    async def test_what_needs_unicode_cannot_go_to_a_host_that_knows_none(self) -> None:
        host = Host()
        async with courier(host) as made:
            envelope = Envelope(MailAddress("änna", "example.org"), international=True)
            (verdict,) = await hand_over(made, parcel(envelope=envelope))
            assert codes(await hand_over(made, parcel())) == [250]
        assert str(verdict.reply).startswith("554 5.6.7 ")
        assert verdict.host is None

    async def test_nor_can_what_no_host_could_be_given_in_seven_bits(self) -> None:
        host = Host(extensions=("PIPELINING",))
        content = b"Content-Transfer-Encoding: base64\r\n\r\n\xff\xff\r\n"
        async with courier(host) as made:
            (verdict,) = await hand_over(made, parcel(content=content, envelope=Envelope(ANNA.sender, Body.EIGHT_BIT)))
        assert str(verdict.reply).startswith("554 5.6.3 ")


class TestBreaks:
    async def test_a_kept_connection_that_has_died_is_replaced(self) -> None:
        class Once(Host):
            def reply(self, line: str) -> str:
                if line.startswith("MAIL") and self.messages and self.connections == 1:
                    return ""
                return super().reply(line)

        host = Once()
        async with courier(host) as made:
            for _ in range(2):
                assert codes(await hand_over(made, parcel())) == [250]
        assert host.connections == 2

    @pytest.mark.parametrize(
        "replies",
        [
            {"MAIL": ""},
            {"RCPT": ""},
            {"DATA": ""},
            {"MAIL": "421 4.3.2 going down"},
            {"DATA": "421 4.3.2 going down"},
            {"end": ""},
            {"end": "421 4.3.2 going down"},
            {"end": "nonsense"},
            {"DATA": "250 what"},
        ],
    )
    async def test_what_breaks_off_is_tried_again_later(self, replies: dict[str, str]) -> None:
        host = Host(replies)
        async with courier(host) as made:
            (verdict,) = await hand_over(made, parcel())
            assert verdict.reply.is_transient_failure
            host.replies.clear()
            assert codes(await hand_over(made, parcel())) == [250]

    async def test_what_takes_too_long_as_a_whole_is_broken_off(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("asyncnet.relay.smtp_target.LONGEST", 0)
        host = Host()
        async with courier(host) as made:
            (verdict,) = await hand_over(made, parcel())
        assert str(verdict.reply) == "451 4.4.2 The conversation with the host broke off: it took too long"
        assert host.messages == []

    async def test_more_transactions_than_there_is_time_for_wait(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("asyncnet.relay.smtp_target.PATIENCE", 0)
        host = Host(extensions=("PIPELINING", "LIMITS RCPTMAX=1"))
        async with courier(host) as made:
            verdicts = await hand_over(made, parcel("a@x.example", "b@x.example", "c@x.example"))
        assert codes(verdicts) == [250, 452, 452]

    async def test_a_host_that_says_no_to_the_content_is_heard(self) -> None:
        host = Host({"end": "554 5.7.1 spam"})
        async with courier(host) as made:
            (verdict,) = await hand_over(made, parcel())
        assert (verdict.reply.code, verdict.host) == (554, "mx0.example.com")


class TestDoors:
    async def test_the_next_host_is_tried_where_one_takes_no_connection(self) -> None:
        full, closed, good = Host({"greeting": "421 4.3.2 full"}), Host({"EHLO": "", "HELO": ""}), Host()
        async with courier(full, closed, good) as made:
            (verdict,) = await hand_over(made, parcel())
        assert verdict.host == "mx2.example.com"

    @pytest.mark.parametrize("replies", [{"MAIL": ""}, {"RCPT": "421 4.3.2 full"}, {"DATA": ""}, {"DATA": "250 what"}])
    async def test_or_where_one_breaks_off_before_it_has_the_message(self, replies: dict[str, str]) -> None:
        bad, good = Host(replies), Host()
        async with courier(bad, good) as made:
            (verdict,) = await hand_over(made, parcel())
        assert verdict.host == "mx1.example.com"
        assert (bad.connections, good.connections, len(bad.messages), len(good.messages)) == (1, 1, 0, 1)

    async def test_a_host_that_may_have_the_message_is_the_only_one_that_gets_it(self) -> None:
        one, other = Host({"end": ""}), Host()
        async with courier(one, other) as made:
            (verdict,) = await hand_over(made, parcel())
        assert str(verdict.reply).startswith("451 4.4.2 ")
        assert other.connections == 0

    async def test_a_host_that_says_goodbye_on_a_kept_connection_is_asked_again(self) -> None:
        class Idle(Host):
            def reply(self, line: str) -> str:
                if line.startswith("MAIL") and self.messages and self.connections == 1:
                    return "421 4.4.2 idle for too long"
                return super().reply(line)

        host = Idle()
        async with courier(host) as made:
            for _ in range(2):
                assert codes(await hand_over(made, parcel())) == [250]
        assert host.connections == 2

    async def test_but_not_where_there_is_no_time_left_for_that(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It has listened to us, and is not down."""
        monkeypatch.setattr("asyncnet.relay.smtp_target.PATIENCE", 0)
        host = Host()
        async with courier(host) as made:
            assert codes(await hand_over(made, parcel())) == [250]
            host.replies["RCPT"] = ""
            (verdict,) = await hand_over(made, parcel())
        assert str(verdict.reply).startswith("451 4.4.2 The conversation with the host broke off")
        assert host.connections == 1

    async def test_one_that_breaks_off_might_do_better_whatever_the_others_say(self) -> None:
        async with courier(Host({"MAIL": ""}), Host({"greeting": "554 no mail"})) as made:
            (verdict,) = await hand_over(made, parcel())
        assert str(verdict.reply).startswith("451 4.4.2 ")

    async def test_where_they_take_too_long_the_others_are_left_for_another_time(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("asyncnet.relay.smtp_target.PATIENCE", 0)
        full, good = Host({"greeting": "421 4.3.2 full"}), Host()
        async with courier(full, good) as made:
            assert (await refused(made)).reply.is_transient_failure
        assert (full.connections, good.connections) == (1, 0)

    async def test_where_none_does_the_reason_is_told(self) -> None:
        host = Host()
        async with running(host):
            port = host.port
        error = await refused(doors(port).courier())
        assert str(error.reply).startswith("451 4.4.1 ")
        assert "127.0.0.1" in str(error.reply)

    async def test_and_does_not_tell_senders_as_whom_we_log_in(self) -> None:
        host = Host()
        async with running(host):
            pass
        error = await refused(to_host(parse_url(f"smtp://joe:secret@127.0.0.1:{host.port}"), PLAIN).courier())
        assert f"smtp://127.0.0.1:{host.port}" in str(error.reply)
        assert "joe" not in str(error.reply)
        assert str(error.reply).endswith(": Connection refused")

    async def test_nor_a_path_of_ours(self, tmp_path: Path) -> None:
        error = await refused(to_host(parse_url(f"lmtp+unix:{tmp_path}/lmtp"), PLAIN).courier())
        assert str(error.reply) == "451 4.4.1 No host can be reached: localhost: No such file or directory"

    async def test_a_host_has_so_long_to_say_hello(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("asyncnet.relay.smtp_target.LONGEST_HELLO", 0)
        slow, host = Host(), Host()
        async with courier(slow, host) as made:
            error = await refused(made)
        assert error.reply.is_transient_failure
        assert str(error.reply).endswith(": it took too long")

    async def test_hosts_that_never_take_mail_say_so_for_ever(self) -> None:
        async with courier(Host({"greeting": "554 no mail"}), Host({"greeting": "521 no mail here"})) as made:
            error = await refused(made)
        assert (error.reply.code, error.host) == (521, "mx1.example.com")

    async def test_one_that_might_come_back_is_waited_for(self) -> None:
        async with courier(Host({"greeting": "554 no mail"}), Host({"greeting": "421 full"})) as made:
            assert (await refused(made)).reply.is_transient_failure

    async def test_a_password_that_is_refused_bounces_nothing(self) -> None:
        host = Host({"AUTH": "535 5.7.8 no"}, extensions=("AUTH PLAIN",))
        async with running(host):
            made = to_host(parse_url(f"smtp://joe:secret@127.0.0.1:{host.port}"), Manners(name="x.example")).courier()
            error = await refused(made)
        assert error.reply.is_transient_failure
        assert "secret" not in str(error.reply)

    async def test_without_tls_nothing_goes_where_it_is_required(self) -> None:
        host = Host()
        async with running(host):
            manners = Manners(name="x.example", starttls=StartTLS.REQUIRED)
            error = await refused(to_host(parse_url(f"smtp://127.0.0.1:{host.port}"), manners).courier())
        assert str(error.reply).startswith("451 4.7.5 ")
        assert host.messages == []

    async def test_a_host_that_does_not_speak_is_given_up(self) -> None:
        class Mute(Host):
            async def __call__(self, bare: trio.abc.Stream) -> None:
                await trio.sleep_forever()

        manners = Manners(name="x.example", timeouts=SMTPClientTimeouts(greeting=0.01))
        host = Mute()
        async with running(host):
            error = await refused(to_host(parse_url(f"smtp://127.0.0.1:{host.port}"), manners).courier())
        assert error.reply.is_transient_failure


class TestHostsThatPutOff:
    """RFC 5321 section 5.1: the next host is tried, for whom the first has put off."""

    @pytest.mark.parametrize("command", ["MAIL", "RCPT", "DATA", "end"])
    async def test_the_next_host_gets_the_message(self, command: str) -> None:
        first, second = Host({command: "451 4.3.2 come again"}), Host()
        async with courier(first, second) as made:
            (verdict,) = await hand_over(made, parcel())
        assert (verdict.reply.code, verdict.host) == (250, "mx1.example.com")
        assert len(second.messages) == 1

    async def test_it_gets_it_for_those_alone(self) -> None:
        first = Host({"RCPT TO:<b@x.example>": "450 4.2.0 greylisted", "RCPT TO:<c@x.example>": "550 5.1.1 nobody"})
        second = Host()
        async with courier(first, second) as made:
            verdicts = await hand_over(made, parcel("a@x.example", "b@x.example", "c@x.example"))
        assert [(verdict.reply.code, verdict.host) for verdict in verdicts] == [
            (250, "mx0.example.com"),
            (250, "mx1.example.com"),
            (550, "mx0.example.com"),
        ]
        assert [line for line in second.said if line.startswith("RCPT")] == ["RCPT TO:<b@x.example>"]

    async def test_a_kept_connection_leads_on_as_well(self) -> None:
        first, second = Host(), Host()
        async with courier(first, second) as made:
            await hand_over(made, parcel())
            first.replies["RCPT"] = "451 4.3.2 come again"
            (verdict,) = await hand_over(made, parcel())
        assert verdict.host == "mx1.example.com"
        assert (first.connections, second.connections) == (1, 1)

    async def test_where_all_put_it_off_it_waits(self) -> None:
        hosts = [Host({"RCPT": f"451 4.3.{number} come again"}) for number in range(6)]
        async with courier(*hosts) as made:
            (verdict,) = await hand_over(made, parcel())
        assert verdict.reply.is_transient_failure
        assert [host.connections for host in hosts] == [1] * MOST_ASKED + [0] * (6 - MOST_ASKED)

    async def test_where_nobody_else_is_there_the_reason_is_the_first_ones(self) -> None:
        gone = Host()
        async with running(gone):
            pass
        first = Host({"RCPT": "451 4.3.2 come again"})
        async with running(first):
            made = doors(first.port, gone.port).courier()
            (verdict,) = await hand_over(made, parcel())
            await made.aclose()
        assert (str(verdict.reply), verdict.host) == ("451 4.3.2 come again", "mx0.example.com")

    async def test_where_there_is_no_other_the_connection_is_kept(self) -> None:
        host = Host({"RCPT": "451 4.3.2 come again"})
        async with courier(host) as made:
            for _ in range(2):
                assert codes(await hand_over(made, parcel())) == [451]
        assert host.connections == 1

    async def test_its_other_addresses_are_not_asked(self) -> None:
        host, next_host = Host({"RCPT": "451 4.3.2 come again"}), Host()
        async with running(host, next_host):
            names = ("mx0.example.com", host.port), ("mx0.example.com", host.port), ("mx1.example.com", next_host.port)

            async def find() -> Sequence[Door]:
                return [Door(parse_url(f"smtp://{name}:{port}"), "127.0.0.1") for name, port in names]

            made = SMTPTarget(find, PLAIN).courier()
            assert codes(await hand_over(made, parcel())) == [250]
            await made.aclose()
        assert (host.connections, next_host.connections) == (1, 1)

    async def test_what_took_too_long_waits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("asyncnet.relay.smtp_target.PATIENCE", 0)
        first, second = Host({"RCPT": "451 4.3.2 come again"}), Host()
        async with courier(first, second) as made:
            assert codes(await hand_over(made, parcel())) == [451]
        assert second.connections == 0

    async def test_who_has_it_is_known_though_the_others_are_waited_for(self) -> None:
        """And nobody waits any longer."""

        class Hanging(Host):
            async def __call__(self, bare: trio.abc.Stream) -> None:
                scope.cancel()
                await trio.sleep_forever()

        first, second = Host({"RCPT TO:<b@x.example>": "451 4.3.2 come again"}), Hanging()
        verdicts: dict[int, Verdict] = {}
        async with courier(first, second) as made:
            with trio.CancelScope() as scope:
                await made.hand_over(parcel("a@x.example", "b@x.example"), verdicts)
        assert scope.cancelled_caught
        assert [(index, verdict.reply.code) for index, verdict in verdicts.items()] == [(0, 250), (1, 451)]


class Names:
    """A DNS that knows one exchanger."""

    async def exchangers(self, domain: str) -> Sequence[Exchanger]:
        return [Exchanger(10, "mx.example.com.")] if domain == "example.com" else [Exchanger(0, ".")]

    async def addresses(self, host: str) -> Sequence[IPAddress]:
        return [ipaddress.ip_address("127.0.0.1")]


async def test_a_domains_exchangers_are_found() -> None:
    host = Host()
    async with running(host):
        router = Router(Names(), accepts=lambda address: True, port=host.port)
        made = to_domain("example.com", router, PLAIN).courier()
        (verdict,) = await hand_over(made, parcel())
        await made.aclose()
        assert verdict.host == "mx.example.com"
        error = await refused(to_domain("null.example", router, PLAIN).courier())
    assert str(error.reply) == "556 5.1.10 null.example takes no mail."
    assert isinstance(error.__cause__, NoRoute)


async def test_lmtp_answers_for_each_recipient() -> None:
    class LMTP(Host):
        async def __call__(self, bare: trio.abc.Stream) -> None:
            stream = Stream.of(bare)
            await stream.send_all(b"220 lmtp.example\r\n")
            for reply in (b"250 lmtp.example\r\n", b"250 ok\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go on\r\n"):
                await stream.receive_until(b"\r\n", limit=2000)
                await stream.send_all(reply)
            await stream.receive_until(b"\r\n.\r\n", limit=1 << 20)
            await stream.send_all(b"250 2.1.5 ok\r\n452 4.2.2 full\r\n")

    host = LMTP()
    async with running(host):
        made = to_host(parse_url(f"lmtp://127.0.0.1:{host.port}"), Manners(name="x.example")).courier()
        assert codes(await hand_over(made, parcel("a@x.example", "b@x.example"))) == [250, 452]
        await made.aclose()


async def test_a_host_at_a_unix_socket_is_one_of_this_machine(tmp_path: Path) -> None:
    url = f"lmtp+unix:{tmp_path}/lmtp"
    async with trio.open_nursery() as nursery:
        await nursery.start(serve, Host(), f"unix:{tmp_path}/lmtp")
        made = to_host(parse_url(url), Manners(name="x.example")).courier()
        (verdict,) = await hand_over(made, parcel())
        await made.aclose()
        nursery.cancel_scope.cancel()
    assert (verdict.reply.code, verdict.host) == (250, "localhost")


def test_a_recipient_is_what_the_parcel_says() -> None:
    assert parcel("a@x.example").recipients == (Recipient(MailAddress("a", "x.example")),)

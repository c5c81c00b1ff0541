"""What the relay does with the mail in its queue: who gets it, what is tried again, what its sender hears."""

from __future__ import annotations

import email
import email.policy
import errno
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from asyncnet.errors import ConfigurationError
from asyncnet.mailbox.memory import MemoryMailboxes
from asyncnet.relay.admin import Selection, open_admin
from asyncnet.relay.queue import Queue, open_queue
from asyncnet.relay.retry import HOUR, RetryPolicy
from asyncnet.relay.routes import Routes
from asyncnet.relay.runner import Relay, RelayLimits, RelayTimes
from asyncnet.relay.targets import Parcel, Unreachable, Verdict
from asyncnet.smtp.address import MailAddress
from asyncnet.smtp.delivery import Refused
from asyncnet.smtp.envelope import Envelope, Notify, Recipient
from asyncnet.smtp.wire import coded
from tests.relay.use import LONG, Clock, put, to

MESSAGE = b"From: anna@example.org\r\nSubject: hello\r\n\r\nhow are you?\r\n"
ANNA = Envelope(MailAddress("anna", "example.org"))
OK = coded(250, "2.0.0", "taken")
LATER = coded(451, "4.3.0", "later")
NEVER = coded(550, "5.1.1", "nobody")
QUICK = RelayTimes(idle=0.001, down=3600, again=0.001, end=5)

Behaviour = Callable[[Parcel], Awaitable[Sequence[Verdict]]]


class Host:
    """A destination that does what a test says. It is its own target and courier."""

    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        self.parcels: list[tuple[str, ...]] = []
        self.contents: list[bytes] = []
        self.couriers = self.closed = self.at_once = self.most_at_once = 0

    def courier(self) -> Host:
        self.couriers += 1
        return self

    async def aclose(self) -> None:
        self.closed += 1

    async def hand_over(self, parcel: Parcel, verdicts: dict[int, Verdict]) -> None:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            self.parcels.append(tuple(str(recipient.address) for recipient in parcel.recipients))
            verdicts.update(enumerate(await self._behaviour(parcel)))
        finally:
            self.at_once -= 1


def saying(*verdicts: Verdict) -> Behaviour:
    """Says this of the recipients, the last of it of all others."""

    async def behaviour(parcel: Parcel) -> Sequence[Verdict]:
        await trio.lowlevel.checkpoint()
        return [verdicts[min(index, len(verdicts) - 1)] for index in range(len(parcel.recipients))]

    return behaviour


class Hosts(Routes):
    """Routes to hosts of a test, by domain; example.org, whose user is anna, is delivered here."""

    def __init__(self, **hosts: Host) -> None:
        self.mail = MemoryMailboxes("anna")
        super().__init__(local={"example.org": self.mail}, router=object())  # type: ignore[arg-type]
        self.hosts = {f"{name}.example": host for name, host in hosts.items()}

    def target(self, destination: str) -> object:  # type: ignore[override]
        return self.hosts.get(destination) or super().target(destination)


class Relayed:
    """A relay that runs, and its queue."""

    def __init__(self, queue: Queue, routes: Hosts, folder: Path) -> None:
        self.queue = queue
        self.routes = routes
        self._folder = folder

    def pass_time(self, seconds: float) -> None:
        """Have the queue's clock go on, and the relay look at it."""
        clock = self.queue.clock
        assert isinstance(clock, Clock)
        clock.now += seconds
        self.queue._changed.set()

    async def until_empty(self) -> None:
        await self.until(lambda states: not states)

    async def until(self, is_so: Callable[[list[str]], bool]) -> None:
        """Wait until the states of all recipients in the queue are as `is_so` says."""
        while not is_so(await self.states()):
            await trio.sleep(0.005)

    async def states(self) -> list[str]:
        return await trio.to_thread.run_sync(self._states)

    def _states(self) -> list[str]:
        with open_admin(self._folder) as admin:
            return [
                f"{each.recipient.address} {each.state.value} {each.attempts}"
                for _, recipients in admin.find()
                for each in recipients
            ]

    async def reports(self) -> list[email.message.EmailMessage]:
        """What anna has heard."""
        mailbox = await self.routes.mail.of("anna")
        found = []
        for message in await mailbox.messages():
            content = b"".join([piece async for piece in mailbox.read(message.uid)])
            parsed = email.message_from_bytes(content, policy=email.policy.default)
            assert isinstance(parsed, email.message.EmailMessage)
            found.append(parsed)
        return found


@asynccontextmanager
async def relayed(
    folder: Path,
    limits: RelayLimits = RelayLimits(),
    times: RelayTimes = QUICK,
    retry: RetryPolicy = RetryPolicy(),
    **hosts: Host,
) -> AsyncIterator[Relayed]:
    routes = Hosts(**hosts)
    options = {"retry": retry, "limits": limits, "times": times, "clock": Clock()}
    async with Relay(folder, routes, host="mail.example.net", **options) as relay:  # type: ignore[arg-type]
        yield Relayed(relay.queue, routes, folder)


@pytest.mark.parametrize("host", ["", "no name", "example..org", "☃ .example"])
def test_a_relay_without_a_name_that_reports_could_give_is_refused(tmp_path: Path, host: str) -> None:
    with pytest.raises(ConfigurationError, match="host"):
        Relay(tmp_path, Hosts(), host=host)


class TestDelivery:
    async def test_mail_goes_where_its_recipients_are(self, tmp_path: Path) -> None:
        one, two = Host(saying(Verdict(OK))), Host(saying(Verdict(OK)))
        async with relayed(tmp_path, one=one, two=two) as relay:
            await put(relay.queue, MESSAGE, to("a@one.example", "b@two.example", "c@one.example"), ANNA)
            await relay.until_empty()
        assert one.parcels == [("a@one.example", "c@one.example")]
        assert two.parcels == [("b@two.example",)]
        assert one.couriers == one.closed

    @pytest.mark.parametrize("content", [MESSAGE, MESSAGE + b"x" * LONG])
    async def test_it_arrives_as_it_came(self, tmp_path: Path, content: bytes) -> None:
        found = []

        async def behaviour(parcel: Parcel) -> Sequence[Verdict]:
            assert parcel.envelope == ANNA
            assert parcel.size == len(content)
            for _ in range(2):
                found.append(b"".join([piece async for piece in parcel.read()]))
            return [Verdict(OK)]

        async with relayed(tmp_path, one=Host(behaviour)) as relay:
            await put(relay.queue, content, to("a@one.example"), ANNA)
            await relay.until_empty()
            assert await relay.reports() == []
        assert found == [content, content]

    async def test_mail_for_a_domain_of_our_own_lies_in_the_mailbox(self, tmp_path: Path) -> None:
        async with relayed(tmp_path) as relay:
            await put(relay.queue, MESSAGE, to("anna@example.org", "postmaster@example.org"), ANNA)
            await relay.until_empty()
            bounce, message = sorted(await relay.reports(), key=lambda each: str(each["Subject"]))
            assert message["Return-Path"] == "<anna@example.org>"
            assert message["Subject"] == "hello"
            assert bounce["Return-Path"] == "<>"
            assert "<postmaster@example.org>: 550 5.1.1 Nobody here has this address." in bounce.as_string()

    async def test_what_lay_in_the_queue_before_is_delivered(self, tmp_path: Path) -> None:
        async with open_queue(tmp_path, clock=Clock(), destination_of=lambda address: "elsewhere") as queue:
            await put(queue, MESSAGE, to("a@one.example", "b@two.example"), ANNA)
        one, two = Host(saying(Verdict(OK))), Host(saying(Verdict(OK)))
        async with relayed(tmp_path, one=one, two=two) as relay:
            await relay.until_empty()
        assert (one.parcels, two.parcels) == ([("a@one.example",)], [("b@two.example",)])


class TestFailures:
    async def test_what_is_refused_bounces(self, tmp_path: Path) -> None:
        one = Host(saying(Verdict(OK, "mx.one.example"), Verdict(NEVER, "mx.one.example")))
        async with relayed(tmp_path, one=one) as relay:
            await put(relay.queue, MESSAGE, to("a@one.example", "b@one.example"), ANNA)
            await relay.until_empty()
            (bounce,) = await relay.reports()
        assert bounce["Subject"] == "Undelivered mail"
        text = bounce.as_string()
        assert "<b@one.example>: host mx.one.example said: 550 5.1.1 nobody" in text
        assert "a@one.example" not in text
        assert "Subject: hello" in text
        assert "how are you" not in text

    async def test_an_address_that_turns_the_line_around_does_not_in_the_log(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO", "asyncnet.relay")
        async with relayed(tmp_path, one=Host(saying(Verdict(OK)))) as relay:
            await put(relay.queue, MESSAGE, to("\u202ea@one.example", "\u202e@example.org"), ANNA)
            await relay.until_empty()
        assert "delivered for <\\u202ea@one.example>" in caplog.text
        assert "\u202e" not in caplog.text

    async def test_what_cannot_be_returned_is_gone(self, tmp_path: Path) -> None:
        async with relayed(tmp_path, one=Host(saying(Verdict(NEVER)))) as relay:
            await put(relay.queue, MESSAGE, to("a@one.example"), Envelope(None))
            await relay.until_empty()
            assert await relay.reports() == []

    async def test_what_failed_for_now_is_tried_again_when_it_is_time(self, tmp_path: Path) -> None:
        one = Host(saying(Verdict(OK), Verdict(LATER)))
        async with relayed(tmp_path, one=one) as relay:
            await put(relay.queue, MESSAGE, to("a@one.example", "b@one.example"), ANNA)
            await relay.until(lambda states: "b@one.example pending 1" in states)
            assert one.parcels == [("a@one.example", "b@one.example")]
            relay.pass_time(relay.queue.retry.first)
            await relay.until_empty()
            assert await relay.reports() == []
        assert one.parcels[1:] == [("b@one.example",)]

    async def test_a_sender_is_warned_once_of_what_takes_long(self, tmp_path: Path) -> None:
        one = Host(saying(Verdict(LATER, "mx.one.example")))
        async with relayed(tmp_path, one=one) as relay:
            await put(relay.queue, MESSAGE, to("a@one.example"), ANNA)
            for attempt in range(1, 5):
                await relay.until(lambda states, n=attempt: f"a@one.example pending {n}" in states)  # type: ignore[misc]
                relay.pass_time(4 * HOUR)
            await relay.until(lambda states: states == ["a@one.example pending 5"])
            (warning,) = await relay.reports()
        assert warning["Subject"] == "Delayed mail: no need to send it again"
        assert "Will-Retry-Until" in warning.as_string()

    async def test_what_has_been_tried_for_too_long_bounces(self, tmp_path: Path) -> None:
        one = Host(saying(Verdict(LATER)))
        async with relayed(tmp_path, one=one) as relay:
            recipient = Recipient(MailAddress("a", "one.example"), frozenset({Notify.FAILURE}))
            await put(relay.queue, MESSAGE, [recipient], ANNA)
            for attempt in range(1, relay.queue.retry.least_attempts):
                await relay.until(lambda states, n=attempt: f"a@one.example pending {n}" in states)  # type: ignore[misc]
                relay.pass_time(relay.queue.retry.expiry)
            await relay.until_empty()
            (bounce,) = await relay.reports()
        assert "Status: 4.4.7" in bounce.as_string()
        assert "451 4.3.0 later" in bounce.as_string()

    async def test_it_bounces_when_its_time_is_over_however_seldom_it_was_tried(self, tmp_path: Path) -> None:
        one = Host(saying(Verdict(LATER)))
        async with relayed(tmp_path, retry=RetryPolicy(first=50 * 60, expiry=HOUR), one=one) as relay:
            await put(relay.queue, MESSAGE, to("a@one.example"), ANNA)
            await relay.until(lambda states: states == ["a@one.example pending 1"])
            relay.pass_time(50 * 60)
            await relay.until(lambda states: states == ["a@one.example pending 2"])
            relay.pass_time(10 * 60)
            await relay.until_empty()
            (bounce,) = await relay.reports()
        assert "Status: 4.4.7" in bounce.as_string()
        assert len(one.parcels) == 3

    async def test_a_content_that_cannot_be_read_for_now_holds_up_nobody_else(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def behaviour(parcel: Parcel) -> Sequence[Verdict]:
            await trio.lowlevel.checkpoint()
            for path in (tmp_path / "content").iterdir():
                path.rename(tmp_path / "aside")
                path.mkdir()  # which can be opened and not be read
            return [Verdict(OK), Verdict(NEVER)]

        limits = RelayLimits(deliveries=1)
        async with relayed(tmp_path, limits, one=Host(behaviour), two=Host(saying(Verdict(OK)))) as relay:
            await put(relay.queue, MESSAGE + b"x" * LONG, to("a@one.example", "b@one.example"), ANNA)
            waiting = ["a@one.example delivered 1", "b@one.example pending 1"]
            await relay.until(lambda states: states == waiting)
            await put(relay.queue, MESSAGE, to("c@two.example"), ANNA)
            await relay.until(lambda states: states == waiting)
        assert "cannot be read" in caplog.text
        (path,) = (tmp_path / "content").iterdir()
        path.rmdir()
        (tmp_path / "aside").rename(path)
        async with relayed(tmp_path, one=Host(saying(Verdict(NEVER)))) as relay:
            relay.pass_time(relay.queue.retry.first)
            await relay.until_empty()
            assert len(await relay.reports()) == 1

    async def test_who_has_a_message_is_crossed_off_though_it_cannot_be_returned_to_its_sender(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def behaviour(parcel: Parcel) -> Sequence[Verdict]:
            await trio.lowlevel.checkpoint()
            for path in (tmp_path / "content").iterdir():
                path.write_bytes(b"damaged")
            return [Verdict(OK), Verdict(NEVER)]

        async with relayed(tmp_path, one=Host(behaviour)) as relay:
            await put(relay.queue, MESSAGE + b"x" * LONG, to("a@one.example", "b@one.example"), ANNA)
            await relay.until(lambda states: states == ["a@one.example delivered 1", "b@one.example pending 1"])
            assert await relay.reports() == []
        assert "was set aside: its content file has changed" in caplog.text

    async def test_a_mistake_of_ours_puts_one_message_off(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def behaviour(parcel: Parcel) -> Sequence[Verdict]:
            raise ZeroDivisionError

        one, two = Host(behaviour), Host(saying(Verdict(OK)))
        async with relayed(tmp_path, one=one, two=two) as relay:
            await put(relay.queue, MESSAGE, to("a@one.example"), ANNA)
            await relay.until(lambda states: states == ["a@one.example pending 1"])
            await put(relay.queue, MESSAGE, to("b@two.example"), ANNA)
            await relay.until(lambda states: states == ["a@one.example pending 1"])
        assert "ZeroDivisionError" in caplog.text
        assert len(two.parcels) == 1

    async def test_what_cannot_be_reported_waits_and_the_others_go_on(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        one = Host(saying(Verdict(OK), Verdict(NEVER)))
        with monkeypatch.context() as broken:
            broken.setattr("asyncnet.relay.reporter.make_report", lambda *_, **__: 1 / 0)
            async with relayed(tmp_path, one=one) as relay:
                await put(relay.queue, MESSAGE, to("a@one.example", "b@one.example"), ANNA)
                await relay.until(lambda states: "b@one.example pending 1" in states)
        assert "ZeroDivisionError" in caplog.text
        async with relayed(tmp_path, one=Host(saying(Verdict(NEVER)))) as relay:
            relay.pass_time(relay.queue.retry.first)
            await relay.until_empty()
            (bounce,) = await relay.reports()
        assert "b@one.example" in bounce.as_string()
        assert "a@one.example" not in bounce.as_string()


class TestDisksThatFail:
    @pytest.mark.parametrize("step", ["claim", "wait"])
    async def test_a_queue_that_cannot_be_read_for_now_ends_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, step: str
    ) -> None:
        one, failed = Host(saying(Verdict(OK))), trio.Event()
        async with relayed(tmp_path, one=one) as relay:
            works = getattr(relay.queue, step)

            async def fails(*arguments: object, **options: object) -> object:
                await trio.lowlevel.checkpoint()
                if not failed.is_set():
                    failed.set()
                    raise OSError(errno.ENOSPC, "the disk is full")
                return await works(*arguments, **options)

            monkeypatch.setattr(relay.queue, step, fails)
            relay.pass_time(0)
            await failed.wait()
            await put(relay.queue, MESSAGE, to("a@one.example"), ANNA)
            await relay.until_empty()
        assert len(one.parcels) == 1
        assert "the disk is full" in caplog.text


class TestSuccess:
    WANTS = frozenset({Notify.SUCCESS})

    async def test_who_wants_to_hear_of_it_does(self, tmp_path: Path) -> None:
        async with relayed(tmp_path, one=Host(saying(Verdict(OK, "mx.one.example")))) as relay:
            recipient = Recipient(MailAddress("a", "one.example"), self.WANTS)
            await put(
                relay.queue, MESSAGE, [recipient, Recipient(MailAddress("anna", "example.org"), self.WANTS)], ANNA
            )
            await relay.until_empty()
            reports = [each.as_string() for each in await relay.reports() if each["Subject"] == "Delivered mail"]
        assert sorted("Action: relayed" in report for report in reports) == [False, True]
        assert sorted("Action: delivered" in report for report in reports) == [False, True]

    async def test_a_host_that_tells_it_is_left_to_do_so(self, tmp_path: Path) -> None:
        async with relayed(tmp_path, one=Host(saying(Verdict(OK, tells_success=True)))) as relay:
            await put(relay.queue, MESSAGE, [Recipient(MailAddress("a", "one.example"), self.WANTS)], ANNA)
            await relay.until_empty()
            assert await relay.reports() == []


class TestHostsThatAreDown:
    async def test_nobody_tries_again_for_a_while(self, tmp_path: Path) -> None:
        async def behaviour(parcel: Parcel) -> Sequence[Verdict]:
            await trio.lowlevel.checkpoint()
            raise Unreachable(coded(451, "4.4.1", "no connection"))

        down, up = Host(behaviour), Host(saying(Verdict(OK)))
        async with relayed(tmp_path, RelayLimits(per_destination=1), down=down, up=up) as relay:
            for number in range(5):
                await put(relay.queue, MESSAGE, to(f"a{number}@down.example"), ANNA)
            await put(relay.queue, MESSAGE, to("b@up.example"), ANNA)
            await relay.until(lambda states: sorted(states) == [f"a{n}@down.example pending 1" for n in range(5)])
        assert len(down.parcels) == 1
        assert len(up.parcels) == 1

    async def test_it_is_tried_again_at_once_when_its_administrator_says_so(self, tmp_path: Path) -> None:
        is_down = True

        async def behaviour(parcel: Parcel) -> Sequence[Verdict]:
            await trio.lowlevel.checkpoint()
            if is_down:
                raise Unreachable(coded(451, "4.4.1", "no connection"))
            return [Verdict(OK)]

        def retry() -> None:
            with open_admin(tmp_path) as admin:
                admin.retry(Selection())

        host = Host(behaviour)
        async with relayed(tmp_path, down=host) as relay:
            await put(relay.queue, MESSAGE, to("a@down.example"), ANNA)
            await relay.until(lambda states: states == ["a@down.example pending 1"])
            await trio.to_thread.run_sync(retry)
            await relay.until(lambda states: states == ["a@down.example pending 2"])
            is_down = False
            await trio.to_thread.run_sync(retry)
            await relay.until_empty()
        assert len(host.parcels) == 3

    async def test_a_host_that_has_enough_of_us_goes_on_with_what_it_has(self, tmp_path: Path) -> None:
        class Full(Host):
            """Takes two connections, and no message before it has refused a third."""

            def __init__(self) -> None:
                super().__init__(saying(Verdict(OK)))
                self.refused = 0
                self.connected: set[Host] = set()
                self.go_on = trio.Event()

            def courier(self) -> Host:
                return FullCourier(self)

        class FullCourier(Host):
            def __init__(self, host: Full) -> None:
                super().__init__(saying(Verdict(OK)))
                self.host = host

            async def hand_over(self, parcel: Parcel, verdicts: dict[int, Verdict]) -> None:
                await trio.lowlevel.checkpoint()
                if self not in self.host.connected and len(self.host.connected) == 2:
                    self.host.refused += 1
                    self.host.go_on.set()
                    raise Unreachable(coded(421, "4.7.0", "too many connections"))
                self.host.connected.add(self)
                await self.host.go_on.wait()
                await self.host.hand_over(parcel, verdicts)

            async def aclose(self) -> None:
                self.host.connected.discard(self)

        host = Full()
        async with relayed(tmp_path, RelayLimits(per_destination=5), one=host) as relay:
            for number in range(30):
                await put(relay.queue, MESSAGE, to(f"a{number}@one.example"), ANNA)
            await relay.until_empty()
        assert len(host.parcels) == 30
        assert host.refused <= 3  # those that had begun when the first one was refused

    async def test_a_host_that_never_takes_mail_bounces_it(self, tmp_path: Path) -> None:
        async def behaviour(parcel: Parcel) -> Sequence[Verdict]:
            await trio.lowlevel.checkpoint()
            raise Unreachable(coded(556, "5.1.10", "no mail here"), "mx.one.example")

        async with relayed(tmp_path, one=Host(behaviour)) as relay:
            await put(relay.queue, MESSAGE, to("a@one.example"), ANNA)
            await relay.until_empty()
            (bounce,) = await relay.reports()
        assert "host mx.one.example said: 556 5.1.10 no mail here" in bounce.as_string()

    async def test_one_that_hangs_holds_up_its_own_mail_alone(self, tmp_path: Path) -> None:
        async def behaviour(parcel: Parcel) -> Sequence[Verdict]:
            await trio.sleep_forever()
            raise AssertionError

        hangs, up = Host(behaviour), Host(saying(Verdict(OK)))
        limits, times = RelayLimits(deliveries=3, per_destination=2), RelayTimes(end=0.001)
        async with relayed(tmp_path, limits, times, one=hangs, up=up) as relay:
            for number in range(9):
                await put(relay.queue, MESSAGE, to(f"a{number}@one.example"), ANNA)
            for number in range(9):
                await put(relay.queue, MESSAGE, to(f"b{number}@up.example"), ANNA)
            await relay.until(lambda states: len(states) == 9)
            assert len(up.parcels) == 9
            assert len(hangs.parcels) == 2

    async def test_many_that_hang_keep_no_mailbox_from_its_mail(self, tmp_path: Path) -> None:
        async def behaviour(parcel: Parcel) -> Sequence[Verdict]:
            await trio.sleep_forever()
            raise AssertionError

        hang = {f"x{number}": Host(behaviour) for number in range(9)}
        limits, times = RelayLimits(deliveries=5, elsewhere=3), RelayTimes(end=0.001)
        async with relayed(tmp_path, limits, times, **hang) as relay:
            for name in hang:
                await put(relay.queue, MESSAGE, to(f"a@{name}.example"), ANNA)
            for _ in range(7):
                await put(relay.queue, MESSAGE, to("anna@example.org"), ANNA)
            await relay.until(lambda states: len(states) == 9)
            assert sum(host.at_once for host in hang.values()) == 3

    async def test_reports_that_hang_keep_no_mail_of_users_from_its_way(self, tmp_path: Path) -> None:
        """Strangers have them sent wherever they like."""

        async def behaviour(parcel: Parcel) -> Sequence[Verdict]:
            await trio.sleep_forever()
            raise AssertionError

        hang, up = {f"x{number}": Host(behaviour) for number in range(9)}, Host(saying(Verdict(OK)))
        limits, times = RelayLimits(deliveries=6, elsewhere=4, doubtful=2), RelayTimes(end=0.001)
        async with relayed(tmp_path, limits, times, **hang, up=up) as relay:
            for name in hang:
                await put(relay.queue, MESSAGE, to(f"a@{name}.example"), Envelope(None))
            for _ in range(7):
                await put(relay.queue, MESSAGE, to("b@up.example"), ANNA)
            await relay.until(
                lambda states: sorted(state[-9:] for state in states) == ["pending 0"] * 2 + ["pending 1"] * 7
            )
            assert sum(host.at_once for host in hang.values()) == 2
        assert len(up.parcels) == 7

    async def test_nor_do_hosts_that_have_kept_us_waiting_before(self, tmp_path: Path) -> None:
        go_on = trio.Event()

        async def behaviour(parcel: Parcel) -> Sequence[Verdict]:
            if not go_on.is_set():
                return [Verdict(LATER)]
            await trio.sleep_forever()
            raise AssertionError

        hang, up = {f"x{number}": Host(behaviour) for number in range(5)}, Host(saying(Verdict(OK)))
        limits, times = RelayLimits(deliveries=6, elsewhere=4, doubtful=2), RelayTimes(end=0.001, slow=1e-9)
        async with relayed(tmp_path, limits, times, **hang, up=up) as relay:
            for name in hang:
                await put(relay.queue, MESSAGE, to(f"a@{name}.example"), ANNA)
            await relay.until(lambda states: all(state.endswith("pending 1") for state in states))
            go_on.set()
            relay.pass_time(relay.queue.retry.first)
            await relay.until(lambda states: sorted(state[-1] for state in states) == ["1", "1", "2", "2", "2"])
            for _ in range(7):
                await put(relay.queue, MESSAGE, to("b@up.example"), ANNA)
            await relay.until(lambda states: len(states) == 5)
            assert sum(host.at_once for host in hang.values()) == 2
        assert len(up.parcels) == 7

    async def test_a_host_that_takes_mail_after_all_is_as_good_as_any(self, tmp_path: Path) -> None:
        taken = False

        async def behaviour(parcel: Parcel) -> Sequence[Verdict]:
            await trio.lowlevel.checkpoint()
            return [Verdict(OK if taken else LATER)]

        one = Host(behaviour)
        async with relayed(tmp_path, RelayLimits(doubtful=1), RelayTimes(slow=1e-9), one=one) as relay:
            await put(relay.queue, MESSAGE, to("a@one.example"), ANNA)
            await relay.until(lambda states: states == ["a@one.example pending 1"])
            taken = True
            relay.pass_time(relay.queue.retry.first)
            await relay.until_empty()
            for number in range(5):
                await put(relay.queue, MESSAGE, to(f"a{number}@one.example"), ANNA)
            await relay.until_empty()  # without a pause, in which the clock would have to go on

    async def test_where_one_at_a_time_may_go_elsewhere_all_do_in_the_end(self, tmp_path: Path) -> None:
        hosts = {f"x{number}": Host(saying(Verdict(OK))) for number in range(50)}
        async with relayed(tmp_path, RelayLimits(elsewhere=1), **hosts) as relay:
            await put(relay.queue, MESSAGE, to(*(f"a@{name}.example" for name in hosts)), ANNA)
            await relay.until_empty()
        assert all(len(host.parcels) == 1 for host in hosts.values())

    async def test_no_more_are_at_work_than_may_be(self, tmp_path: Path) -> None:
        go_on = trio.Event()

        async def behaviour(parcel: Parcel) -> Sequence[Verdict]:
            await go_on.wait()
            return [Verdict(OK)]

        one, two = Host(behaviour), Host(behaviour)
        limits = RelayLimits(deliveries=5, per_destination=3)
        async with relayed(tmp_path, limits=limits, one=one, two=two) as relay:
            for number in range(8):
                await put(relay.queue, MESSAGE, to(f"a{number}@one.example", f"b{number}@two.example"), ANNA)
            with trio.fail_after(10):
                while one.at_once + two.at_once < 5:
                    await trio.sleep(0.005)
            go_on.set()
            await relay.until_empty()
        assert one.most_at_once <= 3
        assert two.most_at_once <= 3
        assert len(one.parcels) == len(two.parcels) == 8


class TestTheEnd:
    async def test_what_is_under_way_comes_to_its_end_and_is_noted(self, tmp_path: Path) -> None:
        begun = trio.Event()

        async def behaviour(parcel: Parcel) -> Sequence[Verdict]:
            begun.set()
            with trio.move_on_after(0.05):
                await trio.sleep_forever()
            return [Verdict(OK)]

        async with relayed(tmp_path, one=Host(behaviour)) as relay:
            await put(relay.queue, MESSAGE, to("a@one.example"), ANNA)
            await begun.wait()
        async with relayed(tmp_path) as relay:
            assert await relay.states() == []

    async def test_what_is_cut_off_leaves_what_is_known(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("asyncnet.relay.runner.NOTING", math.inf)  # however slow the disk is
        begun = trio.Event()

        class Slow(Host):
            async def hand_over(self, parcel: Parcel, verdicts: dict[int, Verdict]) -> None:
                verdicts[0] = Verdict(OK)
                begun.set()
                await trio.sleep_forever()

        async with relayed(tmp_path, times=RelayTimes(end=0.001), one=Slow(saying())) as relay:
            await put(relay.queue, MESSAGE, to("a@one.example", "b@one.example"), ANNA)
            await begun.wait()
        one = Host(saying(Verdict(OK)))
        async with relayed(tmp_path, one=one) as relay:
            await relay.until_empty()
        assert one.parcels == [("b@one.example",)]

    async def test_what_could_not_be_noted_is_noted_when_there_is_room(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one = Host(saying(Verdict(NEVER)))
        async with relayed(tmp_path, one=one) as relay:
            failures = [Refused(452, "4.3.1", "full"), OSError("full"), Refused(452, "4.3.1", "full")]
            record = relay.queue.record

            async def full(*arguments: object, **options: object) -> bool:
                if failures:
                    raise failures.pop()
                return await record(*arguments, **options)  # type: ignore[arg-type]

            monkeypatch.setattr(relay.queue, "record", full)
            await put(relay.queue, MESSAGE, to("a@one.example"), ANNA)
            await relay.until_empty()
            assert len(await relay.reports()) == 1
        assert len(one.parcels) == 1

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock

from asyncnet.auth import Identity, LoginGuard, passwords_allowed
from asyncnet.transports.address import NOWHERE, Address

ANNA = Identity("anna")
PEER = Address("192.0.2.1", 40000)


@dataclass
class Ends:
    """What `passwords_allowed` looks at."""

    local: Address
    peer: Address
    tls: object = None


LOOPBACK = Address("127.0.0.1", 25)
LOOPBACK6 = Address("::1", 25)
UNIX = Address(path="/run/x.sock")
CLIENT = Address("192.0.2.1", 40000)
SERVER = Address("198.51.100.1", 25)


@pytest.mark.parametrize(
    ("local", "peer", "secure"),
    [
        (LOOPBACK, Address("127.0.0.2", 40000), True),
        (LOOPBACK6, LOOPBACK6, True),
        (UNIX, Address(path="", uid=1000), True),
        (SERVER, CLIENT, False),
        (SERVER, SERVER, False),
        (LOOPBACK, CLIENT, False),  # a proxy on this machine told who its client is
        (UNIX, CLIENT, False),
        (SERVER, LOOPBACK, False),
        (NOWHERE, NOWHERE, False),
    ],
)
def test_in_the_clear_passwords_pass_only_on_this_machine(local: Address, peer: Address, secure: bool) -> None:
    assert passwords_allowed(Ends(local, peer)) is secure


def test_passwords_pass_over_tls_and_where_the_user_insists() -> None:
    assert passwords_allowed(Ends(SERVER, CLIENT, tls=object()))
    assert passwords_allowed(Ends(SERVER, CLIENT), insecure_auth=True)


async def wrong() -> None:
    return None


async def right() -> Identity:
    return ANNA


async def test_a_right_password_is_answered_at_once(autojump_clock: MockClock) -> None:
    logins = LoginGuard().connection(PEER)
    for _ in range(100):
        assert await logins.attempt(right) is ANNA
    assert trio.current_time() == 0
    assert not logins.exhausted


async def test_each_failure_is_answered_after_twice_the_delay_up_to_the_longest(autojump_clock: MockClock) -> None:
    logins = LoginGuard(delay=1, longest_delay=5).connection(PEER)
    answers = [trio.current_time()]
    for _ in range(5):
        assert await logins.attempt(wrong) is None
        answers.append(trio.current_time())
    assert [after - before for before, after in pairwise(answers)] == [1, 2, 4, 5, 5]


async def test_a_connection_is_to_be_ended_after_its_tries(autojump_clock: MockClock) -> None:
    guard = LoginGuard()
    logins = guard.connection(PEER)
    exhausted = []
    for _ in range(3):
        await logins.attempt(wrong)
        exhausted.append(logins.exhausted)
    assert exhausted == [False, False, True]
    assert not guard.connection(PEER).exhausted


async def test_a_login_between_failures_does_not_give_tries_back(autojump_clock: MockClock) -> None:
    logins = LoginGuard(tries=2).connection(PEER)
    for check in (wrong, right, wrong):
        await logins.attempt(check)
    assert logins.exhausted


async def test_reconnecting_does_not_reset_the_delay(autojump_clock: MockClock) -> None:
    guard = LoginGuard(delay=1)
    for expected in (1, 2, 4):
        before = trio.current_time()
        await guard.connection(PEER).attempt(wrong)
        assert trio.current_time() - before == expected


async def test_who_hangs_up_before_the_answer_still_waits_on_the_next_connection(autojump_clock: MockClock) -> None:
    guard = LoginGuard(delay=10)
    with trio.move_on_after(0.5):
        await guard.connection(PEER).attempt(wrong)
    assert await guard.connection(PEER).attempt(right) is ANNA
    assert trio.current_time() == 10


async def test_other_addresses_do_not_wait(autojump_clock: MockClock) -> None:
    guard = LoginGuard(delay=10)
    with trio.move_on_after(0.5):
        await guard.connection(PEER).attempt(wrong)
    await guard.connection(Address("192.0.2.2", 40000)).attempt(right)
    assert trio.current_time() == 0.5


async def test_a_v6_network_of_64_bits_is_one_address(autojump_clock: MockClock) -> None:
    guard = LoginGuard(delay=1)
    await guard.connection(Address("2001:db8::1", 1)).attempt(wrong)
    await guard.connection(Address("2001:db8::2", 1)).attempt(wrong)
    assert trio.current_time() == 3
    await guard.connection(Address("2001:db8:0:1::1", 1)).attempt(wrong)
    assert trio.current_time() == 4


async def test_unix_peers_count_by_connection(autojump_clock: MockClock) -> None:
    guard = LoginGuard(delay=1)
    logins = guard.connection(Address(path="", uid=1000))
    await logins.attempt(wrong)
    await logins.attempt(wrong)
    assert trio.current_time() == 3
    await guard.connection(Address(path="", uid=1000)).attempt(wrong)
    assert trio.current_time() == 4


async def test_an_address_is_forgotten_in_time(autojump_clock: MockClock) -> None:
    guard = LoginGuard(delay=1, memory=60)
    for pause, expected in ((0, 1), (59, 2), (60, 1)):
        await trio.sleep(pause)
        before = trio.current_time()
        await guard.connection(PEER).attempt(wrong)
        assert trio.current_time() - before == expected


async def test_only_so_many_addresses_are_remembered_and_the_latest_to_fail_are(autojump_clock: MockClock) -> None:
    guard = LoginGuard(delay=1, addresses=2)
    one, two, three = (Address(f"192.0.2.{n}", 1) for n in (1, 2, 3))

    async def waits(peer: Address) -> float:
        before = trio.current_time()
        await guard.connection(peer).attempt(wrong)
        return trio.current_time() - before

    assert [await waits(peer) for peer in (one, two, one, three, one, two)] == [1, 1, 2, 1, 4, 1]


async def test_a_guard_without_memory_still_counts_tries(autojump_clock: MockClock) -> None:
    guard = LoginGuard(delay=1, addresses=0, tries=1)
    for expected in (1, 2):
        logins = guard.connection(PEER)
        await logins.attempt(wrong)
        assert logins.exhausted
        assert trio.current_time() == expected


async def test_who_never_failed_is_not_remembered(autojump_clock: MockClock) -> None:
    guard = LoginGuard(delay=1, addresses=1)
    await guard.connection(PEER).attempt(wrong)
    for n in range(2, 100):
        await guard.connection(Address(f"192.0.2.{n}", 1)).attempt(right)
    await guard.connection(PEER).attempt(wrong)
    assert trio.current_time() == 3


async def test_guesses_in_parallel_are_checked_two_at_a_time_and_wait_like_guesses_in_a_row(
    autojump_clock: MockClock,
) -> None:
    guard = LoginGuard(delay=1, longest_delay=10)
    running = most = 0
    checked = []

    async def check() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await trio.sleep(0.1)
        running -= 1
        checked.append(trio.current_time())

    with trio.move_on_after(100):
        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(guard.connection(PEER).attempt, check)
    assert most == 2
    assert 20 <= len(checked) <= 30  # at most two in each 10 seconds, once the delay has grown


async def test_waiting_out_a_delay_leaves_the_checks_to_others(autojump_clock: MockClock) -> None:
    guard = LoginGuard(delay=10)
    checks = trio.CapacityLimiter(1)

    async def attempt(peer: Address, result: Identity | None) -> None:
        async def check() -> Identity | None:
            async with checks:
                return result

        await guard.connection(peer).attempt(check)

    async with trio.open_nursery() as nursery:
        for n in range(1, 6):
            nursery.start_soon(attempt, Address(f"192.0.2.{n}", 1), None)
        await trio.sleep(1)
        await attempt(Address("198.51.100.7", 1), ANNA)
        assert trio.current_time() == 1


async def test_a_check_that_is_cancelled_or_fails_does_not_count(autojump_clock: MockClock) -> None:
    logins = LoginGuard(tries=1).connection(PEER)

    async def broken() -> Identity | None:
        raise OSError("no database")

    with pytest.raises(OSError, match="no database"):
        await logins.attempt(broken)
    with trio.move_on_after(1):
        await logins.attempt(partial(trio.sleep_forever))
    assert not logins.exhausted
    assert await logins.attempt(right) is ANNA
    assert trio.current_time() == 1


async def test_a_failure_is_logged_with_its_address(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    await LoginGuard().connection(PEER).attempt(wrong)
    assert caplog.messages == ["a login from 192.0.2.1:40000 failed; its next one waits 1 s"]


def test_importing_the_package_imports_no_library_of_the_extra() -> None:
    script = "import sys, asyncnet.auth; assert not {'argon2', 'scramp'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)

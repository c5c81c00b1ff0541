"""What is stored is what is read; and how patient a relay is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncnet.auth.identity import Identity
from asyncnet.relay.limits import QueueLimits
from asyncnet.relay.messages import Arrival, QueuedMessage, QueuedRecipient, State
from asyncnet.relay.retry import HOUR, RetryPolicy
from asyncnet.relay.rows import message_of, message_row, recipient_of, recipient_rows
from asyncnet.replies import Reply
from asyncnet.smtp.address import MailAddress
from asyncnet.smtp.delivery import Client, Role
from asyncnet.smtp.envelope import Body, Envelope, Notify, Recipient, Returned
from asyncnet.transports.address import Address

any_text = st.text(st.characters())  # lone surrogates, too
good_text = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1)
addresses = st.builds(MailAddress, good_text, good_text)
times = st.floats(0, 1e11)
peers = st.builds(
    Address,
    st.none() | st.ip_addresses().map(str),
    st.none() | st.integers(0, 65535),
    st.none() | good_text,
    st.none() | any_text,
    st.none() | st.integers(0, 2**32),
)
messages = st.builds(
    QueuedMessage,
    key=st.integers(0, 2**60),
    envelope=st.builds(
        Envelope,
        st.none() | addresses,
        st.sampled_from(Body),
        st.booleans(),
        st.none() | st.integers(0, 2**63),
        st.none() | st.sampled_from(Returned),
        st.none() | any_text,
    ),
    client=st.builds(
        Client,
        peers,
        any_text,
        st.sampled_from(Role),
        any_text,
        st.none() | st.builds(Identity, any_text),
        st.booleans(),
    ),
    arrived=times,
    expires=times,
    size=st.integers(0, 2**62),
    checksum=st.text("0123456789abcdef"),
    in_file=st.booleans(),
    held=st.booleans(),
    damage=st.none() | good_text,
)
replies = st.builds(Reply, st.integers(200, 599), st.lists(any_text, min_size=1).map(tuple))
recipients = st.builds(
    QueuedRecipient,
    position=st.integers(0, 10_000),
    recipient=st.builds(Recipient, addresses, st.frozensets(st.sampled_from(Notify)), st.none() | any_text),
    destination=good_text,
    state=st.sampled_from(State),
    attempts=st.integers(0, 1000),
    next_attempt=st.none() | times,
    last_attempt=st.none() | times,
    reply=st.none() | replies,
    remote=st.none() | any_text,
    warned=st.booleans(),
)


@given(messages)
def test_a_message_is_what_its_row_says_and_the_row_can_be_stored(message: QueuedMessage) -> None:
    row = message_row(message)
    assert message_of(row) == message
    storable(row)


@given(messages, st.lists(recipients))
def test_so_is_a_recipient(message: QueuedMessage, some: list[QueuedRecipient]) -> None:
    rows: list[dict[str, Any]] = recipient_rows(Arrival(message, tuple(some), None))
    assert [recipient_of(row) for row in rows] == some
    for row in rows:
        assert row["message"] == message.key
        storable(row)


def storable(row: dict[str, Any]) -> None:
    for value in row.values():
        if isinstance(value, str):
            value.encode()


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_a_pause_is_never_longer_than_the_longest_nor_shorter_than_chance_makes_it(
    attempts: int, chance: float
) -> None:
    policy = RetryPolicy()
    pause = policy.pause(attempts, chance)
    assert policy.first * (1 - policy.jitter) <= pause <= policy.longest
    assert pause >= policy.pause(attempts, 1)


def test_pauses_double_up_to_the_longest() -> None:
    pauses = [RetryPolicy().pause(attempts, 0) for attempts in range(1, 9)]
    assert pauses == [300, 600, 1200, 2400, 4800, 9600, 14400, 14400]


def test_a_warning_is_due_once_and_after_its_time() -> None:
    policy = RetryPolicy(warning=100)
    assert not policy.is_warning_due(arrived=1000, now=1099, warned=False)
    assert policy.is_warning_due(arrived=1000, now=1100, warned=False)
    assert not policy.is_warning_due(arrived=1000, now=1100, warned=True)


def test_a_message_is_given_up_when_its_time_is_over() -> None:
    policy = RetryPolicy()
    assert not policy.is_given_up(expires=1000, attempts=100, now=999, before=900)
    assert policy.is_given_up(expires=1000, attempts=1, now=1000, before=999)
    assert policy.is_given_up(expires=1000, attempts=1, now=1000 + 2 * HOUR, before=0)


def test_the_last_attempt_is_when_its_time_is_over() -> None:
    policy = RetryPolicy()
    assert policy.next_attempt(now=1000, expires=5000, attempts=1, chance=0) == 1300
    assert policy.next_attempt(now=1000, expires=1100, attempts=1, chance=0) == 1100
    assert policy.next_attempt(now=1000, expires=1000, attempts=1, chance=0) == 1300


@pytest.mark.parametrize("wrong", [{"first": 0}, {"expiry": -1}, {"jitter": 1.0}, {"longest": float("nan")}])
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"RetryPolicy.{next(iter(wrong))}"):
        RetryPolicy(**wrong)


@pytest.mark.parametrize("wrong", [{"memory": 0}, {"reserve": -1}, {"recipients": 0}])
def test_limits_that_make_no_sense_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"QueueLimits.{next(iter(wrong))}"):
        QueueLimits(**wrong)

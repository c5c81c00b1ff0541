"""The states of a POP3 session, without a network."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from asyncnet.errors import RemoteProtocolError
from asyncnet.mailbox.storage import Message
from asyncnet.pop3.session import Phase, Session

MESSAGES = [Message("a", 10, 1.0), Message("b", 20, 2.0), Message("c", 30, 3.0)]


def logged_in() -> Session:
    session = Session()
    session.log_in(MESSAGES)
    return session


@pytest.mark.parametrize("verb", ["STAT", "LIST", "RETR", "DELE", "NOOP", "RSET", "TOP", "UIDL"])
def test_a_mailbox_needs_a_login(verb: str) -> None:
    assert Session().check(verb) is not None
    assert logged_in().check(verb) is None


@pytest.mark.parametrize("verb", ["USER", "AUTH", "STLS", "PASS"])
def test_there_is_one_login(verb: str) -> None:
    assert logged_in().check(verb) is not None


@pytest.mark.parametrize("verb", ["CAPA", "QUIT"])
def test_some_commands_are_always_there(verb: str) -> None:
    assert Session().check(verb) is None
    assert logged_in().check(verb) is None


def test_a_password_needs_a_name_before_it() -> None:
    session = Session()
    assert session.check("PASS") is not None
    session.name = "anna"
    assert session.check("CAPA") is None
    assert session.check("PASS") is None
    assert session.name == "anna"
    assert session.check("AUTH") is None
    assert session.check("PASS") is not None


def test_what_is_deleted_is_counted_out_until_the_reset() -> None:
    session = logged_in()
    assert (session.phase, session.count, session.size) == (Phase.TRANSACTION, 3, 60)
    session.delete(session.number("2"))
    assert (session.count, session.size) == (2, 40)
    assert [number for number, _ in session.left()] == [1, 3]
    with pytest.raises(RemoteProtocolError, match="deleted"):
        session.number("2")
    session.reset()
    assert (session.count, session.size) == (3, 60)
    assert session.message(session.number("2")).uid == "b"


class Counting(list[Message]):
    """Messages that know how often all of them were looked at."""

    looks = 0

    def __iter__(self) -> Iterator[Message]:
        self.looks += 1
        return super().__iter__()


def test_who_asks_for_the_reset_again_and_again_has_nothing_counted_anew() -> None:
    session, messages = Session(), Counting(MESSAGES)
    session.log_in(messages)
    for _ in range(3):
        session.delete(1)
        session.reset()
        assert (session.count, session.size) == (3, 60)
    assert messages.looks == 1


@pytest.mark.parametrize("text", ["", "0", "4", "01", "-1", "1 2", "4294967295", "4294967297", "9" * 100, "٢"])
def test_what_is_no_number_of_a_message_is_refused(text: str) -> None:
    with pytest.raises(RemoteProtocolError):
        logged_in().number(text)

"""The states of an FTP session, without a network."""

from __future__ import annotations

import pytest

from asyncnet.ftp.session import Phase, Session


def test_commands_need_a_login_unless_they_say_otherwise() -> None:
    session = Session()
    refused = session.check("LIST", before_login=False)
    assert refused is not None
    assert refused.code == 530
    assert session.check("NOOP", before_login=True) is None
    session.name_given("anna")
    refused = session.check("LIST", before_login=False)
    assert refused is not None
    session.log_in()
    assert session.check("LIST", before_login=False) is None


@pytest.mark.parametrize("verb", ["PASV", "EPSV", "PORT", "EPRT", "TYPE", "NOOP", "SIZE", "ALLO"])
def test_what_was_announced_outlasts_what_may_come_between(verb: str) -> None:
    session = Session(phase=Phase.LOGGED_IN, offset=5, allocated=7)
    session.finish(verb, is_transfer=False)
    assert (session.offset, session.allocated) == (5, 7)


@pytest.mark.parametrize("verb", ["CWD", "PWD", "DELE", "MKD"])
def test_and_nothing_else(verb: str) -> None:
    session = Session(phase=Phase.LOGGED_IN, offset=5, allocated=7)
    session.finish(verb, is_transfer=False)
    assert (session.offset, session.allocated) == (0, None)


def test_a_transfer_uses_it_up() -> None:
    session = Session(phase=Phase.LOGGED_IN, offset=5, allocated=7)
    session.finish("STOR", is_transfer=True)
    assert (session.offset, session.allocated) == (0, None)


def test_a_rename_is_in_two_steps_with_nothing_between() -> None:
    session = Session(phase=Phase.LOGGED_IN, rename_from=("a",))
    assert session.check("RNTO", before_login=False) is None
    assert session.rename_from == ("a",)
    assert session.check("NOOP", before_login=True) is None
    refused = session.check("RNTO", before_login=False)
    assert refused is not None
    assert refused.code == 503


def test_a_new_name_keeps_tls_and_forgets_who_was_in() -> None:
    session = Session(secured=True, protected=True, buffer_size_set=True, phase=Phase.LOGGED_IN, folder=("a",))
    session.name_given("bert")
    assert (session.phase, session.name, session.folder) == (Phase.PASSWORD_WANTED, "bert", ())
    assert session.restarted() == Session(secured=True, protected=True, buffer_size_set=True)

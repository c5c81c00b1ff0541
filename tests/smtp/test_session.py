"""The states of an SMTP session, without a network."""

from __future__ import annotations

import re

import pytest

from asyncnet.auth.identity import Identity
from asyncnet.smtp import session as module
from asyncnet.smtp.envelope import Body, Envelope
from asyncnet.smtp.session import Phase, Session

VERBS = ("MAIL", "RCPT", "DATA", "BDAT", "STARTTLS", "AUTH")
ALWAYS = ("NOOP", "HELP", "VRFY", "EXPN", "RSET", "QUIT", "EHLO", "HELO", "LHLO")


def table() -> dict[tuple[str, Phase], str]:
    """The table in the module's own words."""
    assert module.__doc__ is not None
    rows = re.findall(r"^    (phase|NEW|READY|SENDER|RECIPIENTS|CHUNKS) +(.*)$", module.__doc__, re.MULTILINE)
    columns = rows[0][1].split()
    found = {}
    for phase, line in rows[1:]:
        for verb, cell in zip(columns, re.split(r"  +", line), strict=True):
            found[verb, Phase[phase]] = cell
    return found


@pytest.mark.parametrize("phase", Phase)
def test_what_is_legal_is_what_the_table_says(phase: Phase) -> None:
    session = Session(phase=phase, envelope=Envelope(None))
    for verb in VERBS:
        refusal = session.check(verb)
        assert (str(refusal)[:9] if refusal else None) == ("503 5.5.1" if table()[verb, phase] == "503" else None), verb
    for verb in ALWAYS:
        assert session.check(verb) is None


def test_a_greeting_ends_a_transaction() -> None:
    session = Session(phase=Phase.RECIPIENTS, envelope=Envelope(None), identity=Identity("anna"))
    session.greet("a.example", is_extended=True)
    assert (session.phase, session.envelope) == (Phase.READY, None)
    assert session.identity == Identity("anna")


def test_reset_greets_nobody() -> None:
    session = Session()
    session.reset()
    assert session.phase is Phase.NEW


def test_tls_forgets_everything_but_the_rules() -> None:
    session = Session(
        tls_required=True,
        login_required=True,
        phase=Phase.CHUNKS,
        client_name="a",
        identity=Identity("anna"),
        messages=5,
    )
    assert session.secured_anew() == Session(secured=True, tls_required=True, login_required=True)


def test_demands_come_before_the_order() -> None:
    assert str(Session(tls_required=True).check("MAIL")).startswith("530 5.7.0 STARTTLS")
    assert Session(tls_required=True).check("EHLO") is None
    assert str(Session(login_required=True, phase=Phase.READY).check("MAIL")).startswith("530 5.7.0 A login")


def test_binary_contents_come_by_bdat() -> None:
    session = Session(phase=Phase.RECIPIENTS, envelope=Envelope(None, Body.BINARY))
    assert session.check("DATA") is not None
    assert session.check("BDAT") is None

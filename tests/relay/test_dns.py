"""What name servers may answer, and what is made of it: one of a test's own says it, on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio

from asyncnet.relay.dns import DNSResolver
from asyncnet.relay.routing import DNSFailure, Exchanger, Host, NoRoute, NoSuchName, Router

pytest.importorskip("dns", reason="dnspython is not installed")

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

SOON = 0.5
"""How long, in seconds, an answer is waited for that does not come."""

Answers = Callable[[str, str], list[str] | dns.rcode.Rcode | bytes | None]
"""What is said to a name and a type: records, as in a zone's file ("@": the name that was asked for), a failure, any
bytes, or nothing."""


@asynccontextmanager
async def name_server(answers: Answers, timeout: float = 50) -> AsyncIterator[DNSResolver]:
    """Who asks a server that answers so."""
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as sock:
        await sock.bind(("127.0.0.1", 0))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_serve, sock, answers)
            yield DNSResolver(["127.0.0.1"], port=sock.getsockname()[1], timeout=timeout)
            nursery.cancel_scope.cancel()


async def _serve(sock: trio.socket.SocketType, answers: Answers) -> None:
    while True:
        data, peer = await sock.recvfrom(4096)
        query = dns.message.from_wire(data)
        question = query.question[0]
        kind = dns.rdatatype.to_text(question.rdtype)
        said = answers(question.name.to_text(), kind)
        if said is None:
            continue
        response = dns.message.make_response(query, recursion_available=True)
        if isinstance(said, dns.rcode.Rcode):
            response.set_rcode(said)
        elif isinstance(said, list):
            for record in said:
                name, kind, text = record.split(" ", 2)
                name = question.name.to_text() if name == "@" else name
                response.answer.append(dns.rrset.from_text(name, 0, "IN", kind, text))
        await sock.sendto(said if isinstance(said, bytes) else response.to_wire(), peer)


def zone(**records: list[str]) -> Answers:
    """Hosts in the domain "test", with their records. There is no other name."""

    def answers(name: str, kind: str) -> list[str] | dns.rcode.Rcode:
        found = records.get(name.removesuffix(".test."))
        if found is None:
            return dns.rcode.NXDOMAIN
        return [record for record in found if f" {kind} " in record or " CNAME " in record]

    return answers


async def hosts(answers: Answers) -> list[Host]:
    async with name_server(answers) as resolver:
        return list(await Router(resolver, shuffle=list.sort).hosts("mail.test"))


async def refused(answers: Answers, timeout: float = 50) -> str:
    async with name_server(answers, timeout) as resolver:
        try:
            await Router(resolver).hosts("mail.test")
        except NoRoute as exc:
            return exc.enhanced
    raise AssertionError("there is a way")


async def test_an_exchanger_that_does_not_exist_keeps_no_mail_from_the_others() -> None:
    answers = zone(mail=["@ MX 10 gone.test.", "@ MX 20 mx.test."], mx=["@ A 192.0.2.1"])
    assert await hosts(answers) == [Host("mx.test", ("192.0.2.1",))]


async def test_where_none_exists_there_is_no_way() -> None:
    assert await refused(zone(mail=["@ MX 10 gone.test.", "@ MX 20 192.0.2.1."])) == "5.4.4"


async def test_a_name_of_which_one_server_says_nothing_may_exist() -> None:
    def answers(name: str, kind: str) -> list[str] | dns.rcode.Rcode:
        if kind == "MX":
            return ["@ MX 10 gone.test."]
        return dns.rcode.NXDOMAIN if kind == "A" else dns.rcode.SERVFAIL

    assert await refused(answers) == "4.4.3"


async def test_one_kind_of_address_is_enough() -> None:
    def answers(name: str, kind: str) -> list[str] | dns.rcode.Rcode:
        found = {"MX": ["@ MX 10 mx.test."], "A": ["@ A 192.0.2.1"]}
        return found.get(kind, dns.rcode.SERVFAIL)

    assert await hosts(answers) == [Host("mx.test", ("192.0.2.1",))]


async def test_an_exchanger_that_is_an_alias_is_found() -> None:
    answers = zone(mail=["@ MX 10 mx.test."], mx=["@ CNAME real.test.", "real.test. A 192.0.2.1"])
    assert await hosts(answers) == [Host("mx.test", ("192.0.2.1",))]


@pytest.mark.parametrize(
    "said",
    [
        dns.rcode.SERVFAIL,
        dns.rcode.REFUSED,
        dns.rcode.FORMERR,
        dns.rcode.YXDOMAIN,
        b"",
        b"\0",
        b"\xff" * 600,
        ["@ CNAME mail.test."],
        ["@ CNAME 0.test.", *(f"{place}.test. CNAME {place + 1}.test." for place in range(100))],
        None,
    ],
    ids=lambda said: str(said)[:20],
)
async def test_what_is_no_answer_puts_the_mail_off(said: list[str] | dns.rcode.Rcode | bytes | None) -> None:
    assert await refused(lambda name, kind: said, SOON) == "4.4.3"


async def test_records_that_nobody_asked_for_lead_nowhere() -> None:
    answers = zone(mail=["@ MX 10 mx.test."], mx=["other.test. A 192.0.2.1"])
    assert await refused(answers) == "5.4.4"


async def test_what_holds_for_no_time_is_asked_for_each_time() -> None:
    asked: list[str] = []

    def answers(name: str, kind: str) -> list[str]:
        asked.append(kind)
        return ["@ MX 10 mx.test."] if kind == "MX" else []

    async with name_server(answers) as resolver:
        for _ in range(2):
            assert await resolver.exchangers("mail.test") == [Exchanger(10, "mx.test.")]
    assert asked == ["MX", "MX"]


@pytest.mark.parametrize("name", ["x" * 64 + ".test", ".".join(["x" * 60] * 5), "a..test"])
async def test_a_name_that_cannot_exist_does_not(name: str) -> None:
    async with name_server(lambda name, kind: None) as resolver:
        with pytest.raises(NoSuchName):
            await resolver.exchangers(name)
        with pytest.raises(NoSuchName):
            await resolver.addresses(name)


async def test_who_says_nothing_has_failed() -> None:
    async with name_server(lambda name, kind: None, SOON) as resolver:
        with pytest.raises(DNSFailure):
            await resolver.addresses("mx.test")

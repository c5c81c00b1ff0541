"""Where mail for a domain goes, by what the DNS says, and what comes of names that lead nowhere or back."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

import pytest

from asyncnet.relay.routing import (
    MAX_ADDRESSES,
    MAX_EXCHANGERS,
    MOST_LOOKED_AT,
    DNSFailure,
    Exchanger,
    Host,
    NoRoute,
    NoSuchName,
    Ourselves,
    Router,
)
from asyncnet.smtp.address import IPAddress


class Names:
    """A DNS of a few names. An exception in place of records is raised."""

    def __init__(
        self,
        exchangers: dict[str, Sequence[tuple[int, str]] | Exception] | None = None,
        addresses: dict[str, Sequence[str] | Exception] | None = None,
    ) -> None:
        self._exchangers = exchangers or {}
        self._addresses = addresses or {}
        self.asked: list[str] = []

    async def exchangers(self, domain: str) -> Sequence[Exchanger]:
        found = self._exchangers.get(domain, [])
        if isinstance(found, Exception):
            raise found
        return [Exchanger(*record) for record in found]

    async def addresses(self, host: str) -> Sequence[IPAddress]:
        self.asked.append(host)
        found = self._addresses.get(host, NoSuchName(host))
        if isinstance(found, Exception):
            raise found
        return [ipaddress.ip_address(address) for address in found]


async def hosts(names: Names, domain: str = "example.org", **options: object) -> list[Host]:
    return list(await Router(names, shuffle=list.sort, **options).hosts(domain))  # type: ignore[arg-type]


async def refused(names: Names, domain: str = "example.org", **options: object) -> NoRoute:
    with pytest.raises(NoRoute) as caught:
        await hosts(names, domain, **options)
    return caught.value


ADDRESSES: dict[str, Sequence[str] | Exception] = {
    "a.example": ["192.0.2.1"],
    "b.example": ["192.0.2.2", "2001:db8::2"],
    "c.example": ["192.0.2.3"],
    "example.org": ["192.0.2.9"],
}


async def test_the_preferred_exchanger_comes_first() -> None:
    names = Names({"example.org": [(20, "a.example."), (10, "B.Example."), (20, "c.example.")]}, ADDRESSES)
    assert await hosts(names) == [
        Host("b.example", ("2001:db8::2", "192.0.2.2")),
        Host("a.example", ("192.0.2.1",)),
        Host("c.example", ("192.0.2.3",)),
    ]


async def test_equals_are_shuffled_and_others_are_not() -> None:
    names = Names({"example.org": [(5, "b.example."), (1, "a.example."), (5, "c.example.")]}, ADDRESSES)
    shuffled = await Router(names, shuffle=lambda group: group.sort(reverse=True)).hosts("example.org")
    assert [host.name for host in shuffled] == ["a.example", "c.example", "b.example"]


async def test_a_domain_without_exchangers_is_its_own() -> None:
    assert await hosts(Names({}, ADDRESSES)) == [Host("example.org", ("192.0.2.9",))]


async def test_an_international_domain_is_asked_for_in_ascii() -> None:
    names = Names({"xn--mnchen-3ya.example": [(0, "a.example.")]}, ADDRESSES)
    assert [host.name for host in await hosts(names, "münchen.example")] == ["a.example"]


async def test_a_literal_is_a_host() -> None:
    assert await hosts(Names(), "[192.0.2.7]") == [Host("[192.0.2.7]", ("192.0.2.7",))]
    assert await hosts(Names(), "[IPv6:2001:db8::7]", port=2525) == [Host("[IPv6:2001:db8::7]", ("2001:db8::7",), 2525)]


async def test_no_domain_leads_nowhere() -> None:
    assert (await refused(Names(), "")).enhanced == "5.1.2"


async def test_who_does_not_exist_gets_no_mail() -> None:
    error = await refused(Names({"example.org": NoSuchName("example.org")}))
    assert (error.enhanced, error.is_permanent) == ("5.1.2", True)


async def test_who_wants_no_mail_gets_none() -> None:
    error = await refused(Names({"example.org": [(0, ".")]}, ADDRESSES))
    assert (error.enhanced, error.is_permanent) == ("5.1.10", True)


@pytest.mark.parametrize(
    "names",
    [
        Names({"example.org": DNSFailure("SERVFAIL")}),
        Names({"example.org": [(1, "a.example.")]}, {"a.example": DNSFailure("time")}),
        Names({"example.org": [(1, "a.example."), (2, "x.example.")]}, {"a.example": DNSFailure("time")}),
    ],
)
async def test_a_dns_that_fails_is_asked_again_later(names: Names) -> None:
    error = await refused(names)
    assert (error.enhanced, error.is_permanent) == ("4.4.3", False)


async def test_one_exchanger_that_the_dns_does_not_tell_does_not_matter_where_there_are_others() -> None:
    names = Names({"example.org": [(1, "x.example."), (2, "y.example."), (3, "a.example.")]}, ADDRESSES)
    names._addresses = {**ADDRESSES, "y.example": DNSFailure("time")}
    assert [host.name for host in await hosts(names)] == ["a.example"]


async def test_exchangers_without_an_address_are_no_route() -> None:
    error = await refused(Names({"example.org": [(1, "x.example."), (2, "y.example.")]}, {"y.example": []}))
    assert (error.enhanced, error.is_permanent) == ("5.4.4", True)


class TestLoops:
    RECORDS = Names({"example.org": [(10, "a.example."), (20, "b.example."), (20, "c.example.")]}, ADDRESSES)

    @pytest.mark.parametrize("ourselves", [Ourselves(["B.example."]), Ourselves(addresses=["2001:db8::2"])])
    async def test_we_pass_mail_on_to_better_ones_alone(self, ourselves: Ourselves) -> None:
        assert [host.name for host in await hosts(self.RECORDS, ourselves=ourselves)] == ["a.example"]

    @pytest.mark.parametrize("ourselves", [Ourselves(["a.example"]), Ourselves(addresses=["192.0.2.1"])])
    async def test_where_we_are_the_best_the_mail_comes_back(self, ourselves: Ourselves) -> None:
        error = await refused(self.RECORDS, ourselves=ourselves)
        assert (error.enhanced, error.is_permanent) == ("5.4.6", True)

    async def test_better_ones_that_the_dns_does_not_tell_are_no_loop(self) -> None:
        names = Names(self.RECORDS._exchangers, {**ADDRESSES, "a.example": DNSFailure("time")})
        error = await refused(names, ourselves=Ourselves(addresses=["192.0.2.2"]))
        assert (error.enhanced, error.is_permanent) == ("4.4.3", False)

    async def test_a_domain_without_exchangers_that_is_ourselves(self) -> None:
        assert (await refused(Names({}, ADDRESSES), ourselves=Ourselves(["example.org"]))).enhanced == "5.4.6"

    @pytest.mark.parametrize("literal", ["[192.0.2.7]", "[IPv6:::ffff:192.0.2.7]"])
    async def test_a_literal_that_is_ourselves(self, literal: str) -> None:
        assert (await refused(Names(), literal, ourselves=Ourselves(addresses=["192.0.2.7"]))).enhanced == "5.4.6"

    async def test_where_we_listen_everywhere_each_of_our_addresses_is_ourselves(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("asyncnet.relay.routing.is_own", lambda host: host == "2001:db8::2")
        everywhere = Ourselves(everywhere=True)
        assert [host.name for host in await hosts(self.RECORDS, ourselves=everywhere)] == ["a.example"]
        assert (await refused(Names(), "[IPv6:2001:db8::2]", ourselves=everywhere)).enhanced == "5.4.6"
        assert len(await hosts(self.RECORDS, ourselves=Ourselves())) == 3

    async def test_a_host_of_thousands_of_addresses_does_not_have_us_ask_about_each(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[str] = []
        monkeypatch.setattr("asyncnet.relay.routing.is_own", asked.append)
        many = [f"192.0.{number >> 8}.{number & 255}" for number in range(4000)] + ["2001:db8::1"]
        (host,) = await hosts(Names({}, {"example.org": many}), ourselves=Ourselves(everywhere=True))
        assert len(asked) == MOST_LOOKED_AT
        assert host.addresses == ("2001:db8::1", *many[: MAX_ADDRESSES - 1])


class TestTricks:
    @pytest.mark.parametrize(
        "address",
        ["127.0.0.1", "::1", "::ffff:127.0.0.1", "169.254.169.254", "fe80::1", "0.0.0.0", "::", "224.0.0.1", "ff02::1"],
    )
    async def test_no_domain_leads_to_our_own_machine_or_its_link(self, address: str) -> None:
        names = Names({"example.org": [(1, "a.example.")]}, {"a.example": [address]})
        assert (await refused(names)).enhanced == "5.4.4"
        literal = f"[IPv6:{address}]" if ":" in address else f"[{address}]"
        assert (await refused(Names(), literal)).enhanced == "5.4.4"

    async def test_what_leads_there_besides_is_left_out(self) -> None:
        names = Names({"example.org": [(1, "a.example.")]}, {"a.example": ["127.0.0.1", "192.0.2.1"]})
        assert await hosts(names) == [Host("a.example", ("192.0.2.1",))]

    async def test_a_thousand_exchangers_are_not_all_looked_up(self) -> None:
        many = [(number // 7, f"h{number:04}.example.") for number in range(1000)]
        names = Names({"example.org": many}, {f"h{number:04}.example": ["192.0.2.1"] for number in range(1000)})
        found = await hosts(names)
        assert len(found) == len(names.asked) == MAX_EXCHANGERS
        assert found[0].name == "h0000.example"

    async def test_a_host_of_a_thousand_addresses_is_not_tried_at_all_of_them(self) -> None:
        many = [f"192.0.2.{number}" for number in range(200)] + [f"2001:db8::{number:x}" for number in range(1, 200)]
        (host,) = await hosts(Names({"example.org": [(1, "a.example.")]}, {"a.example": many}))
        assert len(host.addresses) == MAX_ADDRESSES
        assert {":" in address for address in host.addresses} == {True, False}

    @pytest.mark.parametrize("literal", ["[x:y]", "[x-tag:192.0.2.1]"])
    async def test_a_literal_of_a_kind_that_nobody_knows(self, literal: str) -> None:
        assert (await refused(Names(), literal)).enhanced == "5.1.2"

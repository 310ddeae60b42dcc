"""Names of endpoints: looked up through a function that is handed in, and once through the system's resolver."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from router.control.names import AT_A_TIME, Names, chosen, system_lookup
from tests.test_prober import Heard, Pauses
from tests.waiting import until


@dataclass
class Zone:
    """A resolver that says what stands in it; a name that is not there is not known, a gate holds its look-ups up."""

    records: dict[str, Sequence[str]]
    gate: asyncio.Event | None = None
    asked: list[str] = field(default_factory=list)
    present: int = 0
    most: int = 0

    async def lookup(self, name: str) -> Sequence[str]:
        self.asked.append(name)
        self.present += 1
        self.most = max(self.most, self.present)
        try:
            if self.gate is not None:
                await self.gate.wait()
        finally:
            self.present -= 1
        if name not in self.records:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return self.records[name]


@dataclass
class House:
    names: Names
    pauses: Pauses
    log: Heard
    changes: list[dict[str, tuple[str, ...]]]

    async def round(self, count: int = 1) -> None:
        """Look everything up once more."""
        await until(lambda: len(self.pauses.waiting) == count)
        self.pauses.go_on()
        await until(lambda: len(self.pauses.waiting) == count)


@asynccontextmanager
async def naming(zone: Zone) -> AsyncIterator[House]:
    pauses, log, changes = Pauses(), Heard(), []
    names = Names(
        lambda: changes.append(dict(names.resolved)),
        lookup=zone.lookup,
        chance=lambda: 0.75,
        sleep=pauses.sleep,
        log=log,
    )
    try:
        yield House(names, pauses, log, changes)
    finally:
        await names.stop()


@pytest.mark.parametrize(
    ("found", "taken"),
    [
        (["10.0.0.10", "10.0.0.9", "10.0.0.9"], ("10.0.0.9", "10.0.0.10")),
        (["::1", "127.0.0.1"], ("127.0.0.1",)),
        (["fd00::2", "fd00::1"], ("fd00::1", "fd00::2")),
        ([], ()),
    ],
)
def test_all_addresses_count_sorted_and_ipv4_before_ipv6(found: list[str], taken: tuple[str, ...]) -> None:
    assert chosen(found) == taken


async def test_a_start_has_all_names_and_a_change_is_told_and_said_once() -> None:
    zone = Zone({"shop.internal": ["10.0.0.2", "10.0.0.1"], "cart.internal": ["10.0.1.1"]})
    async with naming(zone) as house:
        await house.names.start({"shop.internal": 10.0, "cart.internal": 20.0})
        assert house.names.resolved == {"shop.internal": ("10.0.0.1", "10.0.0.2"), "cart.internal": ("10.0.1.1",)}
        assert house.changes == []
        await until(lambda: len(house.pauses.asked) == 2)
        assert sorted(house.pauses.asked) == pytest.approx([10.5, 21.0])
        zone.records["shop.internal"] = ["10.0.0.3"]
        await house.round(2)
        await house.round(2)
        assert [change["shop.internal"] for change in house.changes] == [("10.0.0.3",)]
        assert house.log.lines[-1] == "the name shop.internal is 10.0.0.3, before 10.0.0.1, 10.0.0.2"


async def test_a_failed_or_empty_look_up_keeps_the_addresses_and_is_said_once() -> None:
    zone = Zone({"shop.internal": ["10.0.0.1"]})
    async with naming(zone) as house:
        await house.names.start({"shop.internal": 10.0})
        house.log.lines.clear()
        del zone.records["shop.internal"]
        await house.round()
        await house.round()
        assert house.names.errors == {"shop.internal": "Name or service not known"}
        zone.records["shop.internal"] = []
        await house.round()
        await house.round()
        assert house.names.errors == {"shop.internal": "it has no address"}
        zone.records["shop.internal"] = ["10.0.0.1"]
        await house.round()
        assert house.names.resolved == {"shop.internal": ("10.0.0.1",)}
        assert (house.names.errors, house.changes) == ({}, [])
        assert house.log.lines == [
            "the name shop.internal was not found: Name or service not known; 10.0.0.1 stays in force",
            "the name shop.internal was not found: it has no address; 10.0.0.1 stays in force",
            "the name shop.internal is found again: 10.0.0.1",
        ]


async def test_a_start_does_not_wait_for_a_slow_resolver_and_goes_on_with_what_was_known() -> None:
    zone = Zone({"shop.internal": ["10.0.0.2"]}, gate=asyncio.Event())
    async with naming(zone) as house:
        known = {"shop.internal": ("10.0.0.1",), "gone.internal": ("10.9.9.9",)}
        await house.names.start({"shop.internal": 10.0}, known, within=0.05)
        assert house.names.resolved == {"shop.internal": ("10.0.0.1",)}
        assert "not looked up within 0.05 s: shop.internal" in house.log.lines[0]
        assert zone.gate is not None
        zone.gate.set()
        await until(lambda: house.changes == [{"shop.internal": ("10.0.0.2",)}])


async def test_only_a_few_look_ups_are_on_their_way_at_a_time() -> None:
    hosts = {f"host-{i}": 10.0 for i in range(20)}
    zone = Zone({host: ["10.0.0.1"] for host in hosts}, gate=asyncio.Event())
    async with naming(zone) as house:
        await house.names.start(hosts, within=0.05)
        assert zone.present == AT_A_TIME
        assert zone.gate is not None
        zone.gate.set()
        await until(lambda: len(house.names.resolved) == 20)
        assert zone.most == AT_A_TIME


async def test_an_update_looks_up_what_is_new_and_forgets_what_is_gone() -> None:
    zone = Zone({"old.internal": ["10.0.0.1"], "new.internal": ["10.0.0.2"], "both.internal": ["10.0.0.3"]})
    async with naming(zone) as house:
        await house.names.start({"old.internal": 10.0, "both.internal": 10.0})
        house.names.update({"new.internal": 10.0, "both.internal": 10.0})
        await until(lambda: house.changes)
        assert house.changes == [{"new.internal": ("10.0.0.2",), "both.internal": ("10.0.0.3",)}]
        assert zone.asked.count("both.internal") == 1


async def test_the_systems_resolver_knows_localhost_and_says_what_it_does_not_know() -> None:
    assert "127.0.0.1" in await system_lookup("localhost")
    with pytest.raises(OSError, match=r"not known|No address"):
        await system_lookup("nobody.invalid")

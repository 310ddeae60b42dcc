"""What control finds out about endpoints, together: where names lead, checks of those addresses, one piece of news."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from router.config.compile import snapshot_spec
from router.config.settings import Settings
from router.control.backends import MIN_GAP_SECONDS, Backends
from router.core.spec import SnapshotSpec
from router.proxy.tls import client_context
from tests.house import fixed, raw_backend
from tests.test_config import parse
from tests.test_names import Zone
from tests.test_prober import BAD, GOOD, Heard
from tests.waiting import until

CONFIG = """\
services:
  shop:
    resolve: 1s
    health: {{path: /healthz, interval: 1s, failures: {failures}}}
    versions:
      v1: {{endpoints: [{endpoints}]}}
    rings: [{{name: everyone, version: v1}}]
"""


def config(*endpoints: str, failures: int = 1) -> Settings:
    return parse(CONFIG.format(endpoints=", ".join(f'"http://{one}"' for one in endpoints), failures=failures))


@dataclass
class House:
    backends: Backends
    settings: Settings
    news: list[SnapshotSpec] = field(default_factory=list)

    def snapshot(self) -> SnapshotSpec:
        return snapshot_spec(self.settings, {}, 1, resolved=self.backends.resolved, down=self.backends.down)


@asynccontextmanager
async def watching(
    settings: Settings, zone: Zone, left_behind: SnapshotSpec | None = None, min_gap: float = MIN_GAP_SECONDS
) -> AsyncIterator[House]:
    backends = Backends(
        lambda: house.news.append(house.snapshot()), client_context, lookup=zone.lookup, min_gap=min_gap, log=Heard()
    )
    house = House(backends, settings)
    await backends.start(settings, left_behind)
    try:
        yield house
    finally:
        await backends.stop()


def version(spec: SnapshotSpec) -> tuple[list[str], list[str]]:
    """The addresses of the only version, and which of them are down."""
    (only,) = spec.services[0].versions
    return [one.address for one in only.endpoints], list(only.down)


async def test_a_name_that_moves_takes_the_checks_along_and_what_was_known_of_the_old_address_is_forgotten() -> None:
    async with raw_backend(fixed(BAD)) as port:
        zone = Zone({"shop.internal": ["127.0.0.1"]})
        async with watching(config(f"shop.internal:{port}"), zone) as house:
            await until(lambda: house.news)
            assert version(house.news[-1]) == ([f"127.0.0.1:{port}"], [f"127.0.0.1:{port}"])
            zone.records["shop.internal"] = ["127.0.0.2"]  # where nobody listens
            await until(lambda: version(house.news[-1])[0] == [f"127.0.0.2:{port}"])
            await until(lambda: version(house.news[-1])[1] == [f"127.0.0.2:{port}"])
            assert house.backends.down == {("shop", "v1"): (f"127.0.0.2:{port}",)}


async def test_a_restart_while_dns_is_away_goes_on_with_the_addresses_and_the_health_left_behind() -> None:
    async with raw_backend(fixed(GOOD)) as port:
        settings = config(f"shop.internal:{port}", failures=3)
        before = snapshot_spec(
            settings, {}, 7,
            resolved={"shop.internal": ("127.0.0.1", "127.0.0.2")}, down={("shop", "v1"): (f"127.0.0.2:{port}",)},
        )  # fmt: skip
        async with watching(settings, Zone({}), before) as house:
            assert version(house.snapshot()) == version(before)
            assert house.backends.names_state()["shop.internal"]["error"] == "Name or service not known"


async def test_a_config_that_is_read_again_is_followed_before_the_next_snapshot() -> None:
    async with raw_backend(fixed(BAD)) as bad, raw_backend(fixed(GOOD)) as good:
        async with watching(config(f"127.0.0.1:{bad}"), Zone({})) as house:
            await until(lambda: house.backends.down)
            house.settings = config(f"127.0.0.1:{good}")
            house.backends.update(house.settings)
            assert house.backends.down == {}
            await until(lambda: [key[2] for key, one in house.backends.figures().items() if one.passed])
            assert list(house.backends.figures()) == [("shop", "v1", f"127.0.0.1:{good}")]


async def test_many_endpoints_that_go_down_together_are_few_snapshots() -> None:
    count = 30
    async with AsyncExitStack() as stack:
        ports = [await stack.enter_async_context(raw_backend(fixed(BAD))) for _ in range(count)]
        settings = config(*(f"127.0.0.1:{port}" for port in ports))
        async with watching(settings, Zone({}), min_gap=0.5) as house:
            await until(lambda: house.news and len(version(house.news[-1])[1]) == count, within=20)
            assert len(house.news) < count / 3

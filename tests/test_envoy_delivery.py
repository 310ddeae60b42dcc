"""Files that are put where a real Envoy reads them: in force when it says so, taken back when it refuses them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from router.envoy.admin import TIMEOUT, Admin
from router.envoy.delivery import Delivery, RefusedError
from router.envoy.resources import CLUSTERS, LISTENERS, resources
from tests.envoy_house import needs_envoy, running_envoy
from tests.house import fixed, raw_backend, shop, snapshot
from tests.running import BODY

pytestmark = needs_envoy


async def test_what_envoy_refuses_is_taken_back_and_what_comes_next_is_taken(tmp_path: Path) -> None:
    async with raw_backend(fixed(BODY)) as v1, raw_backend(fixed(BODY)) as v2:
        spec = snapshot(shop((v1,), (v2,)))
        async with running_envoy(tmp_path, spec) as envoy, aiohttp.ClientSession(timeout=TIMEOUT) as session:
            delivery = Delivery(tmp_path, [Admin(f"127.0.0.1:{envoy.admin}", session)])
            good = resources(snapshot(shop((v1,), (v2,), canary=4000)), envoy.options)
            assert await delivery.deliver(good, 2) == []
            assert envoy.is_wide(40)
            files = {path: path.read_bytes() for path in map(tmp_path.joinpath, good.by_file())}
            nameless = {**good.clusters[0], "name": ""}
            unknown = {**good.listeners[0], "filter_chains": [{"filters": [{"name": "there is none"}]}]}
            broken = [
                (CLUSTERS, replace(good, clusters=(*good.clusters, nameless))),
                (LISTENERS, replace(good, listeners=(unknown,))),
            ]
            for name, made in broken:
                with pytest.raises(RefusedError, match=name):
                    await delivery.deliver(made, 3)
                assert {path: path.read_bytes() for path in files} == files
            assert await delivery.deliver(resources(snapshot(shop((v1,), (v2,), canary=1000)), envoy.options), 4) == []
            assert envoy.is_wide(10)

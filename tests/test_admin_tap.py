"""The tap over the API: requests as they come, of whom one wants, without anybody's key."""

from __future__ import annotations

from pathlib import Path

import msgspec

from router.admin import shapes
from tests.admin import administered
from tests.test_admin_events import listening
from tests.waiting import until


async def test_a_tap_shows_the_requests_of_one_ring_and_nobodys_key(tmp_path: Path) -> None:
    async with administered(tmp_path) as house:
        async with listening(house, "/api/v1/tap?service=shop&ring=everyone&rate=1000") as tab:

            async def is_heard() -> bool:
                await house.router.ring_of("victor")
                return bool(tab.of("message"))

            await until(is_heard)
            one = msgspec.convert(tab.of("message")[0], shapes.Tapped)
            assert (one.service, one.ring, one.version, one.reason) == ("shop", "everyone", "v1", "default")
            assert (one.method, one.path, one.status) == ("GET", "/", 200)
            assert one.identity
            assert b"victor" not in tab.raw
        assert (await house.call("GET", "/tap?service=shop&ring=nobody")).status == 404
        assert (await house.call("GET", "/tap?rate=0")).status == 400

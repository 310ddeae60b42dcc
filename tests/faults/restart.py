"""The router of a stage ended and started again in another way: under limits, with another log, another config."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.faults.rig import Stage


@contextlib.asynccontextmanager
async def unobserved(stage: Stage) -> AsyncIterator[None]:
    """The admin side may be away meanwhile, and the workers may be others afterwards."""
    assert stage.observer is not None
    stage.observer.is_looking = False
    yield
    stage.workers_before = stage.router.workers()
    stage.observer.is_looking = True


async def restarted(
    stage: Stage, *, access_log: Path | None = None, prefix: tuple[str, ...] = (),
    environment: Mapping[str, str] | None = None, config: Mapping[str, Any] | None = None,
) -> None:  # fmt: skip
    """A router that has served nobody yet but for a warm-up; ``config`` replaces keys of the config file."""
    async with unobserved(stage):
        await stage.router.stop()
        fresh = stage.directory / f"access-{stage.router.process.pid}.log"
        stage.access_log = fresh if access_log is None else access_log
        stage.setup = replace(stage.setup, prefix=prefix, environment=environment or {})
        if config:
            stage.config.write_text(json.dumps({**json.loads(stage.config.read_text()), **config}))
        await stage.start_router()
        await stage.settle()

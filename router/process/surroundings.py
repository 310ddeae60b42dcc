"""What the rollouts of this instance's services stand in: rules, live values, other services, and who is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import structlog

from router.control.notify import Notifier
from router.control.rules import ServiceRules
from router.control.sources import Sources, Unasked
from router.core.live import Live
from router.rollout import windows
from router.rollout.plan import Applies, Plan
from router.rollout.progress import Event
from router.rollout.statistics.two_ring import Tick

if TYPE_CHECKING:
    from router.process.control import Control


class Surroundings:
    """``control.conductor.Surroundings``."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._log = structlog.get_logger()
        self._notifier = Notifier()
        self._sources: dict[str, tuple[Plan, Sources]] = {}
        self._said: dict[tuple[str, str], str] = {}
        """Service and guardrail → why it could not be asked."""

    @property
    def notices(self) -> dict[str, int]:
        """How many were sent, and how many were dropped."""
        return {"sent": self._notifier.sent, "dropped": self._notifier.dropped}

    def rules(self, service: str) -> ServiceRules | None:
        return self._control.rules.get(service)

    def live(self, service: str) -> Live:
        return self._control.store.live.get(service, Live())

    async def asked(self, plan: Plan, ring: str) -> tuple[dict[str, Tick], list[str]]:
        known = self._sources.get(plan.service)
        if known is None or known[0] != plan:
            if known is not None:
                await known[1].stop()
            known = self._sources[plan.service] = plan, Sources(plan)
        found, missing = {}, []
        for name, answer in (await known[1].ask(ring)).items():
            if isinstance(answer, Unasked):
                missing.append(name)
                self._say_once(plan.service, name, answer.reason)
            else:
                found[name] = answer
                self._said.pop((plan.service, name), None)
        return found, missing

    def _say_once(self, service: str, name: str, why: str) -> None:
        if self._said.get((service, name)) != why:
            self._said[service, name] = why
            self._log.warning(f"{name} could not be asked, so it is no evidence: {why}", service=service)

    def lost(self, plan: Plan) -> list[str]:
        """Dependencies that do not hold; of services that this instance does not have nothing is known."""
        found = []
        for one in plan.depends_on:
            rules = self.rules(one.service)
            if rules is None or one.ring not in rules.rings:
                found.append(f"{one.service} has no ring {one.ring} here, so it is not known what it runs")
                continue
            version = rules.effective_versions(self.live(one.service)).get(one.ring, "")
            if version != one.version:
                found.append(f"{one.ring} of {one.service} runs {version}, not {one.version}")
        return found

    def closed(self, plan: Plan, at: float, applies: Applies) -> str:
        return windows.closed(plan.windows, at, applies)

    def say(self, plan: Plan, events: Sequence[Event]) -> None:
        for event in events:
            self._notifier.say(plan, event)

    async def start(self) -> None:
        await self._notifier.start()

    async def stop(self) -> None:
        await self._notifier.stop()
        for _, sources in self._sources.values():
            await sources.stop()

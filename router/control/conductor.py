"""Conducts the rollouts of this instance's services: every instance looks on, one of them leads each.

Whoever holds the lease (``control.leading``) takes in each tick that is over, lets the fold decide
(``rollout.machine``) and writes what comes of it in one script (``control.led``). A leader that is killed, stopped or
cut off is replaced when its lease ends; the next one goes on from the state that Redis has and makes the open windows
again from the ticks of one window, so no tick counts twice and none is skipped. Redis away: nothing moves, and what is
routed stays.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog
from redis.asyncio import Redis

from router.control.gathering import Following
from router.control.keys import key_of
from router.control.leading import COMMANDS, RENEW_SECONDS, ROLLOUT, Lease
from router.control.led import Led, Surroundings, resumed, whole
from router.control.link import error_text, hang_up, make_client
from router.control.rollouts import Stored, decode_progress, load
from router.control.weights import Refused
from router.rollout.progress import Event, Progress
from router.rollout.sampling import sample_of
from router.telemetry.tasks import end, spawn

LOOK_SECONDS: Final = (0.1, 0.5)
"""Between two looks at what goes on, a quarter of a tick; within these."""
IDLE_SECONDS: Final = 1.0
"""Between two looks at services where nothing goes on."""
SERVICES_AT_ONCE: Final = 200
"""Of more of them each is looked at less often."""
ASK_SECONDS: Final = 4.0
"""For everything that a turn asks: Redis, and a plan's sources."""
RELEASE_SECONDS: Final = 1.0


class Conductor:
    """``start`` it; ``progress`` is what it knows of each service."""

    def __init__(
        self,
        url: str | None,
        instance: str,
        owner: str,
        services: Callable[[], list[str]],
        around: Surroundings,
        follow: Callable[[Mapping[str, Following]], None],
        is_up: Callable[[], bool],
        on_news: Callable[[str, Progress | None, Progress], None],
        log: Any = None,
    ) -> None:
        """``owner`` is a name that no other process ever had; ``follow`` is told whose users are to be counted."""
        self._url = url
        self._instance = instance
        self._owner = owner
        self._services = services
        self._around = around
        self._follow = follow
        self._is_up = is_up
        self._on_news = on_news
        self._log = structlog.get_logger(__name__) if log is None else log
        self.progress: dict[str, Progress] = {}
        """Service → how its rollout stands, or how the last one ended."""
        self._numbers: dict[str, bytes] = {}
        """Service → the turn that ``progress`` is of."""
        self._stored: dict[str, Stored] = {}
        """What others lead."""
        self.leads_taken: dict[str, int] = {}
        """Service → how often this instance has taken the lead."""
        self.transitions: dict[tuple[str, str, str], int] = {}
        """Service, phase, and whether somebody wanted it (human) or not (auto) → how often this instance wrote it."""
        self._leases: dict[str, Lease] = {}
        self._renewed: dict[str, float] = {}
        self._led: dict[str, Led] = {}
        self._said: dict[str, str] = {}
        self._place = 0
        self._task: asyncio.Task[None] | None = None

    def leads(self, service: str) -> bool:
        """Whether this instance holds the lease."""
        lease = self._leases.get(service)
        return lease is not None and bool(lease.token)

    def tick_seconds(self, service: str) -> float:
        """Of the rollout that is under way; 0: there is none."""
        following = self._following(service)
        return 0.0 if following is None else following.tick

    def start(self) -> None:
        if self._url is not None:
            self._task = spawn(self._run(self._url), name="rollouts")

    async def stop(self) -> None:
        if self._task is not None:
            await end(self._task)

    async def _run(self, url: str) -> None:
        client = make_client(url)
        idle_at = 0.0
        try:
            while True:
                going = {name for name, one in self.progress.items() if one.ended_at is None}
                is_idle_due = time.monotonic() >= idle_at
                if is_idle_due:
                    idle_at = time.monotonic() + IDLE_SECONDS
                if self._is_up() and (going or is_idle_due):
                    await self._turn(client, sorted(going | set(self._some())) if is_idle_due else sorted(going))
                await asyncio.sleep(self._pace(going))
        finally:
            await self._farewell()
            await hang_up(client)

    def _some(self) -> list[str]:
        """Those whose turn it is."""
        names = self._services()
        found = [names[(self._place + more) % len(names)] for more in range(min(len(names), SERVICES_AT_ONCE))]
        self._place = (self._place + len(found)) % max(1, len(names))
        return found

    async def _farewell(self) -> None:
        """Let somebody else lead at once."""
        try:
            async with asyncio.timeout(RELEASE_SECONDS):
                for lease in self._leases.values():
                    await lease.release()
        except Exception:  # noqa: BLE001 - they lapse by themselves
            return

    def _pace(self, going: set[str]) -> float:
        stored = [one.stored for one in self._led.values()] + [*self._stored.values()]
        ticks = [one.plan.tick for one in stored if one.plan.service in going]
        return min(max(min(ticks) / 4, LOOK_SECONDS[0]), LOOK_SECONDS[1]) if ticks else IDLE_SECONDS / 2

    async def _turn(self, client: Redis, services: list[str]) -> None:
        try:
            async with asyncio.timeout(ASK_SECONDS):
                wanted = await self._hear(client, services)
        # A dead transport may raise RuntimeError, TypeError or AttributeError as well; the watcher says it.
        except Exception as error:  # noqa: BLE001
            self._say("", f"rollouts could not be looked at: {error_text(error)}")
            return
        self._said.pop("", None)
        await asyncio.gather(*(self._service(client, name) for name in wanted))
        self._follow({name: following for name in wanted if (following := self._following(name)) is not None})

    async def _hear(self, client: Redis, services: list[str]) -> list[str]:
        """What is new of these services; those where something goes on, or is wished for."""
        async with client.pipeline(transaction=False) as pipe:
            for name in services:
                pipe.hget(key_of(name, ROLLOUT), "n")
                pipe.llen(key_of(name, COMMANDS))
            answers: list[Any] = await pipe.execute(raise_on_error=False)
        wanted = []
        for place, name in enumerate(services):
            number, wishes = answers[2 * place : 2 * place + 2]
            if not isinstance(number, bytes):
                self.progress.pop(name, None)
                self._numbers.pop(name, None)
                continue
            if self._numbers.get(name) != number:
                self._note(name, number, await client.hget(key_of(name, ROLLOUT), "progress"))
            shown = self.progress.get(name)
            if shown is not None and (shown.ended_at is None or (isinstance(wishes, int) and wishes > 0)):
                wanted.append(name)
        return wanted

    def _note(self, service: str, number: bytes, raw: Any) -> None:
        """What the leader has written."""
        self._numbers[service] = number
        self._stored.pop(service, None)
        self._led.pop(service, None)  # it was not we who wrote this
        shown = decode_progress(raw or b"")
        if shown is not None:
            before, self.progress[service] = self.progress.get(service), shown
            self._on_news(service, before, shown)

    async def _service(self, client: Redis, service: str) -> None:
        try:
            async with asyncio.timeout(ASK_SECONDS):
                await self._look_after(client, service)
            self._said.pop(service, None)
        except Refused as refused:
            self._led.pop(service, None)
            self._say(service, str(refused))
        # A dead transport may raise RuntimeError, TypeError or AttributeError as well.
        except Exception as error:  # noqa: BLE001
            # Nobody knows whether what was written arrived: what is known of it is read again.
            self._led.pop(service, None)
            self._say(service, f"the rollout of {service} could not be looked at: {error_text(error)}")

    def _say(self, service: str, sentence: str) -> None:
        """Each once, until it is well again."""
        if self._said.get(service) != sentence:
            self._said[service] = sentence
            self._log.warning(sentence)

    async def _look_after(self, client: Redis, service: str) -> None:
        rules = self._around.rules(service)
        if rules is None:
            return
        lease = self._leases.setdefault(service, Lease(client, service, self._owner))
        now = time.monotonic()
        if not lease.token or now - self._renewed.get(service, 0.0) >= RENEW_SECONDS:
            had = lease.token
            if await lease.hold():
                self._renewed[service] = now
            if lease.token and lease.token != had:
                self._led.pop(service, None)
                self.leads_taken[service] = self.leads_taken.get(service, 0) + 1
                self._log.info(f"this instance leads the rollout of {service} now", service=service)
        if not lease.token:
            self._led.pop(service, None)
            if service not in self._stored:
                stored = await load(client, rules)
                if stored is not None:
                    self._stored[service] = stored
            return
        led = self._led.get(service)
        if led is None or led.rules is not rules:  # the config file is another one by now
            stored = await load(client, rules)
            if stored is None:
                return
            cohorts = await resumed(client, stored)
            led = self._led[service] = Led(
                client, rules, self._around, self._instance, stored, cohorts, self._count, self._log
            )
        if not await led.turn(lease):
            del self._led[service]
        elif led.stored.progress is not None and led.stored.progress is not self.progress.get(service):
            before, self.progress[service] = self.progress.get(service), led.stored.progress
            self._numbers[service] = str(led.stored.number).encode()
            self._on_news(service, before, led.stored.progress)

    def _count(self, service: str, event: Event) -> None:
        if event.kind == "transition":
            key = service, event.after.partition(" ")[0], "human" if event.actor else "auto"
            self.transitions[key] = self.transitions.get(key, 0) + 1

    def _following(self, service: str) -> Following | None:
        """Whose users are counted for it, and how long."""
        led, rules = self._led.get(service), self._around.rules(service)
        stored = led.stored if led is not None else self._stored.get(service)
        if stored is None or rules is None or stored.state.has_ended:
            return None
        plan = stored.plan
        sample = sample_of(plan.candidate, *whole(rules, self._around.live(service), stored.state.expected))
        return Following(plan.candidate, plan.tick, sample.keep_ppm, plan.window)

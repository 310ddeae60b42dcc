"""One rollout as its leader has it: tick by tick, what there is goes to the fold, and what comes of it to Redis."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import msgspec
import structlog
from redis.asyncio import Redis

from router.control.evidence import read_acks, read_tick
from router.control.keys import RawFault, RawService, key_of
from router.control.leading import COMMANDS, SEEN, Field, Lease, Write
from router.control.parse import parse
from router.control.recount import entry_of, news, outcome, pack
from router.control.rollouts import Stored, decode_commands, encode_state, routing_of
from router.control.rules import WHOLE, ServiceRules, percent
from router.core.live import Live
from router.rollout.cohorts import Cohorts, Note, Taken
from router.rollout.machine import advance
from router.rollout.observation import Cohort, Command, Observation
from router.rollout.plan import Applies, Plan
from router.rollout.progress import Event, Progress
from router.rollout.sampling import Sample, sample_of
from router.rollout.showing import progress
from router.rollout.state import Routing, State
from router.rollout.statistics.latency import Earlier
from router.rollout.statistics.two_ring import Tick
from router.telemetry.evidence import Ack, TickPart, together

ACK_FRESH_SECONDS: Final = 7.0
"""An instance that has said nothing for longer is not there."""
LATE_TICKS: Final = 2
"""How long a tick waits for instances that have not said all of theirs."""
GRACE_SECONDS: Final = 2.5
MOST_BEHIND: Final = 90
"""Ticks that are made up for after a time without a leader; older ones are evidence that nobody has looked at."""


class Surroundings(Protocol):
    """What a rollout needs of its instance beside Redis (``process.control``)."""

    def rules(self, service: str) -> ServiceRules | None: ...
    def live(self, service: str) -> Live: ...
    async def asked(self, plan: Plan, ring: str) -> tuple[dict[str, Tick], list[str]]:
        """What the plan's sources have counted since they were asked last about a ring, and which did not answer."""
        ...

    def lost(self, plan: Plan) -> list[str]:
        """Dependencies that do not hold, as sentences."""
        ...

    def closed(self, plan: Plan, at: float, applies: Applies) -> str:
        """The window that forbids it, as a sentence."""
        ...

    def say(self, plan: Plan, events: Sequence[Event]) -> None:
        """Tell whoever wants to be told."""
        ...


@dataclass(frozen=True, slots=True)
class Look:
    """One reading of what is not users: the clock, the routing, the wishes, and what everybody has applied."""

    at: float
    raw: RawService
    live: Live
    routing: Routing
    commands: tuple[Command, ...]
    waiting: int
    """Commands in the list, those that could not be read too."""
    acks: Mapping[str, Ack]

    @property
    def there(self) -> list[str]:
        """Instances that are there."""
        return sorted(name for name, ack in self.acks.items() if self.at - ack.at < ACK_FRESH_SECONDS)


def whole(rules: ServiceRules, live: Live, expected: Routing) -> tuple[dict[str, int], dict[str, str]]:
    """Weights and versions of all rings of a service, the default ring's too, when that is applied."""
    routing = routing_of(rules, live)
    weights = {**routing.weights, **expected.weights}
    weights[rules.default_ring] = WHOLE - sum(weight for ring, weight in weights.items() if ring != rules.default_ring)
    return weights, {**routing.versions, **expected.versions}


class Led:
    """``turn`` it now and then. What it knows is what Redis has: when a write was refused, or nobody knows whether it
    arrived, it is made anew (``resumed``)."""

    def __init__(
        self, client: Redis, rules: ServiceRules, around: Surroundings, instance: str, stored: Stored, cohorts: Cohorts,
        count: Callable[[str, Event], None], log: Any = None,
    ) -> None:  # fmt: skip
        self._client = client
        self.rules = rules
        self._around = around
        self._instance = instance
        self._cohorts = cohorts
        self._count = count
        self._log = structlog.get_logger(__name__) if log is None else log
        self.stored = stored

    async def turn(self, lease: Lease) -> bool:
        """Everything that is due. False: it is not ours any more."""
        look = await self._look()
        if look.waiting or self._cannot_wait(look):
            seen = replace(self._observation(look, self.stored.state.tick), is_whole=False)
            if not await self._advance(lease, seen, look):
                return False
        for _ in range(MOST_BEHIND):
            tick = self._next_tick(look.at)
            if tick is None or self.stored.state.has_ended:
                break
            parts = await read_tick(self._client, self.rules.name, tick)
            if not self._is_complete(parts, look, tick):
                break
            look = await self._look()
            taken = self._cohorts.take(tick, *together(parts.values()))
            if not await self._advance(lease, await self._whole_tick(look, tick, parts, taken), look, taken):
                return False
        return True

    def _next_tick(self, at: float) -> int | None:
        """The next tick that is over; None: it is not."""
        newest = int(at // self.stored.plan.tick) - 1
        known = self.stored.state.tick
        tick = max(known + 1, newest - MOST_BEHIND) if known else newest
        return tick if tick <= newest else None

    def _is_complete(self, parts: Mapping[str, TickPart], look: Look, tick: int) -> bool:
        """Whether all who are there have said all of theirs, or had time enough to."""
        length = self.stored.plan.tick
        if look.there and all(name in parts and parts[name].is_done for name in look.there):
            return True
        return look.at >= (tick + 1) * length + max(LATE_TICKS * length, GRACE_SECONDS)

    def _cannot_wait(self, look: Look) -> bool:
        """Between two ticks: is there anything that should not wait for the next one?"""
        state = self.stored.state
        if state.phase in ("pending", "waiting", "shifting", "rolling_back"):
            return True
        return not state.has_ended and state.phase != "paused" and not _is_as(look.routing, state.expected)

    # -- what there is -------------------------------------------------------------------------------------------------

    async def _look(self) -> Look:
        rules = self.rules
        async with self._client.pipeline(transaction=False) as pipe:
            pipe.time()
            for name in ("weights", "versions", "control"):
                pipe.hgetall(key_of(rules.name, name))
            pipe.lrange(key_of(rules.name, COMMANDS), 0, -1)
            answers: list[Any] = await pipe.execute(raise_on_error=False)
        (seconds, micros), weights, versions, control, wishes = answers
        raw = RawService(*(_hash(one) for one in (weights, versions, control)))
        live = parse(raw, rules, self._around.live(rules.name), time.time()).live
        wishes = wishes if isinstance(wishes, list) else []
        acks = await read_acks(self._client, rules.name)
        return Look(
            seconds + micros / 1e6, raw, live, routing_of(rules, live), decode_commands(wishes), len(wishes), acks
        )

    def _observation(self, look: Look, tick: int) -> Observation:
        state, plan = self.stored.state, self.stored.plan
        waiting = [name for name in look.there if not _has_applied(look.acks[name], state.expected)]
        applied = [look.acks[name].since for name in look.there if name not in waiting]
        applies: Applies = "start" if state.phase in ("pending", "waiting") else "expand"
        return Observation(
            tick=tick, at=look.at, weights=tuple(look.routing.weights.items()),
            versions=tuple(look.routing.versions.items()), holdbacks=tuple(look.routing.holdbacks.items()),
            killed=tuple(ring for ring in look.live.killed if ring in state.expected.versions),
            freeze=look.live.freeze, live=tuple(look.there), waiting=tuple(waiting),
            applied_at=max(applied, default=0.0), commands=look.commands,
            closed=self._around.closed(plan, look.at, applies),
        )  # fmt: skip

    async def _whole_tick(self, look: Look, tick: int, parts: Mapping[str, TickPart], taken: Taken) -> Observation:
        plan, state = self.stored.plan, self.stored.state
        seen = self._observation(look, tick)
        counted, missing = await self._around.asked(plan, state.step_of(plan).ring)
        cohorts = [
            # It knows of no users and no rounds: every test takes it.
            Cohort(name, "source", 0, state.round, one.ring_units, one.ring_outcomes, one.control_units,
                   one.control_outcomes)
            for name, one in counted.items()
        ]  # fmt: skip
        return replace(
            seen, cohorts=(*taken.cohorts, *cohorts), slices=taken.slices, ring_requests=taken.ring_requests,
            ring_errors=taken.ring_errors, failing_slices=taken.failing_slices, users_hurt=taken.users_hurt,
            control_requests=taken.control_requests, control_errors=taken.control_errors,
            all_requests=sum(part.all_requests for part in parts.values()),
            arrived=(self._cohorts.arrived[0], self._cohorts.arrived[1]), share=self.sample.share,
            reporting=sum(name in parts for name in seen.live),
            open_breakers=sum(part.open_breakers for part in parts.values()), missing=tuple(missing),
            lost=tuple(self._around.lost(plan)),
        )  # fmt: skip

    @property
    def sample(self) -> Sample:
        state, plan = self.stored.state, self.stored.plan
        return sample_of(plan.candidate, *whole(self.rules, self._around.live(plan.service), state.expected))

    # -- what comes of it ----------------------------------------------------------------------------------------------

    async def _advance(self, lease: Lease, seen: Observation, look: Look, taken: Taken | None = None) -> bool:
        """Let the fold decide, and write what comes of it. False: it is not ours any more."""
        plan, before = self.stored.plan, self.stored.state
        while True:
            after, routing = advance(plan, before, seen)
            wrong = self._refusal(look, routing)
            if wrong:
                rails = Command(f"rails-{seen.at}", "pause", "the config", wrong)
                seen = replace(seen, commands=(*seen.commands, rails))
                after, routing = advance(plan, before, seen)
            if taken is None and not look.waiting and not news(after) and routing is None:
                self.stored = replace(self.stored, state=replace(before, live=after.live, waiting=after.waiting))
                return True
            shown = progress(plan, after, self._instance, self.stored.progress)
            what = self._write(look, after, routing, seen, shown, taken)
            match await lease.write(what):
                case "OK":
                    break
                case "CONFLICT":  # somebody was faster: look again; the users of the tick are taken in already
                    look = await self._look()
                    again = self._observation(look, seen.tick)
                    seen = replace(
                        seen, at=again.at, weights=again.weights, versions=again.versions, holdbacks=again.holdbacks,
                        killed=again.killed, freeze=again.freeze, commands=again.commands,
                    )  # fmt: skip
                case answer:
                    why = "another instance leads" if answer == "FENCED" else "its state is another one by now"
                    self._log.warning(
                        f"a turn of the rollout of {plan.service} was refused: {why}", service=plan.service
                    )
                    return False
        self.stored = replace(self.stored, number=what.number + 1, state=after, progress=shown)
        if after.step_round != before.step_round:
            self._cohorts.begin_step(after.step_round, after.clean_tick, _held(after))
        elif after.round != before.round:
            self._cohorts.begin_round(after.round)
        for event in news(after):
            self._count(plan.service, event)
            self._log.info(event.sentence, service=plan.service, rollout=after.id, phase=after.phase)
        self._around.say(plan, news(after))
        return True

    def _refusal(self, look: Look, routing: Routing | None) -> str:
        """What every instance would say of this routing, where they would not apply it."""
        if routing is None:
            return ""
        hashes = {name: dict(_fields(look.raw, name)) for name in ("weights", "versions", "control")}
        for name, key, text in changes(look, routing):
            hashes[name][key.encode()] = text.encode()
        after = parse(RawService(**hashes), self.rules, look.live, time.time())
        return " ".join(problem.message for problem in after.problems)

    def _write(
        self, look: Look, after: State, routing: Routing | None, seen: Observation, shown: Progress,
        taken: Taken | None,
    ) -> Write:  # fmt: skip
        sets = [] if routing is None else changes(look, routing)
        expect: list[Field] = [
            (name, key, _fields(look.raw, name).get(key.encode(), b"").decode("utf-8", "replace"))
            for name, key, _ in sets
        ]
        cohorts = {
            "earlier": self._cohorts.earlier.to_plain(),
            "edges": {str(tick): edges for tick, edges in self._cohorts.edges.items()},
        }
        notes = taken.notes.items() if taken is not None else ()
        return Write(
            number=self.stored.number, state=encode_state(after), cohorts=msgspec.json.encode(cohorts),
            progress=msgspec.json.encode(shown), observation=pack(seen), outcome=outcome(after),
            expect=expect, set=sets,
            audit=[entry_of(after, one, self._instance) for one in news(after) if one.kind == "transition"],
            notes=[word for digest, note in notes for word in (str(digest), " ".join(map(str, note)))],
            commands=look.waiting,
        )  # fmt: skip


async def resumed(client: Redis, stored: Stored) -> Cohorts:
    """The users whose windows are open, made again from the ticks of one window."""
    plan, state, cohorts = stored.plan, stored.state, Cohorts(stored.plan)
    window = max(1, round(plan.window / plan.tick))
    found: Any = await client.hgetall(key_of(plan.service, SEEN))
    notes = {int(digest): Note(*map(int, words.split())) for digest, words in found.items()}
    numbers = range(state.tick - window + 1, state.tick + 1) if state.tick else ()
    ticks = [(tick, *together((await read_tick(client, plan.service, tick)).values())) for tick in numbers]
    edges = {int(tick): one for tick, one in stored.cohorts.get("edges", {}).items()}
    earlier = Earlier.from_plain(stored.cohorts.get("earlier", []))
    cohorts.resume(
        state.round, state.step_round, state.clean_tick, _held(state), notes, edges, earlier, state.arrived, ticks
    )
    return cohorts


def changes(look: Look, routing: Routing) -> list[Field]:
    """The fields that make this routing of what Redis holds: hash, field and text."""
    now = look.routing
    moved = {ring: weight for ring, weight in routing.weights.items() if now.weights.get(ring) != weight}
    sets: list[Field] = [("weights", ring, percent(weight)) for ring, weight in moved.items()]
    if moved:
        revision = _fields(look.raw, "weights").get(b"rev", b"")
        sets.append(("weights", "rev", str(int(revision) + 1) if revision.isdigit() else "1"))
    sets += [
        ("versions", ring, version) for ring, version in routing.versions.items() if now.versions.get(ring) != version
    ]
    held = {**now.holdbacks, **routing.holdbacks}
    if held != now.holdbacks:
        words = " ".join(f"{ring}={percent(points)}" for ring, points in held.items() if points)
        sets.append(("control", "holdback", words))
    return sets


def _fields(raw: RawService, name: str) -> Mapping[bytes, bytes]:
    found = getattr(raw, name)
    return {} if isinstance(found, RawFault) else found


def _hash(answer: Any) -> Any:
    return RawFault("wrong_type", str(answer)) if isinstance(answer, Exception) else answer


def _held(state: State) -> list[str]:
    """Rings whose members are compared among each other."""
    return [ring for ring, held in state.expected.holdbacks.items() if held]


def _is_as(now: Routing, wanted: Routing) -> bool:
    return (
        all(now.weights.get(ring) == weight for ring, weight in wanted.weights.items())
        and all(now.versions.get(ring) == version for ring, version in wanted.versions.items())
        and all(now.holdbacks.get(ring, 0) == held for ring, held in wanted.holdbacks.items())
    )


def _has_applied(ack: Ack, expected: Routing) -> bool:
    return _is_as(Routing(ack.weights, ack.versions, ack.holdbacks), expected)

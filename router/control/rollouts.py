"""Rollouts as Redis keeps them: what anybody may ask of one, and how people's wishes reach whoever leads.

``rings:{shop}:rollout`` is a hash: ``id``, ``plan`` (as it was given, JSON), ``first`` (the state that it began with),
``n`` (grows with each turn), ``state``, ``cohorts``, ``progress`` (``rollout.progress``) and ``leader``.
``rings:{shop}:rollout:commands`` is a list that the leader empties, and ``rings:{shop}:rollout:observations`` a stream
of what each verdict rests on (``control.proofs``).
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec
from redis.asyncio import Redis

from router.control.audit import note
from router.control.authors import Author
from router.control.in_force import instances_with
from router.control.keys import key_of
from router.control.leading import COMMANDS, OBSERVED, ROLLOUT, SEEN
from router.control.rules import ServiceRules
from router.control.weights import Refused, read_current
from router.core.live import Live
from router.rollout import machine, sentences
from router.rollout import state as states
from router.rollout.document import PlanError, to_plan
from router.rollout.observation import VERBS, Command, How, Verb
from router.rollout.plan import Plan
from router.rollout.progress import Progress
from router.rollout.showing import progress
from router.rollout.state import Routing, State
from router.rollout.words import span

LOOK_AGAIN_SECONDS: Final = 0.1
_progress: Final = msgspec.json.Decoder(Progress)
_command: Final = msgspec.json.Decoder(Command)


@dataclass(frozen=True, slots=True)
class Stored:
    """A rollout as it is kept."""

    id: str
    plan: Plan
    number: int
    state: State
    cohorts: Mapping[str, Any]
    progress: Progress | None


def routing_of(rules: ServiceRules, live: Live) -> Routing:
    """What is routed, in the words of a rollout."""
    holdbacks = {ring: live.holdbacks.get(ring, 0) for ring in rules.rings}
    return Routing(rules.effective_weights(live), rules.effective_versions(live), holdbacks)


async def start(
    client: Redis, rules: ServiceRules, plan: Mapping[str, Any], *, reason: str, by: Author, supersedes: bool = False
) -> Progress:
    """Begin a rollout of this plan (plain data, see ``rollout.document``). Raises ``weights.Refused``: the plan is
    wrong or has a holdback where an instance routes with Envoy, another one runs (``supersedes``: it ends, its rings go
    back to its stable version), or the cooldown is not over."""
    live = (await read_current(client, rules)).parsed.live
    try:
        wanted = to_plan(rules.name, plan, replace(rules, weights=rules.effective_weights(live)))
    except PlanError as error:
        raise Refused(str(error)) from None
    if rules.effective_versions(live)[rules.default_ring] == wanted.candidate:
        raise Refused(
            f"{rules.default_ring} of {rules.name} runs {wanted.candidate} already, so nobody is left to widen to; "
            f"`ring-router rollout rollback` takes a rollout back"
        )
    await _expect_holdbacks(client, rules, wanted)
    now = await _now(client)
    known = await load(client, rules)
    if known is not None and not known.state.has_ended:
        if not supersedes:
            raise Refused(
                f"a rollout of {known.plan.candidate} runs in {rules.name} ({known.state.phase}): end it with "
                f"`rollout rollback` or `rollout abort`, or start this one with --supersede"
            )
        await command(client, rules, "rollback", reason=reason or "superseded", by=by, how="superseded", wait=30.0)
        known = await load(client, rules)
    if known is not None:
        _expect_cool(known, wanted, now)
    current = await read_current(client, rules)
    if current.parsed.live.freeze:
        raise Refused(f"{rules.name} is frozen ({current.parsed.live.freeze}): nothing is widened until it is thawed")
    id_ = f"{rules.name}-{int(now)}"
    first = machine.begin(wanted, id_, now, by.name, reason, routing_of(rules, current.parsed.live))
    shown = progress(wanted, first, "")
    key, plain = key_of(rules.name, ROLLOUT), encode_state(first)
    async with client.pipeline(transaction=True) as pipe:
        pipe.delete(key, *(key_of(rules.name, one) for one in (COMMANDS, OBSERVED, SEEN)))
        pipe.hset(
            key,
            mapping={
                "id": id_, "plan": json.dumps(plan), "first": plain, "state": plain, "cohorts": "{}", "n": "1",
                "progress": msgspec.json.encode(shown),
            },
        )  # fmt: skip
        note(pipe, rules.name, "rollout", {"phase": ("-", "pending")}, sentences.begun(wanted), by=by)
        await pipe.execute()
    return shown


async def _expect_holdbacks(client: Redis, rules: ServiceRules, wanted: Plan) -> None:
    """Envoy hashes a request once: there a holdback would never be in force, and the step would wait for ever."""
    number = next((number for number, step in enumerate(wanted.steps) if step.holdback), None)
    if number is None:
        return
    behind = await instances_with(client, rules, "envoy")
    if behind:
        raise Refused(
            f"steps[{number}].holdback: {', '.join(behind)} routes with Envoy, which cannot hold users back: "
            f"leave `holdback` out and give {wanted.steps[number].ring} a `weight`"
        )


def _expect_cool(known: Stored, wanted: Plan, now: float) -> None:
    left = known.plan.cooldown - (now - (known.state.ended_at or now))
    is_again = known.plan.candidate == wanted.candidate and known.state.phase in ("rolled_back", "rollback_stalled")
    if is_again and left > 0:
        raise Refused(
            f"{wanted.candidate} was rolled back {span(known.plan.cooldown - left)} ago "
            f"({known.state.cause}): it may be tried again in {span(left)} (`rollback.cooldown`)"
        )


async def command(
    client: Redis, rules: ServiceRules, verb: Verb, *, reason: str, by: Author, how: How = "", wait: float = 5.0
) -> Progress:
    """Ask for something, and wait so many seconds until the leader has done it. Raises ``weights.Refused``: nothing
    runs, it cannot be done in this phase, or nobody leads (the wish stays, and the message says so)."""
    if verb not in VERBS:
        raise Refused(f"{verb} is nothing that can be done with a rollout: {', '.join(VERBS)}")
    known = await load(client, rules)
    if known is None:
        raise Refused(f"{rules.name} has no rollout: `ring-router rollout start PLAN.yaml` begins one")
    wish = Command(uuid.uuid4().hex, verb, by.name, reason, how)
    await client.rpush(key_of(rules.name, COMMANDS), msgspec.json.encode(wish))
    deadline = time.monotonic() + wait
    while True:
        known = await load(client, rules)
        if known is None:
            raise Refused(f"the rollout of {rules.name} is gone")
        if wish.id in known.state.done:
            if wish.id in known.state.refused:
                raise Refused(f"{verb}: {known.state.refused[wish.id]}")
            return known.progress or progress(known.plan, known.state, "")
        if time.monotonic() > deadline:
            raise Refused(
                f"nobody has followed `{verb}` within {span(wait)}: is a router running with this Redis? "
                f"The wish stays, and whoever leads next follows it"
            )
        await asyncio.sleep(LOOK_AGAIN_SECONDS)


async def read(client: Redis, service: str) -> Progress | None:
    """How the service's rollout stands, or how its last one ended; None: there was none."""
    raw: Any = await client.hget(key_of(service, ROLLOUT), "progress")
    return decode_progress(raw) if raw else None


def decode_progress(raw: bytes) -> Progress | None:
    """None for what is of another version of this router, or of somebody at the prompt."""
    try:
        return _progress.decode(raw)
    except msgspec.DecodeError:
        return None


async def load(client: Redis, rules: ServiceRules) -> Stored | None:
    """Everything about it. Raises ``weights.Refused`` where what is kept cannot be read."""
    found: Any = await client.hgetall(key_of(rules.name, ROLLOUT))
    fields = {name.decode(): value for name, value in found.items()}
    if "id" not in fields:
        return None
    try:
        state = decode_state(fields["state"])
        ground = replace(rules, weights={**rules.weights, **state.before.weights})  # those that it was judged by
        return Stored(
            fields["id"].decode(), to_plan(rules.name, json.loads(fields["plan"]), ground), int(fields["n"]),
            state, json.loads(fields["cohorts"]), decode_progress(fields.get("progress", b"")),
        )  # fmt: skip
    except PlanError as error:
        raise Refused(f"the rollout of {rules.name} does not fit the config any more: {error}") from None
    except (KeyError, ValueError, TypeError) as error:
        raise Refused(
            f"{key_of(rules.name, ROLLOUT)} cannot be read ({error!r}): was it changed by hand? Delete it to begin anew"
        ) from None


def encode_state(state: State) -> bytes:
    return msgspec.json.encode(states.to_plain(state))


def decode_state(raw: bytes) -> State:
    """Raises ValueError, KeyError or TypeError for what ``encode_state`` cannot have made."""
    return states.from_plain(msgspec.json.decode(raw))


def decode_commands(raw: list[bytes]) -> tuple[Command, ...]:
    """What is none is left out, and cleared away with the others."""
    found = []
    for one in raw:
        try:
            found.append(_command.decode(one))
        except msgspec.DecodeError:
            continue
    return tuple(found)


async def _now(client: Redis) -> float:
    seconds, micros = await client.time()
    return float(seconds) + float(micros) / 1e6

"""Every verdict comes out again from what is kept, and whoever changes what is kept is found."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis

from router.control import rollouts
from router.control.authors import Author
from router.control.keys import key_of
from router.control.leading import OBSERVED, ROLLOUT, Lease, Write
from router.control.recount import entry_of, news, outcome, pack, verify
from router.control.rollouts import decode_state, encode_state
from router.control.rules import ServiceRules
from router.control.weights import Refused
from router.rollout import machine
from router.rollout.observation import Observation
from router.rollout.plain import plan_to_plain
from router.rollout.plan import Plan
from router.rollout.state import State
from tests.redis_fixture import SHOP
from tests.rollout_hand import PLAN, Hand

RULES: ServiceRules = replace(SHOP, weights={"canary": 0, "early": 0}, versions=dict.fromkeys(SHOP.rings, "v1"))
AUDIT, KEPT = key_of("shop", "audit"), key_of("shop", OBSERVED)


class Kept(Hand):
    """A rollout whose every turn is written as its leader writes it."""

    def __init__(self, redis: Redis, plan: Plan = PLAN) -> None:
        super().__init__(plan)
        self.redis = redis
        self.lease = Lease(redis, "shop", "east")
        self.turns: list[tuple[Observation, State]] = []

    async def begin(self) -> None:
        await rollouts.start(
            self.redis, RULES, plan_to_plain(self.plan), reason="v2 is ready", by=Author("ada", "desk")
        )
        raw: Any = await self.redis.hget(key_of("shop", ROLLOUT), "state")
        self.state = decode_state(raw)
        self.at = self.state.at
        assert await self.lease.hold()

    def take(self, seen: Observation) -> Any:
        routing = super().take(seen)
        self.turns.append((seen, self.state))
        return routing

    async def write(self) -> None:
        for number, (seen, state) in enumerate(self.turns, 1):
            audit = [entry_of(state, one, "east") for one in news(state) if one.kind == "transition"]
            kept = pack(seen), outcome(state)
            assert await self.lease.write(Write(number, encode_state(state), b"{}", b"{}", *kept, audit=audit)) == "OK"


async def a_story(redis: Redis) -> Kept:
    """Two steps by proof, one unproven by somebody's wish, and then harm: twenty turns and more."""
    kept = Kept(redis)
    await kept.begin()
    kept.reach("baking", 2)
    kept.tick(cohorts=kept.good())
    kept.look(kept.wish("pause"))
    kept.look(kept.wish("promote"))
    kept.tick()
    kept.tick(ring_requests=1000, ring_errors=900, failing_slices=0b111)
    kept.look(waiting=("west",))
    kept.look()
    assert kept.state.phase == "rolled_back"
    await kept.write()
    return kept


async def entries(redis: Redis, key: str) -> list[Any]:
    found: Any = await redis.xrange(key)
    return list(found)


async def rewrite(redis: Redis, key: str, number: int, **fields: bytes | None) -> None:
    """One entry of a stream is another one, or with None is gone."""
    kept = await entries(redis, key)
    await redis.delete(key)
    for at, (id_, known) in enumerate(kept):
        if at != number or None not in fields.values():
            changed = {name.encode(): text for name, text in fields.items()} if at == number else {}
            await redis.xadd(key, {**known, **changed}, id=id_)


async def test_a_true_run_comes_out_the_same(redis_client: Redis) -> None:
    await a_story(redis_client)
    assert await verify(redis_client, RULES) == []


async def test_a_run_longer_than_what_is_read_at_once_comes_out_the_same(redis_client: Redis) -> None:
    kept = Kept(redis_client)
    await kept.begin()
    kept.reach("proving")
    for _ in range(520):
        kept.look()
    kept.look(kept.wish("rollback"))
    await kept.write()
    assert len(await entries(redis_client, KEPT)) > 520
    assert await verify(redis_client, RULES) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda seen: replace(seen, cohorts=tuple(replace(one, ring_outcomes=1.0) for one in seen.cohorts)),
        lambda seen: replace(seen, cohorts=seen.cohorts[1:]),
        lambda seen: replace(seen, reporting=0),
    ],
    ids=["fewer failures", "a guardrail less", "instances that did not report"],
)  # fmt: skip
async def test_an_observation_that_was_changed_is_named(redis_client: Redis, change: Any) -> None:
    kept = await a_story(redis_client)
    number = next(at for at, (_, state) in enumerate(kept.turns) if state.step == 1)
    seen = change(kept.turns[number][0])
    await rewrite(redis_client, KEPT, number, observation=pack(seen))
    wrong = await verify(redis_client, RULES)
    assert wrong[0].startswith(f"turn {number + 2}: ")


async def test_an_outcome_that_was_changed_is_named_and_no_other(redis_client: Redis) -> None:
    kept = await a_story(redis_client)
    number = next(at for at, (_, state) in enumerate(kept.turns) if state.phase == "rolling_back")
    lie = outcome(kept.turns[number][1]).replace(b'"phase":"rolling_back"', b'"phase":"succeeded"')
    await rewrite(redis_client, KEPT, number, outcome=lie)
    wrong = await verify(redis_client, RULES)
    assert [one.split(":")[0] for one in wrong] == [f"turn {number + 2}"]
    assert "succeeded" in wrong[0]


async def test_an_observation_that_is_gone_is_missed(redis_client: Redis) -> None:
    kept = await a_story(redis_client)
    number = next(at for at, (_, state) in enumerate(kept.turns) if state.phase == "baking")
    await rewrite(redis_client, KEPT, number, observation=None)
    assert f"turn {number + 2} is not kept" in (await verify(redis_client, RULES))[0]


async def test_an_audit_entry_with_other_words_is_named_with_what_it_should_say(redis_client: Redis) -> None:
    kept = await a_story(redis_client)
    audit = await entries(redis_client, AUDIT)
    number = next(at for at, (_, known) in enumerate(audit) if known.get(b"to") == b"rolling_back")
    await rewrite(redis_client, AUDIT, number, reason=b"all was well")
    said = next(one for one in kept.state.events if one.after == "rolling_back")
    line = f"rollout, {said.before} → rolling_back:"
    assert await verify(redis_client, RULES) == [
        f"the audit says what does not follow from the observations: {line} all was well",
        f"the audit does not say: {line} {said.sentence}",
    ]


async def test_an_audit_entry_that_is_gone_is_named(redis_client: Redis) -> None:
    await a_story(redis_client)
    audit = await entries(redis_client, AUDIT)
    number = next(at for at, (_, known) in enumerate(audit) if known.get(b"to") == b"rolled_back")
    await rewrite(redis_client, AUDIT, number, reason=None)
    (wrong,) = await verify(redis_client, RULES)
    assert wrong.startswith(
        "the audit does not say: rollout, rolling_back → rolled_back: all 2 instances route v1 again"
    )


@pytest.mark.parametrize("field", ["to", "actor"])
async def test_an_audit_entry_that_names_somebody_or_something_else_is_found(redis_client: Redis, field: str) -> None:
    kept = await a_story(redis_client)
    audit = await entries(redis_client, AUDIT)
    mine = (b"ada", kept.state.id.encode())
    number = next(at for at, (_, known) in enumerate(audit) if (known.get(b"actor"), known.get(b"rev")) == mine)
    await rewrite(redis_client, AUDIT, number, **{field: b"somebody"})
    assert await verify(redis_client, RULES)


async def test_where_there_was_nothing_or_nothing_is_kept_it_says_so(redis_client: Redis) -> None:
    with pytest.raises(Refused, match="has had no rollout"):
        await verify(redis_client, RULES)
    await a_story(redis_client)
    await redis_client.delete(KEPT)
    with pytest.raises(Refused, match="no observation of shop-"):
        await verify(redis_client, RULES)


async def test_what_is_kept_without_its_beginning_is_not_verified(redis_client: Redis) -> None:
    await a_story(redis_client)
    first = (await entries(redis_client, KEPT))[0][0]
    await redis_client.xdel(KEPT, first)
    with pytest.raises(Refused, match="beginning"):
        await verify(redis_client, RULES)


async def test_the_fold_is_the_one_that_a_leader_runs(redis_client: Redis) -> None:
    kept = await a_story(redis_client)
    first: Any = await redis_client.hget(key_of("shop", ROLLOUT), "first")
    state = decode_state(first)
    for seen, after in kept.turns:
        state, _ = machine.advance(PLAN, state, seen)
        assert state == after

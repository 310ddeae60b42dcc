"""Versions, kills, freeze and drains changed on purpose: the same hashes that anybody can HSET, plus an audit trail.

Judged by the watcher's own parser and written in one MULTI … EXEC that fails if somebody else was faster. It must never
lift a kill, a freeze or a drain by the way, and never write what an instance would refuse.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from redis.asyncio import Redis
from redis.exceptions import WatchError

from router.control.audit import UNSET, note
from router.control.authors import Author
from router.control.keys import REVISION_FIELD, RawFault, key_of
from router.control.parse import parse
from router.control.revision import rev_of
from router.control.rules import ServiceRules, say_changes, say_holdbacks
from router.control.weights import ATTEMPTS, Change, Current, Refused, read_current
from router.core.live import Live

LeverName = Literal["versions", "control"]


@dataclass(frozen=True, slots=True)
class Motion:
    """What shall be written. ``fields`` of the hash: text, or None for a field that goes."""

    action: str
    fields: Mapping[str, str | None]
    before: Sequence[str]
    """For the audit: one word for each field."""


Decide = Callable[[Current], Motion | None]
"""What to do about what there is; None: nothing, everything is so already."""


async def move(
    client: Redis,
    rules: ServiceRules,
    name: LeverName,
    decide: Decide,
    *,
    reason: str = "",
    is_dry_run: bool = False,
    by: Author | None = None,
    expected_rev: str | None = None,
) -> Change:
    """Change one hash. Raises ``Refused`` before anything is written, ``Stale`` where ``expected_rev`` is another."""
    for _ in range(ATTEMPTS):
        try:
            return await _try_move(client, rules, name, decide, reason, is_dry_run, by, expected_rev)
        except WatchError:
            continue
    raise Refused(f"somebody else keeps changing {key_of(rules.name, name)}: try again")


async def set_versions(client: Redis, rules: ServiceRules, versions: Mapping[str, str | None], **manner: Any) -> Change:
    """Ring → version; None: as in the config file. ``manner`` is that of ``move``."""

    def decide(current: Current) -> Motion | None:
        fields = {} if isinstance(current.raw.versions, RawFault) else current.raw.versions
        was = {ring: _word(fields.get(ring.encode())) for ring in versions}
        if all((version or UNSET) == was[ring] for ring, version in versions.items()):
            return None
        # A hash that is gone changes nothing; one with a revision alone says that the config file decides.
        said = fields.get(REVISION_FIELD.encode(), b"")
        revision = str(int(said) + 1) if said.isdigit() else "1"
        return Motion("versions", {**versions, REVISION_FIELD: revision}, [*was.values(), _word(said or None)])

    return await move(client, rules, "versions", decide, **manner)


async def set_killed(client: Redis, rules: ServiceRules, rings: Sequence[str], **manner: Any) -> Change:
    """These rings have nobody from now on, and no others; ``*``: all but the default ring."""

    wanted = rules.rings[:-1] if "*" in rings else tuple(dict.fromkeys(rings))

    def decide(current: Current) -> Motion | None:
        before = current.parsed.live.killed
        if set(wanted) == set(before) and not isinstance(current.raw.control, RawFault):
            return None
        return Motion("kill", {"kill": " ".join(wanted)}, [",".join(before) or UNSET])

    return await move(client, rules, "control", decide, **manner)


async def set_frozen(client: Redis, rules: ServiceRules, frozen: bool, **manner: Any) -> Change:
    """Widening is refused from now on, with the reason of the call; or allowed again."""
    why = " ".join(str(manner.get("reason", "")).split()) or "frozen"

    def decide(current: Current) -> Motion | None:
        before = current.parsed.live.freeze
        if (why if frozen else "") == before:
            return None
        return Motion("freeze", {"freeze": why if frozen else ""}, ["on" if before else "off"])

    return await move(client, rules, "control", decide, **manner)


async def set_drained(client: Redis, rules: ServiceRules, address: str, out_of_service: bool, **manner: Any) -> Change:
    """One endpoint gets no new requests from now on; or gets them again."""

    def decide(current: Current) -> Motion | None:
        before = current.parsed.live.drained
        if (address in before) == out_of_service:
            return None
        after = (*before, address) if out_of_service else tuple(one for one in before if one != address)
        action = "drain" if out_of_service else "undrain"
        return Motion(action, {"drain": " ".join(after)}, [",".join(before) or UNSET])

    return await move(client, rules, "control", decide, **manner)


async def _try_move(
    client: Redis,
    rules: ServiceRules,
    name: LeverName,
    decide: Decide,
    reason: str,
    is_dry_run: bool,
    by: Author | None,
    expected_rev: str | None,
) -> Change:
    key = key_of(rules.name, name)
    async with client.pipeline(transaction=True) as pipe:
        await pipe.watch(*(key_of(rules.name, one) for one in ("weights", "versions", "control")))
        current = await read_current(client, rules)
        current.expect(rules.name, expected_rev)
        before = current.parsed.live
        motion = decide(current)
        if motion is None:
            return Change((), before, current.revision, "", is_dry_run, before, current.rev)
        raw = getattr(current.raw, name)
        if isinstance(raw, RawFault):
            raise Refused(" ".join(one.message for one in current.parsed.problems if one.key == key))
        fields = _with(raw if raw or name == "versions" else _held(before), motion.fields)
        after = parse(replace(current.raw, **{name: fields}), rules, before, time.time())
        wrong = [problem.message for problem in after.problems if problem.key == key]
        if wrong:
            raise Refused(" ".join(wrong))
        told = tuple(say_changes(rules, before, after.live))
        rev = current.rev if is_dry_run else rev_of(replace(current.raw, **{name: fields}))
        change = Change(told, after.live, current.revision, _by_hand(key, motion), is_dry_run, before, rev)
        if is_dry_run:
            return change
        pipe.multi()  # type: ignore[no-untyped-call]
        gone = [field for field, value in motion.fields.items() if value is None]
        if gone:
            pipe.hdel(key, *gone)
        kept = {field: value for field, value in fields.items() if field.decode() not in gone}
        if kept:
            pipe.hset(key, mapping=cast("Any", kept))
        changes = {
            field: (was, now)
            for field, was, now in zip(motion.fields, motion.before, _after(motion), strict=True)
            if field != REVISION_FIELD
        }
        note(pipe, rules.name, motion.action, changes, reason, current.revision, by=by)
        await pipe.execute()
        return change


def _held(live: Live) -> dict[bytes, bytes]:
    """Where the hash is missing, instances hold what they know: one that is there again without that would lift it."""
    held = {
        b"kill": " ".join(live.killed),
        b"freeze": live.freeze,
        b"drain": " ".join(live.drained),
        b"holdback": say_holdbacks(live),
    }
    return {name: value.encode() for name, value in held.items() if value}


def _with(fields: Mapping[bytes, bytes], changes: Mapping[str, str | None]) -> dict[bytes, bytes]:
    made = dict(fields)
    for name, value in changes.items():
        if value is None:
            made.pop(name.encode(), None)
        else:
            made[name.encode()] = value.encode()
    return made


def _by_hand(key: str, motion: Motion) -> str:
    gone = [name for name, value in motion.fields.items() if value is None]
    pairs = [word for name, value in motion.fields.items() if value is not None for word in (name, value)]
    lines = [shlex.join(["HSET", key, *pairs])] if pairs else []
    return "; ".join([*lines, *([shlex.join(["HDEL", key, *gone])] if gone else [])])


def _after(motion: Motion) -> list[str]:
    if motion.action == "freeze":
        return ["on" if motion.fields["freeze"] else "off"]
    return [(value or UNSET).replace(" ", ",") for value in motion.fields.values()]


def _word(value: bytes | None) -> str:
    return UNSET if value is None else value.decode("utf-8", "backslashreplace")

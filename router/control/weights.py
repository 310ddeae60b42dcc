"""Changing weights on purpose: the same keys and the same rules as a hand-typed HSET, plus an audit trail.

Every change is judged by the watcher's own parser before it is written, then written in one MULTI … EXEC that fails if
somebody else was faster. It must never write what an instance would refuse, and never write without an audit entry.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final, cast

from redis.asyncio import Redis
from redis.exceptions import ResponseError, WatchError

from router.control.audit import UNSET, history, note
from router.control.authors import Author
from router.control.in_force import in_force
from router.control.keys import REVISION_FIELD, RawFault, RawHash, RawService, key_of
from router.control.link import TROUBLE, error_text, hang_up, make_client, safe_url
from router.control.parse import Parsed, basis_points_of, parse
from router.control.revision import rev_of
from router.control.rules import ServiceRules, percent, say_changes
from router.core.live import Live

ATTEMPTS: Final = 5
"""Somebody else's change in the middle of ours: read again, judge again."""
Client = Redis
"""For those who may not import redis themselves."""


class Refused(Exception):
    """Nothing was written; the message says why and what to do."""


class Stale(Refused):
    """What the change was based on is not so any more. ``rev`` is what it would have to name now."""

    def __init__(self, service: str, expected: str, rev: str) -> None:
        super().__init__(f"{service} has rev {rev} now, not {expected}: somebody changed it since. Look again.")
        self.rev = rev


class Unreachable(Exception):
    """Redis did not answer; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Current:
    """What Redis holds now: the raw read, its judgement, and whether there is a weights hash at all."""

    raw: RawService
    parsed: Parsed

    @property
    def fields(self) -> Mapping[bytes, bytes]:
        return {} if isinstance(self.raw.weights, RawFault) else self.raw.weights

    @property
    def rev(self) -> str:
        """What the hashes hold, in one word."""
        return rev_of(self.raw)

    def expect(self, service: str, rev: str | None) -> None:
        """Raises ``Stale`` where this is not what somebody has seen; None: whatever it is."""
        if rev is not None and rev != self.rev:
            raise Stale(service, rev, self.rev)

    @property
    def revision(self) -> str:
        return self.fields.get(REVISION_FIELD.encode(), b"").decode("utf-8", "replace")

    def value(self, ring: str) -> str:
        """A ring's weight as it is written, or ``-``."""
        return self.fields.get(ring.encode(), UNSET.encode()).decode("utf-8", "backslashreplace")


@dataclass(frozen=True, slots=True)
class Change:
    """A change that was judged good, written or (``is_dry_run``) not."""

    changes: tuple[str, ...]
    """``canary 1 → 5 percent``; empty when the routing stays as it is."""
    live: Live
    revision: str
    command: str
    """What would have done the same by hand."""
    is_dry_run: bool
    before: Live | None = None
    rev: str = ""
    """Of the hashes after the change, or without it where it is a dry run."""


@asynccontextmanager
async def open_redis(url: str) -> AsyncIterator[Redis]:
    """A client whose failures are ``Unreachable``."""
    client = make_client(url)
    try:
        yield client
    except ResponseError as error:
        raise Unreachable(f"Redis {safe_url(url)} refuses: {error_text(error)}") from None
    except TROUBLE as error:
        raise Unreachable(f"Redis {safe_url(url)} cannot be reached: {error_text(error)}") from None
    finally:
        await hang_up(client)


async def read_current(client: Redis, rules: ServiceRules) -> Current:
    """What Redis holds, and what the instances make of it (freeze and rails need to know what was)."""
    raw = RawService(
        weights=await _hash(client, key_of(rules.name, "weights")),
        versions=await _hash(client, key_of(rules.name, "versions")),
        control=await _hash(client, key_of(rules.name, "control")),
    )
    return Current(raw, parse(raw, rules, await in_force(client, rules), time.time()))


async def set_weights(
    client: Redis,
    rules: ServiceRules,
    weights: Mapping[str, str],
    *,
    action: str = "set",
    reason: str = "",
    expect_revision: str | None = None,
    is_dry_run: bool = False,
    by: Author | None = None,
    expected_rev: str | None = None,
) -> Change:
    """Write ring → percent (``-`` takes the ring out of the hash). Raises ``Refused`` before anything is written.

    ``expected_rev``: what ``Current.rev`` has to be, else ``Stale``. ``by`` None: whoever sits at the prompt.
    """
    for _ in range(ATTEMPTS):
        try:
            return await _try_set(client, rules, weights, action, reason, expect_revision, is_dry_run, by, expected_rev)
        except WatchError:
            continue
    raise Refused(f"somebody else keeps changing {key_of(rules.name, 'weights')}: try again")


async def reset_weights(
    client: Redis,
    rules: ServiceRules,
    *,
    reason: str = "",
    is_dry_run: bool = False,
    by: Author | None = None,
    expected_rev: str | None = None,
) -> Change:
    """Write the config file's weights explicitly, and clear out whatever else is in the hash."""
    weights = {ring: percent(rules.weights.get(ring, 0)) for ring in rules.rings[:-1]}
    return await set_weights(
        client, rules, weights, action="reset", reason=reason, is_dry_run=is_dry_run, by=by, expected_rev=expected_rev
    )


async def undo(
    client: Redis,
    rules: ServiceRules,
    *,
    reason: str = "",
    is_dry_run: bool = False,
    by: Author | None = None,
    expected_rev: str | None = None,
) -> Change:
    """Restore the values before the last audited change; a second undo takes the first one back."""
    last = next((e for e in await history(client, rules.name, 1000) if e.can_be_undone), None)
    if last is None:
        raise Refused(f"nothing to undo: {key_of(rules.name, 'audit')} has no change of weights")
    current = await read_current(client, rules)
    current.expect(rules.name, expected_rev)
    for ring, value in zip(last.fields, last.after, strict=False):
        if not _is_same(current.value(ring), value):
            raise Refused(
                f"{ring} is {current.value(ring)} now, not {value} as the last recorded change left it: somebody "
                f"changed it since, and undo would overwrite that. Use `ring-router weights set`."
            )
    before = dict(zip(last.fields, last.before, strict=False))
    return await set_weights(
        client, rules, before, action="undo", reason=reason, expect_revision=current.revision, is_dry_run=is_dry_run,
        by=by, expected_rev=expected_rev,
    )  # fmt: skip


async def _try_set(
    client: Redis,
    rules: ServiceRules,
    weights: Mapping[str, str],
    action: str,
    reason: str,
    expect_revision: str | None,
    is_dry_run: bool,
    by: Author | None,
    expected_rev: str | None,
) -> Change:
    key = key_of(rules.name, "weights")
    async with client.pipeline(transaction=True) as pipe:
        await pipe.watch(key, key_of(rules.name, "versions"), key_of(rules.name, "control"))
        current = await read_current(client, rules)
        current.expect(rules.name, expected_rev)
        if expect_revision is not None and current.revision != expect_revision:
            raise Refused(f"{key} has rev {current.revision or UNSET} now, not {expect_revision or UNSET}: look again")
        is_clean_slate = action == "reset"
        if isinstance(current.raw.weights, RawFault) and not is_clean_slate:
            problem = current.parsed.problems[0].message
            raise Refused(f"{problem} `ring-router weights reset` writes the config file's weights afresh.")
        fields = {} if is_clean_slate else dict(current.fields)
        for ring, value in weights.items():
            fields[ring.encode()] = value.encode()
        fields = {name: value for name, value in fields.items() if value != UNSET.encode()}
        revision = str(int(current.revision) + 1 if current.revision.isdecimal() else 1)
        fields[REVISION_FIELD.encode()] = revision.encode()

        before = current.parsed.live
        proposed = RawService(weights=fields, control=current.raw.control)
        after = parse(proposed, rules, before, time.time())
        wrong = [problem.message for problem in after.problems if problem.key == key]
        if wrong:
            raise Refused(" ".join(wrong))
        told = tuple(say_changes(rules, before, replace(before, weights=after.live.weights)))
        rev = current.rev if is_dry_run else rev_of(replace(current.raw, weights=fields))
        change = Change(told, after.live, revision, _by_hand(key, weights, revision), is_dry_run, before, rev)
        if is_dry_run:
            return change
        pipe.multi()  # type: ignore[no-untyped-call]
        if is_clean_slate:
            pipe.delete(key)
        gone = [ring for ring, value in weights.items() if value == UNSET]
        if gone:
            pipe.hdel(key, *gone)
        pipe.hset(key, mapping=cast("Any", fields))
        changes = {ring: (current.value(ring), value) for ring, value in weights.items()}
        note(pipe, rules.name, action, changes, reason, revision, by=by)
        await pipe.execute()
        return change


def _by_hand(key: str, weights: Mapping[str, str], revision: str) -> str:
    pairs = [word for ring, value in weights.items() if value != UNSET for word in (ring, value)]
    return shlex.join(["HSET", key, *pairs, REVISION_FIELD, revision])


def _is_same(one: str, other: str) -> bool:
    points = basis_points_of(one.encode())
    return one == other if points is None else points == basis_points_of(other.encode())


async def _hash(client: Redis, key: str) -> RawHash:
    try:
        return cast("Mapping[bytes, bytes]", await cast("Awaitable[Any]", client.hgetall(key)))
    except ResponseError as error:
        if str(error).startswith("WRONGTYPE"):
            return RawFault("wrong_type", str(error))
        raise

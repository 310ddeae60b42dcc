"""The API's writes, handed to the modules that the command line writes with: the same judgement, the same audit."""

from __future__ import annotations

import asyncio
import shlex
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from router.admin import bodies
from router.admin.bodies import Done, Move
from router.admin.trouble import Trouble
from router.config.compile import LiveConflict, moves_between
from router.config.values import parse_percent
from router.control import levers, member_lists
from router.control.audit import UNSET
from router.control.authors import Author
from router.control.people import estimate
from router.control.rules import ServiceRules, address_of, percent
from router.control.weights import (
    Change,
    Client,
    Refused,
    Stale,
    Unreachable,
    open_redis,
    read_current,
    reset_weights,
    set_weights,
    undo,
)
from router.core.moves import Move as CoreMove

if TYPE_CHECKING:
    from router.process.control import Control

CATCH_UP_SECONDS: Final = 1.0
"""For this instance to have read what a refused write met in Redis: what it answers with has to be as new as that."""
LOOK_AGAIN_SECONDS: Final = 0.02


class Levers:
    """Pulls them for one actor at a time; nothing is kept."""

    def __init__(self, control: Control) -> None:
        self._control = control

    async def change(self, wanted: bodies.Change | bodies.Reload, actor: str) -> Done:
        """Raises ``Trouble``."""
        if isinstance(wanted, bodies.Reload):
            return self._reload(wanted)
        rules = self._control.rules.get(wanted.service)
        if rules is None:
            raise Trouble("not_found", f"There is no service {wanted.service}.")
        url = self._control.redis
        if url is None:
            raise Trouble(
                "not_available", "This router has no `redis:`: the config file alone decides. Change it there."
            )
        pull = self._lever(wanted, rules)
        rev = None if wanted.expected_rev == bodies.ANY_REV else wanted.expected_rev
        author = Author(actor, socket.gethostname(), "api")
        manner = {"reason": wanted.reason, "is_dry_run": wanted.dry_run, "by": author, "expected_rev": rev}
        try:
            async with open_redis(url) as client:
                change = await pull(client, manner)
                moves = self._moves(wanted.service, change)
                found = None
                if wanted.dry_run and moves:
                    found = await estimate(client, wanted.service, [move.spans for move in moves], time.time())
        except Stale as stale:
            current = await self._caught_up(wanted.service, stale.rev)
            raise Trouble("stale", str(stale), current=current) from None
        except Refused as refused:
            raise Trouble("refused", str(refused)) from None
        except Unreachable as gone:
            raise Trouble("redis_away", str(gone), retry_after=1) from None
        people: Sequence[int | None] = [None] * len(moves) if found is None else found.moving
        return Done(
            wanted.dry_run, list(change.changes), change.rev, change.command,
            [_shown(*pair) for pair in zip(moves, people, strict=True)],
            None if found is None else found.everybody,
        )  # fmt: skip

    def _moves(self, service: str, change: Change) -> list[CoreMove]:
        settings = self._control.config.settings.services.get(service)
        if settings is None or change.before is None:
            return []
        try:
            return moves_between(service, settings, change.before, change.live)
        except LiveConflict:
            return []  # the config file has changed in this moment; the answer says what was written

    def _lever(
        self, wanted: bodies.Change, rules: ServiceRules
    ) -> Callable[[Client, dict[str, Any]], Awaitable[Change]]:
        match wanted:
            case bodies.SetWeights(reset=True):
                return lambda client, manner: reset_weights(client, rules, **manner)
            case bodies.SetWeights(weights=weights):
                words = {ring: UNSET if value is None else _percent(ring, value) for ring, value in weights.items()}
                return lambda client, manner: set_weights(client, rules, words, **manner)
            case bodies.SetVersions(versions=versions):
                return lambda client, manner: levers.set_versions(client, rules, versions, **manner)
            case bodies.SetKilled(rings=rings):
                return lambda client, manner: levers.set_killed(client, rules, rings, **manner)
            case bodies.SetFrozen(frozen=frozen):
                return lambda client, manner: levers.set_frozen(client, rules, frozen, **manner)
            case bodies.SetDrained(address=address, drained=drained):
                where = self._address(wanted.service, address, is_known=drained)
                return lambda client, manner: levers.set_drained(client, rules, where, drained, **manner)
            case bodies.Undo():
                return lambda client, manner: undo(client, rules, **manner)
            case bodies.ChangeMembers():
                return lambda client, manner: _change_members(client, rules, wanted, **manner)
            case _:
                raise AssertionError(wanted)

    def _address(self, service: str, word: str, *, is_known: bool) -> str:
        """An endpoint's; one that nobody has is a slip of the keyboard. Lifting a drain takes any."""
        address = address_of(word)
        spec = self._control.board.spec
        known = {
            endpoint.address
            for one in (spec.services if spec is not None else ())
            if one.name == service
            for version in one.versions
            for endpoint in version.endpoints
        }
        if is_known and address not in known:
            raise Trouble("refused", f"No endpoint of {service} has the address {word}: {', '.join(sorted(known))}.")
        return address

    async def _caught_up(self, service: str, rev: str) -> dict[str, Any] | None:
        deadline = time.monotonic() + CATCH_UP_SECONDS
        while self._control.store.rev(service) != rev and time.monotonic() < deadline:  # noqa: ASYNC110 - a look
            await asyncio.sleep(LOOK_AGAIN_SECONDS)
        return self._control.look.service_state(service)

    def _reload(self, wanted: bodies.Reload) -> Done:
        config = self._control.config
        now = str(config.revision)
        if wanted.expected_rev not in (bodies.ANY_REV, now):
            current = {"revision": config.revision, "error": config.error}
            raise Trouble(
                "stale", f"The config has revision {now} now, not {wanted.expected_rev}: look again.", current=current
            )
        said = config.try_out() if wanted.dry_run else self._control.reload()
        if "refused" in said.partition(":")[0]:
            raise Trouble("refused", said)
        changed = config.revision != int(now) or (wanted.dry_run and not said.endswith("unchanged"))
        return Done(wanted.dry_run, [said] if changed else [], str(config.revision), "kill -HUP the router")


def _percent(ring: str, value: float) -> str:
    try:
        return percent(parse_percent(value))
    except ValueError as error:
        raise Trouble("malformed", f"{ring}: {error}.") from None


async def _change_members(
    client: Client,
    rules: ServiceRules,
    wanted: bodies.ChangeMembers,
    *,
    reason: str,
    is_dry_run: bool,
    by: Author,
    expected_rev: str | None,
) -> Change:
    """Comings and goings commute: ``expected_rev`` is looked at once, and not watched."""
    current = await read_current(client, rules)
    current.expect(rules.name, expected_rev)
    if wanted.ring not in rules.rings:
        raise Refused(f"{rules.name} has no ring {wanted.ring}: {', '.join(rules.rings)}")
    for user in (*wanted.add, *wanted.remove):  # before anything is written
        member_lists.checked(user.encode("utf-8", "surrogatepass"))
    said, commands = [], []
    for verb, users, change in (("add", wanted.add, member_lists.add), ("remove", wanted.remove, member_lists.remove)):
        keys = [user.encode("utf-8", "surrogatepass") for user in users]
        if not keys:
            continue
        count = len(set(keys)) if is_dry_run else await change(client, rules.name, wanted.ring, keys, reason, by=by)
        if count:
            said.append(f"members of {wanted.ring}: {'+' if verb == 'add' else '-'}{count}")
        commands.append(shlex.join(["ring-router", "members", verb, wanted.ring, *users, "--service", rules.name]))
    live = current.parsed.live
    return Change(tuple(said), live, current.revision, "; ".join(commands), is_dry_run, None, current.rev)


def _shown(move: CoreMove, people: int | None) -> Move:
    return Move(move.before, move.after, "inward" if move.is_inward else "outward", move.buckets / 100, people)

"""``simulate``: how users spread over the rings, and who moves when weights change.

Every user is decided by the proxy's own ``decide``. It changes nothing anywhere: ``weights set`` does.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import click

from router.cli import moving
from router.cli.compiled import compiled
from router.cli.options import (
    admin_option,
    check_ring,
    live_option,
    optional_config_option,
    output_option,
    pick_name,
    redis_of,
)
from router.core.decide import decide
from router.core.hashing import BUCKETS, UserKey
from router.core.moves import moves as core_moves
from router.core.rules import Request
from router.core.snapshot import Decision, Service, compile_service, default_basis_points
from router.core.spec import ServiceSpec

DEFAULT_USERS: Final = 10_000
_NO_REQUEST: Final = Request(b"", b"/", {})
"""Simulated users send nothing but their key: rules that look at requests cannot be foreseen."""

Place = tuple[str, str]
"""Ring and version."""


@dataclass(frozen=True, slots=True)
class Share:
    """What one ring gets: of the ids that were asked, and of all buckets."""

    ring: str
    version: str
    users: int
    buckets: int


@dataclass(frozen=True, slots=True)
class Move:
    """Those who change ring. ``direction`` is inward or outward."""

    before: str
    after: str
    direction: str
    users: int
    buckets: int


@click.command()
@optional_config_option
@click.option("--service", metavar="NAME", help="The service; needed if there are several.")
@click.option("--users", type=click.IntRange(1, 10_000_000), help=f"Made-up users [default: {DEFAULT_USERS}].")
@click.option("--ids", type=click.File("rb"), help="Real user keys, one a line; - reads standard input.")
@click.option("--set", "changes", metavar="'RING=PERCENT,…'", help="Weights to try: shows who would move.")
@live_option
@admin_option
@output_option
def simulate(
    config_path: Path | None,
    service: str | None,
    users: int | None,
    ids: Any,
    changes: str | None,
    live: bool,
    admin_url: str,
    output: str,
) -> None:
    """Show how users spread over the rings, and with --set who would move."""
    if users is not None and ids is not None:
        raise click.UsageError("give either --users or --ids")
    about = compiled(config_path, live=live, admin_url=admin_url)
    spec = about.snapshot.spec
    names = [one.name for one in spec.services]
    before = spec.services[names.index(pick_name(names, service))]
    after = with_weights(before, changes) if changes is not None else before
    keys = (
        [UserKey(key) for line in ids if (key := line.strip())] if ids is not None else made_up(users or DEFAULT_USERS)
    )
    if not keys:
        raise click.UsageError("--ids holds no user keys: write one a line")
    old, new = (compile_service(one, 0, about.tables, spec.trust) for one in (before, after))
    shares, moves = spread(new, keys), movement(old, new, keys) if changes is not None else None
    hashed = core_moves(old, new) if changes is not None else []
    people, why_not = None, ""
    if hashed:
        people, why_not = moving.ask_at(redis_of(config_path, live=live, admin_url=admin_url), after.name, hashed)
    if output == "json":
        said = _as_json(after, len(keys), shares, moves)
        if moves is not None:
            said["people"] = moving.as_json(hashed, people)
        click.echo(json.dumps(said, indent=2))
        return
    _print_shares(after.name, len(keys), shares)
    if moves is not None:
        _print_moves(len(keys), moves)
        if hashed:
            moving.show_people(hashed, people, why_not)
    if any(ring.rules for ring in after.rings):
        click.echo("Users whom a rule (header, cookie) lets in are not foreseen here.")


def made_up(count: int) -> list[UserKey]:
    """Synthetic users, the same every time: user-1, user-2, …"""
    return [UserKey(b"user-%d" % number) for number in range(1, count + 1)]


def with_weights(spec: ServiceSpec, changes: str) -> ServiceSpec:
    """The service with other weights: ``canary=5,early=20``. Ends the command if they are not valid."""
    from router.config.values import parse_percent

    settable = [ring.name for ring in spec.rings[:-1]]
    default = spec.rings[-1].name
    points = {ring.name: ring.basis_points for ring in spec.rings[:-1]}
    for change in changes.replace(",", " ").split():
        ring, equals, percent = change.partition("=")
        if not equals:
            raise click.UsageError(
                f"a change is written ring=percent, such as {(settable or ['canary'])[0]}=5: {change!r}"
            )
        if ring == default:
            raise click.UsageError(
                f"{ring} is the default ring: it takes the rest. Set the others ({', '.join(settable)})"
            )
        check_ring(ring, settable, spec.name)
        try:
            points[ring] = parse_percent(float(percent))
        except ValueError as error:
            why = f"{percent!r} is not a number" if "convert" in str(error) else str(error)
            raise click.UsageError(f"{ring}: {why}") from None
    total = sum(points.values())
    if total > BUCKETS:
        listed = ", ".join(f"{ring} {value / 100:g}" for ring, value in points.items())
        raise click.UsageError(f"the weights would add up to {total / 100:g} percent ({listed}): at most 100")
    rings = tuple(replace(ring, basis_points=points.get(ring.name, ring.basis_points)) for ring in spec.rings)
    changed = replace(spec, rings=rings)
    return replace(changed, rings=(*rings[:-1], replace(rings[-1], basis_points=default_basis_points(changed))))


def _by_key(service: Service) -> Callable[[UserKey], Decision]:
    return lambda key: decide(service, _NO_REQUEST, key)


def _by_bucket(service: Service) -> Iterator[Decision]:
    return (service.by_hash[bisect_right(service.bounds, bucket)] for bucket in range(BUCKETS))


def spread(service: Service, keys: list[UserKey]) -> list[Share]:
    """How many of the keys, and of all buckets, each ring gets; inner ring first."""
    users = Counter(decision.ring for decision in map(_by_key(service), keys))
    buckets = Counter(decision.ring for decision in _by_bucket(service))
    return [Share(ring.name, ring.version, users[ring.name], buckets[ring.name]) for ring in service.spec.rings]


def movement(old: Service, new: Service, keys: list[UserKey]) -> list[Move]:
    """Who changes ring from ``old`` to ``new``, most first."""
    order = {ring.name: i for i, ring in enumerate(new.spec.rings)}
    users = Counter((a.ring, b.ring) for a, b in zip(map(_by_key(old), keys), map(_by_key(new), keys), strict=True))
    buckets = Counter((a.ring, b.ring) for a, b in zip(_by_bucket(old), _by_bucket(new), strict=True))
    pairs = sorted((pair for pair in users | buckets if pair[0] != pair[1]), key=lambda pair: (-buckets[pair], pair))
    return [Move(a, b, "inward" if order[b] < order[a] else "outward", users[a, b], buckets[a, b]) for a, b in pairs]


def _as_json(spec: ServiceSpec, count: int, shares: list[Share], moves: list[Move] | None) -> dict[str, Any]:
    versions: dict[str, dict[str, Any]] = {}
    for share in shares:
        total = versions.setdefault(share.version, {"users": 0, "expected_percent": 0.0})
        total["users"] += share.users
        total["expected_percent"] = round(total["expected_percent"] + share.buckets / 100, 2)
    made: dict[str, Any] = {
        "service": spec.name,
        "users": count,
        "rings": [
            {
                "ring": share.ring,
                "version": share.version,
                "users": share.users,
                "percent": round(100 * share.users / count, 4),
                "expected_percent": share.buckets / 100,
            }
            for share in shares
        ],
        "versions": versions,
    }
    if moves is not None:
        made["moves"] = [
            {
                "from": move.before,
                "to": move.after,
                "direction": move.direction,
                "users": move.users,
                "expected_percent": move.buckets / 100,
            }
            for move in moves
        ]
    return made


def _print_shares(name: str, count: int, shares: list[Share]) -> None:
    width = max(len("all rings"), *(len(share.ring) for share in shares), *(len(share.version) for share in shares))
    click.echo(f"{name}: {count} users")
    click.echo(f"  {'ring':{width}}  {'version':{width}}  {'users':>9}  {'share':>9}  {'expected':>9}")
    rows = [(share.ring, share.version, share.users, share.buckets) for share in shares]
    for version in dict.fromkeys(share.version for share in shares):
        mine = [share for share in shares if share.version == version]
        rows.append(("all rings", version, sum(s.users for s in mine), sum(s.buckets for s in mine)))
    for ring, version, users, buckets in rows:
        click.echo(
            f"  {ring:{width}}  {version:{width}}  {users:9}  {100 * users / count:7.2f} %  {buckets / 100:7.2f} %"
        )


def _print_moves(count: int, moves: list[Move]) -> None:
    if not moves:
        click.echo("Nobody moves.")
        return
    for direction in ("inward", "outward"):
        mine = [move for move in moves if move.direction == direction]
        users, buckets = sum(move.users for move in mine), sum(move.buckets for move in mine)
        click.echo(f"Moving {direction}: {users} of {count} users; {buckets / 100:.2f} % of everybody")
        for move in mine:
            click.echo(f"  {move.before} -> {move.after}: {move.users} users; {move.buckets / 100:.2f} % of everybody")

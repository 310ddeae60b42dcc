"""Who moves when weights change, in words: a share of the hash space, and about how many people, where Redis knows.

It asks Redis and writes nothing there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from router.core.moves import Move

if TYPE_CHECKING:
    from router.control.people import Estimate
    from router.control.weights import Client

UNKNOWN_HERE: Final = "How many people that is cannot be said without Redis."
UNCOUNTED: Final = "How many people that is cannot be said: Redis has no sketches of who was seen in the last two days."


async def ask(client: Client, service: str, moves: Sequence[Move]) -> Estimate | None:
    """About how many people; None where Redis has no sketches. Raises what redis-py does."""
    from router.control.people import estimate

    return await estimate(client, service, [move.spans for move in moves], time.time())


def ask_at(url: str | None, service: str, moves: Sequence[Move]) -> tuple[Estimate | None, str]:
    """The same of a Redis at a URL; if nobody can say it, why, as a sentence."""
    from router.control.weights import Unreachable, open_redis

    if url is None:
        return None, UNKNOWN_HERE

    async def asked(url: str) -> Estimate | None:
        async with open_redis(url) as client:
            return await ask(client, service, moves)

    try:
        found = asyncio.run(asked(url))
    except Unreachable as error:
        return None, f"How many people that is cannot be said: {error}"
    return found, "" if found is not None else UNCOUNTED


def show(moves: Sequence[Move], found: Estimate | None, why_not: str) -> None:
    """Print each move, those of most buckets first."""
    if not moves:
        click.echo("By hash nobody moves.")
        return
    for number, move in enumerate(moves):
        people = "" if found is None else f", about {found.moving[number]:,} of {found.everybody:,} people"
        way = "inward" if move.is_inward else "outward"
        click.echo(f"  {move.before} → {move.after} ({way}): {move.buckets / 100:g} % of the hash space{people}")
    click.echo("People are those seen in two days, counted roughly." if found is not None else why_not)


def show_people(moves: Sequence[Move], found: Estimate | None, why_not: str) -> None:
    """Print about how many people move, where the moves have been printed already."""
    if found is None:
        click.echo(why_not)
        return
    for move, people in zip(moves, found.moving, strict=True):
        click.echo(
            f"About {people:,} of {found.everybody:,} people seen in two days go from {move.before} to {move.after}."
        )


def as_json(moves: Sequence[Move], found: Estimate | None) -> list[dict[str, Any]]:
    """The same for programs; ``people`` is null where nobody can say it."""
    return [
        {
            "from": move.before,
            "to": move.after,
            "direction": "inward" if move.is_inward else "outward",
            "expected_percent": move.buckets / 100,
            "people": None if found is None else found.moving[number],
        }
        for number, move in enumerate(moves)
    ]

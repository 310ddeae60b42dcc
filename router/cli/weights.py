"""``ring-router weights``: look at the live weights and change them, with validation and an audit trail.

The words only; what happens in Redis is in ``router.control.weights``.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from router.cli import moving
from router.cli.options import ask_redis, config_option, load_or_exit, output_option, pick_service

if TYPE_CHECKING:
    from router.config.settings import Service, Settings
    from router.control.people import Estimate
    from router.control.rules import ServiceRules
    from router.control.weights import Change, Client
    from router.core.moves import Move

_Result = TypeVar("_Result")
_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Target:
    """The Redis of a config file, and what that file says of one service."""

    url: str
    rules: ServiceRules
    service: Service


def target_of(config_path: Path, service: str | None) -> Target:
    """The service that is meant. Ends the command where the config has no Redis."""
    return target_in(config_path, load_or_exit(config_path), service)


def target_in(config_path: Path, settings: Settings, service: str | None) -> Target:
    """The same of settings that have been read from that file."""
    from router.config.compile import service_spec
    from router.control.rules import rules_of

    name, chosen = pick_service(settings, service)
    return Target(redis_in(config_path, settings), rules_of(service_spec(name, chosen)), chosen)


def redis_in(config_path: Path, settings: Settings) -> str:
    """The URL. Ends the command where the config has no Redis."""
    if settings.redis is None:
        raise click.ClickException(
            f"{config_path} has no `redis:`, so weights come from that file alone: change them there, or add e.g. "
            f"`redis: redis://127.0.0.1:6379/0`"
        )
    return settings.redis


def _service_argument(command: _Command) -> _Command:
    return click.argument("service", required=False)(command)


def _change_options(command: _Command) -> _Command:
    dry = click.option("--dry-run", "is_dry_run", is_flag=True, help="Judge the change, but write nothing.")
    return click.option("--reason", default="", metavar="TEXT", help="Why; kept in the audit trail.")(dry(command))


@click.group()
def weights() -> None:
    """Look at the live weights and change them."""


@weights.command()
@_service_argument
@config_option
@output_option
def get(service: str | None, config_path: Path, output: str) -> None:
    """Show the weights in Redis and in the config file, and what is refused."""
    from router.control.rules import WHOLE
    from router.control.weights import read_current

    target = target_of(config_path, service)
    rules = target.rules
    current = ask_redis(target.url, lambda client: read_current(client, rules))
    live = current.parsed.live
    effective = rules.effective_weights(live)
    effective[rules.default_ring] = WHOLE - sum(effective.values())
    rows = [
        {
            "ring": ring,
            "percent": points / 100,
            "source": "rest" if ring == rules.default_ring else "redis" if ring in live.weights else "config",
            "version": rules.effective_versions(live)[ring],
            "killed": ring in live.killed,
        }
        for ring, points in effective.items()
    ]
    refused = [problem.message for problem in current.parsed.problems]
    if output == "json":
        answer = {"service": rules.name, "rev": current.revision, "freeze": live.freeze, "rings": rows}
        click.echo(json.dumps({**answer, "refused": refused}, indent=2, ensure_ascii=False))
        return
    click.echo(f"{rules.name}  rev {current.revision or '-'}" + (f"  frozen: {live.freeze}" if live.freeze else ""))
    for row in rows:
        killed = "  killed" if row["killed"] else ""
        click.echo(f"  {row['ring']:<16} {row['percent']:>6g} %  {row['version']:<12} {row['source']}{killed}")
    for sentence in refused:
        click.echo(f"refused: {sentence}")


@weights.command("set", epilog="Example: ring-router weights set canary=5 early=20 --reason 'looks good'")
@click.argument("words", nargs=-1, required=True, metavar="[SERVICE] RING=PERCENT...")
@click.option("--expect-rev", metavar="N", help="Refuse if the weights have another revision by now.")
@_change_options
@config_option
def set_(words: tuple[str, ...], expect_rev: str | None, reason: str, is_dry_run: bool, config_path: Path) -> None:
    """Set weights in percent; rings that are not named stay as they are."""
    from router.control.weights import set_weights

    service, pairs = (None, words) if "=" in words[0] else (words[0], words[1:])
    wanted: dict[str, str] = {}
    for pair in pairs:
        ring, equals, value = pair.partition("=")
        if not (ring and equals and value) or ring in wanted:
            raise click.UsageError(f"{pair!r} is not RING=PERCENT, once for each ring: e.g. canary=5")
        wanted[ring] = value.removesuffix("%")
    if not wanted:
        raise click.UsageError("no weight given: e.g. canary=5")
    target = target_of(config_path, service)
    _change(
        target,
        lambda client: set_weights(
            client, target.rules, wanted, reason=reason, expect_revision=expect_rev, is_dry_run=is_dry_run
        ),
    )


@weights.command()
@_service_argument
@click.option("-n", "--count", default=20, show_default=True, type=click.IntRange(1, 10_000), help="How many changes.")
@config_option
@output_option
def history(service: str | None, count: int, config_path: Path, output: str) -> None:
    """Show who changed what, newest first."""
    from router.control.audit import history as read_history

    target = target_of(config_path, service)
    entries = ask_redis(target.url, lambda client: read_history(client, target.rules.name, count))
    if output == "json":
        click.echo(json.dumps([asdict(entry) for entry in entries], indent=2, ensure_ascii=False))
        return
    for entry in entries:
        click.echo(str(entry))
    if not entries:
        click.echo(f"no change of {target.rules.name} is on record")


@weights.command()
@_service_argument
@_change_options
@config_option
def undo(service: str | None, reason: str, is_dry_run: bool, config_path: Path) -> None:
    """Restore the weights before the last recorded change; a second undo takes the first one back."""
    from router.control.weights import undo as undo_last

    target = target_of(config_path, service)
    _change(target, lambda client: undo_last(client, target.rules, reason=reason, is_dry_run=is_dry_run))


@weights.command()
@_service_argument
@_change_options
@config_option
def reset(service: str | None, reason: str, is_dry_run: bool, config_path: Path) -> None:
    """Write the config file's weights to Redis; also heals a hash that is refused."""
    from router.control.weights import reset_weights

    target = target_of(config_path, service)
    _change(target, lambda client: reset_weights(client, target.rules, reason=reason, is_dry_run=is_dry_run))


def _change(target: Target, make: Callable[[Client], Awaitable[Change]]) -> None:
    """Make a change, or only judge it, and say what came of it."""
    from router.config.compile import moves_between
    from router.control.weights import read_current

    async def change(client: Client) -> tuple[Change, list[Move], Estimate | None]:
        before = (await read_current(client, target.rules)).parsed.live
        made = await make(client)
        if not made.is_dry_run:
            return made, [], None
        moves = moves_between(target.rules.name, target.service, before, made.live)
        return made, moves, await moving.ask(client, target.rules.name, moves) if moves else None

    made, moves, people = ask_redis(target.url, change)
    _tell(target, made, moves, people)


def _tell(target: Target, change: Change, moves: Sequence[Move], people: Estimate | None) -> None:
    from router.control.link import by_hand

    for sentence in change.changes or ("no ring's weight changes",):
        click.echo(f"{target.rules.name}: {sentence}")
    if change.is_dry_run:
        moving.show(moves, people, moving.UNCOUNTED)
        click.echo("dry run: nothing was written")
    else:
        click.echo(f"written as rev {change.revision}")
    click.echo(f"the same by hand: {by_hand(target.url, change.command)}")

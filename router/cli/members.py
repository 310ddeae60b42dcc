"""``ring-router members``: who is in a ring by name, one by one or by the million.

The words only; what happens in Redis is in ``router.control.member_lists``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import click

from router.cli.options import ask_redis, check_ring, config_option, output_option
from router.cli.weights import target_of

if TYPE_CHECKING:
    from router.cli.weights import Target
    from router.control.weights import Client

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _service_option(command: _Command) -> _Command:
    return click.option("--service", metavar="NAME", help="The service; needed if there are several.")(command)


def _change_options(command: _Command) -> _Command:
    reason = click.option("--reason", default="", metavar="TEXT", help="Why; kept in the audit trail.")
    return _service_option(reason(config_option(command)))


def _users(command: _Command) -> _Command:
    """A ring and users, and what every change has."""
    keys = click.argument("keys", nargs=-1, required=True)
    return click.argument("ring")(keys(_change_options(command)))


def _target(config_path: Path, service: str | None, ring: str | None = None) -> Target:
    target = target_of(config_path, service)
    if ring is not None:
        check_ring(ring, target.rules.rings, target.rules.name)
    return target


@click.group()
def members() -> None:
    """Who is in a ring by name: users by their keys, in Redis."""


@members.command()
@_users
def add(ring: str, keys: tuple[str, ...], service: str | None, reason: str, config_path: Path) -> None:
    """Put users into a ring."""
    from router.control import member_lists

    target = _target(config_path, service, ring)
    name = target.rules.name
    count = ask_redis(
        target.url, lambda client: member_lists.add(client, name, ring, [one.encode() for one in keys], reason)
    )
    click.echo(f"{name}: {count} of {len(keys)} new in {ring}")


@members.command()
@_users
def remove(ring: str, keys: tuple[str, ...], service: str | None, reason: str, config_path: Path) -> None:
    """Take users out of a ring."""
    from router.control import member_lists

    target = _target(config_path, service, ring)
    name = target.rules.name
    count = ask_redis(
        target.url, lambda client: member_lists.remove(client, name, ring, [one.encode() for one in keys], reason)
    )
    click.echo(f"{name}: {count} of {len(keys)} gone from {ring}")


@members.command("import")
@click.argument("ring")
@click.argument("file", type=click.File("rb"))
@click.option("--merge", is_flag=True, help="Keep those who are members already; else the file is the whole list.")
@_change_options
def import_(ring: str, file: BinaryIO, merge: bool, service: str | None, reason: str, config_path: Path) -> None:
    """Make FILE (one key a line; - is standard input) the list of a ring."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from router.config.files import keys_in
    from router.control import member_lists

    target = _target(config_path, service, ring)
    name = target.rules.name
    keys = list(keys_in(file.read()))
    if not keys and not merge:
        raise click.ClickException(
            f"{file.name} has no keys, and everybody would be gone from {ring}: to do that, DEL its sets in Redis"
        )
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(f"{name} {ring}", total=len(set(keys)))

        def told(count: int) -> None:
            progress.advance(task, count)

        if merge:
            come = ask_redis(target.url, lambda client: member_lists.add(client, name, ring, keys, reason, told))
            gone = 0
        else:
            come, gone = ask_redis(
                target.url, lambda client: member_lists.replace(client, name, ring, keys, reason, told)
            )
    click.echo(f"{name}: {come} new in {ring}, {gone} gone from it, of {len(keys)} in {file.name}")


@members.command("export")
@click.argument("ring")
@_service_option
@config_option
def export_(ring: str, service: str | None, config_path: Path) -> None:
    """Print the members of a ring in Redis, one a line."""
    from router.control import member_lists

    target = _target(config_path, service, ring)
    out = sys.stdout.buffer

    async def write(client: Client) -> None:
        async for key in member_lists.export(client, target.rules.name, ring):
            out.write(key + b"\n")

    ask_redis(target.url, write)


@members.command("count")
@_service_option
@config_option
@output_option
def count_(service: str | None, config_path: Path, output: str) -> None:
    """Show how many members each ring has in Redis."""
    from router.control import member_lists

    target = _target(config_path, service)

    async def counts(client: Client) -> dict[str, int]:
        return {ring: await member_lists.count(client, target.rules.name, ring) for ring in target.rules.rings}

    found = ask_redis(target.url, counts)
    if output == "json":
        click.echo(json.dumps({"service": target.rules.name, "members": found}, indent=2))
        return
    for ring, number in found.items():
        click.echo(f"{ring:<16} {number:>12,}")


@members.command()
@click.argument("key")
@_service_option
@config_option
@output_option
def find(key: str, service: str | None, config_path: Path, output: str) -> None:
    """Show which rings list a user."""
    from router.control import member_lists

    target = _target(config_path, service)
    rules = target.rules
    found = ask_redis(target.url, lambda client: member_lists.find(client, rules.name, rules.rings, key.encode()))
    if output == "json":
        click.echo(json.dumps({"service": rules.name, "key": key, "rings": found}, indent=2))
    elif found:
        click.echo(f"{key} is listed in {', '.join(found)}; the inner one counts: {found[0]}")
    else:
        click.echo(f"{key} is listed in no ring of {rules.name} in Redis")

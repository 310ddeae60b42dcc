"""``ring-router redis``: a Redis command against the configured Redis, for machines without redis-cli."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import click

from router.cli.options import find_config, load_or_exit, optional_config_option


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog="Example: ring-router redis HSET 'rings:{shop}:weights' canary 5",
)
@optional_config_option
@click.option("--url", metavar="URL", help="Another Redis than the config file's.")
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED, metavar="COMMAND [ARG]...")
def redis(config_path: Path | None, url: str | None, words: tuple[str, ...]) -> None:
    """Send a command to the configured Redis and print the reply like redis-cli."""
    from router.control.console import execute, for_people, for_programs
    from router.control.weights import Unreachable

    target = url or load_or_exit(find_config(config_path, os.environ.get("RING_ROUTER_ADMIN"))).redis
    if target is None:
        raise click.ClickException("the config file has no `redis:`: set it there, or give --url redis://HOST:PORT/0")
    try:
        reply = asyncio.run(execute(target, words))
    except Unreachable as error:
        raise click.ClickException(str(error)) from None
    click.echo(for_people(reply) if sys.stdout.isatty() else for_programs(reply))
    if isinstance(reply, Exception):
        raise SystemExit(1)

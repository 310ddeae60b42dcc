"""The words a person types. Each command lives in a module of its own and is imported when it is used."""

from __future__ import annotations

import importlib
from typing import Final

import click

from router import __version__

COMMANDS: Final = {
    "run": "run:run",
    "demo": "demo:demo",
    "check": "check:check",
    "schema": "check:schema",
    "explain": "explain:explain",
    "simulate": "simulate:simulate",
    "export": "export:export",
    "weights": "weights:weights",
    "rollout": "rollout:rollout",
    "members": "members:members",
    "pass": "passes:passes",
    "rings": "rings:rings",
    "envoy": "envoy:envoy",
    "backends": "backends:backends",
    "tap": "tap:tap",
    "audit": "audit:audit",
    "doctor": "doctor:doctor",
    "redis": "redis:redis",
    "token": "token:token",
    "healthcheck": "healthcheck:healthcheck",
    "version": "version:version",
}
"""Command → module of this package and the click command in it."""


class LazyGroup(click.Group):
    """Imports a command's module when the command is asked for: `healthcheck` must not pay for pydantic."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        module, _, attribute = place.partition(":")
        command: click.Command = getattr(importlib.import_module(f"router.cli.{module}"), attribute)
        return command


@click.command(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "RING_ROUTER"},
    epilog="Every option can be given as an environment variable: RING_ROUTER_<COMMAND>_<OPTION>.",
)
@click.version_option(__version__, prog_name="ring-router")
def main() -> None:
    """Audience-based deployment: sorts each HTTP request into a ring and sends it to the version that ring runs."""

"""``ring-router token``: a new token for the admin API, and what goes into the config for it."""

from __future__ import annotations

import hashlib
import json
import secrets
from typing import Final

import click

from router.cli.options import TOKEN_VARIABLE, output_option

BYTES: Final = 32
"""Of chance: nobody guesses it, so its digest needs neither salt nor a slow hash."""


@click.command()
@click.argument("name", default="operator")
@click.option("--role", type=click.Choice(["viewer", "operator"]), default="operator", show_default=True)
@output_option
def token(name: str, role: str, output: str) -> None:
    """Make a new token for the admin API. It is shown once; the config holds only its digest."""
    made = secrets.token_urlsafe(BYTES)
    digest = hashlib.sha256(made.encode()).hexdigest()
    if output == "json":
        click.echo(json.dumps({"token": made, "name": name, "role": role, "sha256": digest}, indent=2))
        return
    click.echo(f"token, for {name} alone (also {TOKEN_VARIABLE} of the other commands):\n\n  {made}\n")
    click.echo("for the config, below `admin:`\n")
    click.echo(f"  tokens:\n    - {{name: {name}, role: {role}, sha256: {digest}}}")

"""``ring-router healthcheck`` as one of the commands in ``--help``; the work is in ``probe``, without click."""

from __future__ import annotations

import click

from router.cli.probe import main


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def healthcheck(words: tuple[str, ...]) -> None:
    """Ask the running router whether it is ready (exit 0) or not (exit 1)."""
    raise SystemExit(main(list(words)))

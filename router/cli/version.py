"""``ring-router version``: what this is and what it runs on."""

from __future__ import annotations

import platform

import click

from router import __version__


@click.command()
def version() -> None:
    """The versions of the router, Python and the loop."""
    from importlib.metadata import version as installed

    click.echo(f"ring-router {__version__}, Python {platform.python_version()}, uvloop {installed('uvloop')}")

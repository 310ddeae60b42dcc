"""``ring-router version``: what this is and what it runs on."""

from __future__ import annotations

import platform

import click

from router import __version__


@click.command()
def version() -> None:
    """The versions of the router, Python and the loop, and whether the request's way is native code."""
    from importlib.metadata import version as installed

    from router.proxy import heads

    way = "interpreted" if heads.__file__.endswith(".py") else "compiled"
    click.echo(f"ring-router {__version__} ({way}), Python {platform.python_version()}, uvloop {installed('uvloop')}")

"""``ring-router run``: the router itself, in the foreground, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import os
from pathlib import Path

import click

from router.cli.options import config_option, load_or_exit


@click.command()
@config_option
def run(config_path: Path) -> None:
    """Run the router.

    \b
    Signals: SIGTERM/SIGINT finish what is in flight, then exit (again: exit now); SIGHUP reads the config again.
    Exit codes: 0 stopped cleanly, 1 could not listen or requests were cut off, 2 the config is invalid.
    """
    from router.process.parent import ListenError, Parent
    from router.telemetry.log import configure

    settings = load_or_exit(config_path)
    configure("parent")
    workers = settings.workers if isinstance(settings.workers, int) else len(os.sched_getaffinity(0))
    addresses = [listener.address for listener in settings.listen]
    parent = Parent(config_path, addresses, workers, settings.timeouts.drain)
    admin = f"http://{settings.admin.listen.host}:{settings.admin.listen.port}"
    try:
        code = parent.run(
            lambda: click.echo(
                f"ring-router: {', '.join(map(str, addresses))}, {workers} workers, admin {admin}", err=True
            )
        )
    except ListenError as error:
        raise click.ClickException(str(error)) from None
    raise SystemExit(code)

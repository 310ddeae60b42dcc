"""``ring-router run``: the router itself, in the foreground, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from router.cli.options import config_option, load_or_exit

if TYPE_CHECKING:
    from router.process.parent import Parent


@click.command()
@config_option
@click.option(
    "--take-over", is_flag=True, envvar="RING_ROUTER_RUN_TAKE_OVER",
    help="Take the place of the router that runs on the same addresses; no connection is lost.",
)  # fmt: skip
def run(config_path: Path, take_over: bool) -> None:
    """Run the router.

    \b
    Signals: SIGTERM/SIGINT finish what is in flight, then exit (again: exit now); SIGHUP reads the config again.
    Exit codes: 0 stopped cleanly, 1 could not listen or requests were cut off, 2 the config is invalid.
    """
    from router.process.parent import Manner, Parent
    from router.telemetry.log import configure

    settings = load_or_exit(config_path)
    configure("parent")
    workers = settings.workers if isinstance(settings.workers, int) else len(os.sched_getaffinity(0))
    addresses = [listener.address for listener in settings.listen]
    manner = Manner(
        drain=settings.timeouts.drain,
        watchdog=settings.watchdog,
        orphans=settings.orphans,
        delay=settings.shutdown.delay,
        deadline=settings.shutdown.deadline,
        app=settings.sidecar.app if settings.sidecar is not None else None,
        inbound=frozenset(number for number, listener in enumerate(settings.listen) if listener.inbound),
    )
    parent = Parent(config_path, addresses, workers, manner, settings.admin.listen, take_over)
    raise SystemExit(run_parent(parent, f"{', '.join(map(str, addresses))}, {workers} workers"))


def run_parent(parent: Parent, what: str) -> int:
    """Say ``what`` runs, and where it is administered, and serve until the end; the exit code."""
    from router.process.sockets import ListenError

    admin = f"http://{parent.admin.host}:{parent.admin.port}" if parent.admin is not None else "nowhere"
    try:
        return parent.run(lambda: click.echo(f"ring-router: {what}, admin {admin}", err=True))
    except ListenError as error:
        raise click.ClickException(str(error)) from None

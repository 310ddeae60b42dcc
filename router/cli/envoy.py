"""``envoy``: Envoy as the data plane, with this router's config, Redis and rollouts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click

from router.cli.options import config_option, load_or_exit

DEFAULT_DIRECTORY: Final = Path("/var/lib/ring-router/envoy")
DEFAULT_ADMIN: Final = "127.0.0.1:9901"


@click.group()
def envoy() -> None:
    """Envoy as the data plane: control without workers writes the files that Envoy watches."""


def _directory_option(command: Callable[..., None]) -> Callable[..., None]:
    return click.option(
        "--directory", type=click.Path(path_type=Path, file_okay=False), default=DEFAULT_DIRECTORY, show_default=True,
        envvar="RING_ROUTER_ENVOY_DIRECTORY", help="Where the files are, as Envoy sees it.",
    )(command)  # fmt: skip


@envoy.command()
@config_option
@_directory_option
@click.option(
    "--admin", "admins", multiple=True, default=(DEFAULT_ADMIN,), show_default=True, metavar="HOST:PORT",
    envvar="RING_ROUTER_ENVOY_ADMIN",
    help="Where Envoy's admin side listens; once for each Envoy that reads the directory.",
)  # fmt: skip
def run(config_path: Path, directory: Path, admins: tuple[str, ...]) -> None:
    """Run the router with Envoy as its data plane.

    \b
    Envoy is started by itself, with what `envoy bootstrap` prints, once the files are there. It serves on while this
    is stopped. Exit codes: 0 stopped cleanly, 1 it cannot start, 2 the config is invalid,
    or wants what Envoy cannot do.
    """
    from router.cli.check import check_envoy
    from router.cli.run import run_parent
    from router.process.parent import Envoys, Manner, Parent
    from router.telemetry.log import configure

    settings = load_or_exit(config_path)
    check_envoy(config_path, settings, "text")
    configure("parent")
    where = directory.absolute()
    try:
        where.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.ClickException(f"{where}: {error.strerror}: set --directory to one that can be made") from None
    addresses = [listener.address for listener in settings.listen]
    manner = Manner(drain=0.0, watchdog=settings.watchdog, delay=settings.shutdown.delay)
    parent = Parent(config_path, addresses, 1, manner, settings.admin.listen, envoys=Envoys(where, admins))
    raise SystemExit(run_parent(parent, f"{', '.join(map(str, addresses))} by Envoy from {where}"))


@envoy.command()
@_directory_option
@click.option("--admin", default=DEFAULT_ADMIN, show_default=True, help="Where Envoy's admin side listens.")
def bootstrap(directory: Path, admin: str) -> None:
    """Print what Envoy is started with: `envoy -c bootstrap.json`."""
    from router.envoy.bootstrap import bootstrap as made

    click.echo(json.dumps(made(str(directory.absolute()), admin), indent=2))

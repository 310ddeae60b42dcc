"""``export``: the same rings for nginx or HAProxy, as a file that stands still, with what is lost at its top.

It asks nobody but the config file, or with ``--live`` the running router; what would send somebody into another ring is
refused, or with ``--lossy`` left out.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from router.cli.compiled import compiled
from router.cli.options import (
    EXIT_INVALID_CONFIG,
    admin_option,
    fetch_state,
    find_config,
    live_option,
    optional_config_option,
    pick_name,
)
from router.cli.simulate import with_weights
from router.core.spec import SnapshotSpec
from router.export import haproxy, nginx
from router.export.lost import CannotSayError, comment, printable
from router.export.reduced import reduced

if TYPE_CHECKING:
    from router.export.haproxy import Checks


@click.command(epilog="Example: ring-router export haproxy --live > haproxy.cfg && haproxy -c -f haproxy.cfg")
@click.argument("engine", type=click.Choice(["nginx", "haproxy"]))
@optional_config_option
@click.option(
    "--set", "changes", multiple=True, metavar="'SERVICE:RING=PERCENT,…'", help="Other weights, repeatable by service."
)
@click.option("--lossy", is_flag=True, help="Write it even where somebody would be in another ring; the file says who.")
@live_option
@admin_option
def export(
    engine: Literal["nginx", "haproxy"],
    config_path: Path | None,
    changes: tuple[str, ...],
    lossy: bool,
    live: bool,
    admin_url: str,
) -> None:
    """Print the same rings as a configuration of nginx or HAProxy."""
    spec = _with_weights(compiled(config_path, live=live, admin_url=admin_url).snapshot.spec, changes)
    left, losses = reduced(spec, engine)
    wrong = [one for one in losses if one.is_wrong]
    if wrong and not lossy:
        for one in wrong:
            click.echo(printable(str(one)), err=True)
        click.echo(f"{engine} would send somebody into another ring; --lossy writes it all the same", err=True)
        raise SystemExit(EXIT_INVALID_CONFIG)
    if not left.listener.sockets:
        raise click.ClickException(f"no listener is left that {engine} could have: add one without TLS to `listen`")
    source = "the running router" if live else str(find_config(config_path, admin_url))
    try:
        if engine == "haproxy":
            body = haproxy.config(left, _checks(config_path, live=live, admin_url=admin_url))
        else:
            body = nginx.config(left)
    except CannotSayError as error:
        raise click.ClickException(str(error)) from None
    head = comment(f"ring-router export {engine}, from {source}; not to be edited: export it again", losses)
    click.echo(f"{head}\n{body}", nl=False)


def _with_weights(spec: SnapshotSpec, changes: tuple[str, ...]) -> SnapshotSpec:
    """With the weights that are given for some services. Ends the command if they are not valid."""
    services = {one.name: one for one in spec.services}
    for change in changes:
        name, colon, weights = change.partition(":")
        if not colon:
            name, weights = pick_name(list(services), None), change
        services[pick_name(list(services), name)] = with_weights(services[name], weights)
    return replace(spec, services=tuple(services.values()))


def _checks(config_path: Path | None, *, live: bool, admin_url: str) -> Checks:
    """How endpoints are asked whether they are well: no snapshot tells, so it is read from the config file."""
    from router.config.endpoints import checked_endpoints
    from router.config.load import ConfigError, load_settings

    named = fetch_state(admin_url).get("config_path") if live else find_config(config_path, admin_url)
    try:
        settings = load_settings(Path(str(named)))
    except (ConfigError, OSError) as error:
        raise click.ClickException(f"the health checks are in {named}, which cannot be read here: {error}") from None
    return {(one.service, one.version): one.check for one in checked_endpoints(settings)}

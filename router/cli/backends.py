"""``ring-router backends``: what the running router makes of each endpoint, and taking one out of service.

The words only; what happens in Redis is in ``router.control.drain``.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from router.cli.options import (
    AdminUnreachable,
    admin_option,
    config_option,
    fetch_state,
    load_or_exit,
    output_option,
    pick_name,
)

if TYPE_CHECKING:
    from router.config.settings import Settings
    from router.control.drain import Drained

_Command = TypeVar("_Command", bound=Callable[..., Any])
_COLUMNS = ("service", "version", "endpoint", "weight", "state", "active", "idle", "failures")


def _service_option(command: _Command) -> _Command:
    return click.option("-s", "--service", metavar="NAME", help="Only this service.")(command)


@click.group(invoke_without_command=True)
@_service_option
@admin_option
@output_option
@click.pass_context
def backends(context: click.Context, service: str | None, admin_url: str, output: str) -> None:
    """Show the endpoints of the running router and how they are; drain one."""
    if context.invoked_subcommand is not None:
        return
    services = _running(admin_url, service)
    rows = [{"service": name, **row} for name, one in services.items() for row in one.get("backends", [])]
    if output == "json":
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    table = [_COLUMNS, *(_cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in table) for i in range(len(_COLUMNS))]
    for line in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    for name, one in services.items():
        for sentence in one.get("warnings", []):  # an endpoint can be up while its version is avoided
            click.echo(f"{name}: {sentence}")


def _running(admin_url: str, service: str | None) -> dict[str, dict[str, Any]]:
    """The state of all services, or of one. Raises ``AdminUnreachable``."""
    services: dict[str, Any] = fetch_state(admin_url).get("services", {})
    return services if service is None else {name: services[name] for name in [pick_name(list(services), service)]}


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    state, workers = row["state"], row["workers"]
    others = sum(workers.values()) - workers.get(state, 0)
    if state in workers and others:
        state = f"{state} (in {workers[state]} of {workers[state] + others} workers)"
    name = f"{row['endpoint']} ({row['name']})" if row["name"] else row["endpoint"]
    numbers = [str(value) for value in (row["active"], row["idle"], sum(row["failures"].values()))]
    return (row["service"], row["version"], name, str(row["weight"]), state, *numbers)


def _change_options(command: _Command) -> _Command:
    reason = click.option("--reason", default="", metavar="TEXT", help="Why; kept in the audit trail.")
    service = click.option("-s", "--service", metavar="NAME", help="The service; default: all that have the address.")
    return click.argument("address")(reason(service(admin_option(config_option(command)))))


@backends.command(epilog="Example: ring-router backends drain 10.0.0.7:9001 --reason 'new kernel'")
@_change_options
def drain(address: str, service: str | None, reason: str, admin_url: str, config_path: Path) -> None:
    """Send an endpoint no new requests; those it has finish. A name with its port is every address of the name."""
    _change(config_path, admin_url, address, service, reason, out_of_service=True)


@backends.command()
@_change_options
def undrain(address: str, service: str | None, reason: str, admin_url: str, config_path: Path) -> None:
    """Send an endpoint requests again."""
    _change(config_path, admin_url, address, service, reason, out_of_service=False)


def _change(
    config_path: Path, admin_url: str, address: str, service: str | None, reason: str, *, out_of_service: bool
) -> None:
    from router.control.rules import address_of

    settings = load_or_exit(config_path)
    if settings.redis is None:
        raise click.ClickException(
            f"{config_path} has no `redis:`, so endpoints are drained in that file alone: give this one `weight: 0`, "
            f"as in `{{url: http://{address}, weight: 0}}`"
        )
    address = address_of(address)
    known = _known_addresses(settings, admin_url, with_drained=not out_of_service)
    if service is not None:
        services = [pick_name(list(settings.services), service)]
    else:
        services = [name for name, addresses in known.items() if address in addresses]
    if not services and out_of_service:
        there = ", ".join(sorted(set().union(*known.values())))
        raise click.ClickException(
            f"no service has an endpoint {address}; there is: {there}. To drain an address that is yet to come, name "
            f"its service with -s"
        )
    changed = [
        _ask(settings, name, address, reason, out_of_service=out_of_service) for name in services or settings.services
    ]
    if not all(changed):
        raise SystemExit(1)


def _known_addresses(settings: Settings, admin_url: str, *, with_drained: bool) -> dict[str, set[str]]:
    """Service → addresses of its endpoints: those of the config and, if a router answers, those it looked up.

    ``with_drained``: also those that are drained, whose endpoints may be gone.
    """
    known: dict[str, set[str]] = {}
    for name, service in settings.services.items():
        known[name] = {one.url.address for version in service.versions.values() for one in version.endpoints}
    try:
        running: dict[str, Any] = fetch_state(admin_url).get("services", {})
    except AdminUnreachable:
        running = {}
    for name in known.keys() & running.keys():
        known[name].update(row["endpoint"] for row in running[name].get("backends", []))
        if with_drained:
            known[name].update(running[name].get("drained", []))
    return known


def _ask(settings: Settings, name: str, address: str, reason: str, *, out_of_service: bool) -> bool:
    """Change one service and wait until it is applied; False if an instance has not."""
    from router.config.compile import service_spec
    from router.control.drain import applied_by, change_drain
    from router.control.rules import rules_of
    from router.control.weights import Refused, Unreachable, open_redis

    rules = rules_of(service_spec(name, settings.services[name]))
    url = settings.redis or ""

    async def ask() -> tuple[Drained, dict[str, bool]]:
        async with open_redis(url) as client:
            change = await change_drain(client, rules, address, out_of_service=out_of_service, reason=reason)
            return change, await applied_by(client, name, change.after)

    try:
        change, instances = asyncio.run(ask())
    except (Refused, Unreachable) as error:
        raise click.ClickException(str(error)) from None
    return _tell(name, url, address, change, instances)


def _tell(name: str, url: str, address: str, change: Drained, instances: dict[str, bool]) -> bool:
    from router.control.link import by_hand

    if change.before == change.after:
        click.echo(f"{name}: {address} {'is drained already' if address in change.after else 'is not drained'}")
    else:
        click.echo(f"{name}: drained {' '.join(change.before) or 'none'} → {' '.join(change.after) or 'none'}")
        click.echo(f"the same by hand: {by_hand(url, change.command)}")
    late = [instance for instance, is_applied in instances.items() if not is_applied]
    if not instances:
        click.echo(f"{name}: no router has reported in Redis within the last minute: nobody has applied it yet")
    elif late:
        click.echo(
            f"{name}: not applied by {', '.join(late)}: see `HGETALL 'rings:{{{name}}}:status'` for why", err=True
        )
    else:
        click.echo(f"{name}: applied by {', '.join(sorted(instances))}")
    return not late

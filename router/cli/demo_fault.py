"""``ring-router demo fault``: the dial that makes a version of a running demo fail, slow down or hang."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from typing import Any, Final

import click

NONE: Final = {"errors": 0.0, "hang": 0.0, "latency": 0.0}
PORTS: Final = {"v1": 9001, "v2": 9002}
SECONDS: Final = 5.0


@click.command(epilog="Example: ring-router demo fault errors=5% latency=+200ms")
@click.argument("faults", nargs=-1, required=True, metavar="errors=5%|latency=+200ms|hang=1%|none...")
@click.option("--version", type=click.Choice([*PORTS]), default="v2", show_default=True, help="Whose.")
def fault(faults: tuple[str, ...], version: str) -> None:
    """Turn the dial of a version of the demo that runs: what is not named is taken back.

    \b
    errors=5%       of its requests are answered with 500
    latency=+200ms  all of them take so much longer
    hang=1%         of them are never answered
    none            as it was
    """
    wanted = NONE | _read(faults)
    if wanted["errors"] + wanted["hang"] > 1:
        raise click.UsageError("errors and hang are shares of the same requests: together they are at most 100%")
    variable = f"RING_ROUTER_DEMO_{version.upper()}_PORT"
    port = int(os.environ.get(variable, PORTS[version]))
    stands = _put(port, wanted, version, variable)
    parts = [f"{100 * stands[name]:g} % {name}" for name in ("errors", "hang") if stands[name]]
    if stands["latency"]:
        parts.append(f"{1000 * stands['latency']:g} ms longer")
    click.echo(f"{stands['version']}: {', '.join(parts) or 'no fault'}")


def _read(faults: tuple[str, ...]) -> dict[str, float]:
    from router.config.values import parse_duration, parse_rate

    found: dict[str, float] = {}
    for word in faults:
        name, equals, value = word.partition("=")
        if word == "none":
            continue
        if not equals or name not in NONE:
            raise click.UsageError(f"{word!r} is none of errors=5%, latency=+200ms, hang=1%, none")
        try:
            found[name] = parse_duration(value.removeprefix("+")) if name == "latency" else parse_rate(value)
        except ValueError as error:
            raise click.UsageError(f"{name}: {error}") from None
    if found and "none" in faults:
        raise click.UsageError("none takes everything back: give it alone")
    return found


def _put(port: int, wanted: dict[str, float], version: str, variable: str) -> dict[str, Any]:
    from router.process.demo_version import DIAL

    request = urllib.request.Request(f"http://127.0.0.1:{port}{DIAL}", data=json.dumps(wanted).encode(), method="PUT")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=SECONDS) as response:
            stands: dict[str, Any] = json.load(response)
    except (OSError, ValueError) as error:
        raise click.ClickException(
            f"no {version} of a demo answers on port {port} ({getattr(error, 'reason', error)}): start one with "
            f"`ring-router demo`, or name its port with {variable}"
        ) from None
    return stands

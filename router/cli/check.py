"""``check`` and ``schema``: is this config valid, and what may stand in one.

``check`` reads the file and nothing else: no endpoint, no Redis, no running router is asked. With ``--engine envoy`` it
says as well what of a valid config Envoy cannot do.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from router.cli.options import EXIT_INVALID_CONFIG, config_option, output_option

if TYPE_CHECKING:
    from router.config.settings import Service, Settings


@click.command()
@config_option
@click.option(
    "--engine",
    type=click.Choice(["router", "envoy"]),
    default="router",
    show_default=True,
    help="What is to serve the config; for Envoy also say what it cannot do.",
)
@output_option
def check(config_path: Path, engine: str, output: str) -> None:
    """Say whether the config is valid; every problem at once, exit code 2 if there is one."""
    from router.config.load import ConfigError, load_settings

    try:
        settings = load_settings(config_path)
    except ConfigError as error:
        if output == "json":
            problems = [
                {"file": p.file, "line": p.line, "column": p.column, "message": p.message, "hint": p.hint}
                for p in error.problems
            ]
            click.echo(json.dumps({"valid": False, "problems": problems}, indent=2))
        else:
            click.echo(str(error), err=True)
        raise SystemExit(EXIT_INVALID_CONFIG) from None
    if engine == "envoy":
        check_envoy(config_path, settings, output)
    if output == "json":
        services = [_described(name, service) for name, service in settings.services.items()]
        click.echo(json.dumps({"valid": True, "file": str(config_path), "services": services}, indent=2))
        return
    for name, service in settings.services.items():
        click.echo(_summary(name, service))
    click.echo(f"{config_path}: valid")


def check_envoy(config_path: Path, settings: Settings, output: str) -> None:
    """Say everything that Envoy cannot do as this config wants it, and end with exit code 2 if there is something."""
    from router.config.compile import snapshot_spec
    from router.envoy.refusals import refusals

    found = refusals(snapshot_spec(settings, {}, 0))
    if not found:
        return
    if output == "json":
        refused = [one._asdict() for one in found]
        click.echo(json.dumps({"valid": False, "engine": "envoy", "problems": refused}, indent=2))
    else:
        for one in found:
            click.echo(f"{config_path}: {one}", err=True)
        click.echo(f"{config_path}: valid for this router, not for Envoy", err=True)
    raise SystemExit(EXIT_INVALID_CONFIG)


def _described(name: str, service: Service) -> dict[str, Any]:
    from router.config.compile import service_spec

    spec = service_spec(name, service)
    return {
        "name": name,
        "hosts": list(service.hosts),
        "paths": list(service.paths),
        "versions": list(service.versions),
        "rings": [{"name": r.name, "version": r.version, "weight": r.basis_points / 100} for r in spec.rings],
    }


def _summary(name: str, service: Service) -> str:
    """``shop (shop.example.com/): canary 1 % v2 → early 10 % v2 → everyone 89 % v1``."""
    from router.config.compile import service_spec

    rings = service_spec(name, service).rings
    where = f"{', '.join(service.hosts) or 'any host'}, {', '.join(service.paths) or 'any path'}"
    shares = " → ".join(f"{ring.name} {ring.basis_points / 100:g} % {ring.version}" for ring in rings)
    nobody = "" if service.identity else " (no `identity:`, so nobody has a key to hash: only rules choose)"
    return f"{name} ({where}): {shares}{nobody}"


@click.command()
def schema() -> None:
    """Print the JSON Schema of the config, for editors and linters."""
    from router.config.settings import json_schema

    click.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))

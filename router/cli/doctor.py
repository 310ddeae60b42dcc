"""``ring-router doctor``: what is wrong or will be, each with what to do about it. It changes nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

import click

from router.cli.findings import of_admin, of_certificates, of_config, of_machine, of_router
from router.cli.options import admin_option, config_option, output_option
from router.control.diagnosis import of_redis
from router.control.finding import Finding

_SIGNS: Final = {"ok": ("ok", "green"), "warning": ("warning", "yellow"), "bad": ("BAD", "red")}


@click.command(epilog="Example: ring-router doctor -c /etc/ring-router/router.yaml")
@config_option
@admin_option
@output_option
def doctor(config_path: Path, admin_url: str, output: str) -> None:
    """Look at the config, Redis, this machine and the running router; exit 1 if something is bad."""
    found = diagnose(config_path, admin_url)
    if output == "json":
        click.echo(json.dumps([one.plain() for one in found], indent=2, ensure_ascii=False))
    else:
        for one in found:
            word, colour = _SIGNS[one.level]
            click.echo(f"{click.style(f'{word:8}', fg=colour)} {one.what}")
            if one.remedy:
                click.echo(f"{'':8}   → {one.remedy}")
    sys.exit(1 if any(one.level == "bad" for one in found) else 0)


def diagnose(config_path: Path, admin_url: str) -> list[Finding]:
    """Everything that is found, in the order in which it is worth mending."""
    settings, found = of_config(config_path)
    if settings is None:
        return found
    return [
        *found,
        *of_redis(settings.redis, list(settings.services)),
        *of_router(admin_url),
        *of_admin(settings.admin),
        *of_certificates(settings.files.expiries),
        *of_machine(settings),
    ]

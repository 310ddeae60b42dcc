"""``ring-router audit``: who changed what, when and why, in all services, as the running router shows it."""

from __future__ import annotations

import json
import time
import urllib.parse
from typing import Any

import click

from router.cli.options import admin_option, fetch, output_option


@click.command(epilog="Example: ring-router audit --service shop -n 50")
@click.option("-s", "--service", metavar="NAME", help="Only this service.")
@click.option("-n", "--count", default=20, show_default=True, type=click.IntRange(1, 1000), help="How many changes.")
@admin_option
@output_option
def audit(service: str | None, count: int, admin_url: str, output: str) -> None:
    """Show who changed what, when and why, newest first: weights, versions, kills, freezes, drains, members, passes."""
    query = {"count": str(count)} | ({"service": service} if service is not None else {})
    trail = fetch(f"/audit?{urllib.parse.urlencode(query)}", admin_url)
    entries = trail["entries"][:count]
    if output == "json":
        click.echo(json.dumps(entries, indent=2, ensure_ascii=False))
        return
    for entry in entries:
        click.echo(_line(entry))
    if not trail["is_complete"]:
        click.echo("Redis is away: these are the changes that this router remembers", err=True)
    elif not entries:
        click.echo("nothing was changed yet")


def _line(entry: dict[str, Any]) -> str:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry["at"]))
    reason = f"  ({entry['reason']})" if entry["reason"] else ""
    who = f"{entry['actor']} ({entry['source']})"
    return f"{when}  {entry['service']}  {who}  {entry['action']}  {entry['sentence']}{reason}"

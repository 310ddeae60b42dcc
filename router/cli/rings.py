"""``ring-router rings``: what the users of each ring get, now: the dashboard's table, for a terminal.

It asks the admin side of the running router. What is no terminal gets one line per ring × version, with tabs.
"""

from __future__ import annotations

import json
import sys
import time
import urllib.parse
from collections.abc import Iterator
from typing import Any, Final

import click

from router.cli.options import AdminUnreachable, admin_option, fetch, output_option

EVERY_SECONDS: Final = 1.0
COLUMNS: Final = (
    "service", "ring", "version", "target %", "actual %", "req/s", "success %", "p50/95/99 ms", "errors", "p95",
    "verdict",
)  # fmt: skip
"""``errors`` and ``p95``: the differences to the next ring outward, in percentage points and milliseconds."""
WIDE: Final = 110
_COLOURS: Final = {"within": "green", "breached": "bold red", "collecting": "yellow", "no traffic": "dim"}


@click.command(epilog="Example: ring-router rings --watch")
@click.option("-w", "--watch", is_flag=True, help="Show it again every second, until Ctrl-C.")
@click.option("-s", "--service", metavar="NAME", help="Only this service.")
@click.option(
    "--scope", type=click.Choice(["fleet", "instance"]), default="fleet", show_default=True,
    help="All routers on the same Redis, or the one that is asked.",
)  # fmt: skip
@admin_option
@output_option
def rings(watch: bool, service: str | None, scope: str, admin_url: str, output: str) -> None:
    """Show what the users of each ring get: traffic, success, latency, and how it compares to the ring outside it."""
    query = {"scope": scope} | ({"service": service} if service is not None else {})
    where = f"/rings?{urllib.parse.urlencode(query)}"
    is_terminal = sys.stdout.isatty()
    try:
        if watch and is_terminal and output == "text":
            _watch(where, admin_url)
            return
        while True:
            picture = fetch(where, admin_url)
            click.echo(json.dumps(picture, ensure_ascii=False) if output == "json" else _text(picture, is_terminal))
            if not watch:
                return
            time.sleep(EVERY_SECONDS)
    except KeyboardInterrupt:
        pass


def _watch(where: str, admin_url: str) -> None:
    """The table stays where it is; while the router does not answer, the last one stays and says how old it is."""
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    picture, answered_at = fetch(where, admin_url), time.monotonic()
    with Live(auto_refresh=False, screen=True) as live:
        while True:
            age = time.monotonic() - answered_at
            state = Text("LIVE", "green") if age < 2.5 else Text(f"STALE {age:.0f} s", "bold red")
            live.update(Group(_table(picture, live.console.width), *map(Text, sentences(picture)), state), refresh=True)
            time.sleep(EVERY_SECONDS)
            try:
                picture, answered_at = fetch(where, admin_url), time.monotonic()
            except AdminUnreachable:
                continue


def _text(picture: dict[str, Any], is_terminal: bool) -> str:
    if not is_terminal:
        return "\n".join("\t".join(cells) for cells in rows(picture))
    from rich.console import Console

    console = Console()
    with console.capture() as captured:
        console.print(_table(picture, console.width))
        for sentence in sentences(picture):
            console.print(sentence, highlight=False, markup=False)
    return captured.get().rstrip("\n")


def _table(picture: dict[str, Any], width: int) -> Any:
    """What fits: the service where there are several, the differences where the terminal is wide."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    left_out = set() if width >= WIDE else {"errors", "p95"}
    if len(picture["services"]) < 2:
        left_out.add("service")
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in COLUMNS:
        if name not in left_out:
            is_text = name in ("service", "ring", "version", "verdict")
            table.add_column(name, justify="left" if is_text else "right", no_wrap=True)
    for cells in rows(picture):
        shown = [Text(cell) for name, cell in zip(COLUMNS, cells, strict=True) if name not in left_out]
        shown[-1].stylize(_COLOURS.get(cells[-1], ""))
        table.add_row(*shown)
    return table


def rows(picture: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """One per ring × version, in the order of ``COLUMNS``; ``-`` where nobody asked."""
    for name, service in picture["services"].items():
        for ring in service["rings"]:
            for place, version in enumerate(ring["versions"]):
                actual = ring["actual"]
                differences = {one["metric"]: one["estimate"] for one in version["differences"]}
                yield (
                    name, ring["ring"] + (" (killed)" if ring["is_killed"] else ""), version["version"],
                    f"{ring['target']:g}" if place == 0 else "",
                    "" if place else "-" if actual is None else f"{actual['value']:.2f}", f"{version['rps']:.1f}",
                    "-" if version["success"] is None else f"{version['success']['value']:.2f}",
                    "/".join("-" if version[one] is None else f"{version[one]:.1f}" for one in ("p50", "p95", "p99")),
                    *(_difference(differences.get(metric)) for metric in ("errors", "p95")),
                    _verdict(ring, version),
                )  # fmt: skip


def _verdict(ring: dict[str, Any], version: dict[str, Any]) -> str:
    if not version["requests"]:
        return "no traffic"
    return "" if ring["is_default"] else str(version["verdict"]).replace("_", " ")


def _difference(estimate: dict[str, float] | None) -> str:
    return "-" if estimate is None else f"{estimate['value']:+.2f} [{estimate['low']:+.2f}, {estimate['high']:+.2f}]"


def sentences(picture: dict[str, Any]) -> list[str]:
    """What stands under the table: whose figures these are, and what is wrong."""
    whose = "1 instance" if picture["instances"] == 1 else f"{picture['instances']} instances"
    said = [f"{whose}, the last {picture['window_seconds']} s, generation {picture['generation']}"]
    if picture["store"] == "down":
        said.append("Redis is away: these are this instance's own figures, and the weights it knew last")
    for name, service in picture["services"].items():
        if service["freeze"]:
            said.append(f"{name} is frozen: {service['freeze']}")
        if service["split"]["verdict"] == "breached":
            said.append(f"{name}: {service['split']['sentence']}")
        for ring in service["rings"]:
            said += [
                f"{name}, {ring['ring']}: {one['sentence']}"
                for version in ring["versions"]
                for one in version["differences"]
                if one["verdict"] == "breached"
            ]
    return said

"""``ring-router tap``: requests as they happen, some of them, with ring and reason; whose they are is a hash.

It asks the admin side of the running router and changes nothing.
"""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.error
import urllib.parse
from collections.abc import Iterable, Iterator
from http.client import HTTPException
from typing import Any, Final

import click

from router.cli.options import AdminUnreachable, admin_option, admin_response, output_option, reason_in

SILENCE_SECONDS: Final = 10.0
"""The router says something every second."""
COLUMNS: Final = ("time", "status", "ms", "service", "ring", "version", "reason", "user", "request")
WIDTHS: Final = (12, 3, 8, 0, 6, 2, 8, 12, 0)
"""At least; a column that is too narrow for what comes grows."""


@click.command(epilog="Example: ring-router tap --service shop --ring canary")
@click.option("--service", metavar="NAME", default="", help="Only requests of this service.")
@click.option("--ring", metavar="NAME", default="", help="Only requests in this ring.")
@click.option(
    "--rate", type=click.IntRange(1, 1000), default=10, show_default=True, help="Requests a second at the most."
)
@admin_option
@output_option
def tap(service: str, ring: str, rate: int, admin_url: str, output: str) -> None:
    """Show live requests, until Ctrl-C: sampled, when they are over, and each user as a hash."""
    place = {"service": service, "ring": ring}
    query = urllib.parse.urlencode({name: value for name, value in place.items() if value} | {"rate": rate})
    lines = Lines(is_json=output == "json", is_terminal=sys.stdout.isatty())
    try:
        with admin_response(admin_url, f"/api/v1/tap?{query}", SILENCE_SECONDS) as response:
            for kind, said in events(response):
                if kind == "dropped":
                    lines.note(int(said["dropped"]))
                else:
                    lines.show(said)
        click.echo("the router stopped", err=True)
    except KeyboardInterrupt:
        pass
    except urllib.error.HTTPError as error:
        raise AdminUnreachable(f"the router at {admin_url} refuses: {reason_in(error)}") from None
    except BrokenPipeError:  # who reads this has seen enough; nothing may be written at the exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, HTTPException) as error:
        raise AdminUnreachable(f"the router at {admin_url} is gone: {error or type(error).__name__}") from None


def events(lines: Iterable[bytes]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The events of a stream (WHATWG HTML §9.2.6): the kind, ``message`` if it has none, and the object it carries."""
    kind, data = "message", b""
    for raw in lines:
        line = raw.rstrip(b"\r\n")
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"event":
            kind = value.decode()
        elif field == b"data":
            data += value
        elif not line:
            if data:
                yield kind, json.loads(data)
            kind, data = "message", b""


class Lines:
    """How requests are printed: aligned for people, with tabs for programs, or as they are."""

    def __init__(self, *, is_json: bool, is_terminal: bool) -> None:
        self._is_json = is_json
        self._is_terminal = is_terminal
        self._widths = [max(width, len(name)) for width, name in zip(WIDTHS, COLUMNS, strict=True)]
        self._is_first = True

    def show(self, said: dict[str, Any]) -> None:
        """One request."""
        if self._is_json:
            click.echo(json.dumps(said, ensure_ascii=False))
            return
        at = float(said["at"])
        fields = [
            time.strftime("%H:%M:%S", time.localtime(at)) + f".{int(at % 1 * 1000):03d}",
            str(said["status"]), f"{1000 * said['duration']:.1f}", said["service"], said["ring"], said["version"],
            said["reason"], said["identity"] or "-", f"{said['method']} {said['path']}",
        ]  # fmt: skip
        if not self._is_terminal:
            click.echo("\t".join(fields))
            return
        self._widths = [max(width, len(one)) for width, one in zip(self._widths, fields, strict=True)]
        if self._is_first:
            self._is_first = False
            click.secho(self._aligned(COLUMNS), dim=True)
        click.secho(self._aligned(fields), fg="red" if said["status"] >= 500 else None)

    def _aligned(self, fields: Iterable[str]) -> str:
        made = [one.rjust(width) if place in (1, 2) else one.ljust(width) for place, (one, width) in
                enumerate(zip(fields, self._widths, strict=True))]  # fmt: skip
        return "  ".join(made).rstrip()

    def note(self, count: int) -> None:
        """So many requests were left out: the rate is what it is."""
        if self._is_json:
            click.echo(json.dumps({"dropped": count}))
        elif self._is_terminal:
            click.secho(f"… {count} more", dim=True, err=True)

"""``ring-router healthcheck``: asks the admin side whether this router is ready. Standard library only, to be quick."""

from __future__ import annotations

import http.client
from urllib.parse import urlsplit

import click


@click.command()
@click.option(
    "--admin", envvar="RING_ROUTER_ADMIN", default="http://127.0.0.1:9900", show_default=True, help="Admin address."
)
@click.option("--live", is_flag=True, help="Ask /live (is the process there) instead of /ready (may traffic come).")
@click.option("--timeout", default=2.0, show_default=True, help="Seconds.")
def healthcheck(admin: str, live: bool, timeout: float) -> None:
    """Exit 0 if the router is ready, 1 with a sentence if not."""
    parts = urlsplit(admin if "//" in admin else f"//{admin}")
    connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port or 9900, timeout=timeout)
    try:
        connection.request("GET", "/live" if live else "/ready")
        response = connection.getresponse()
        text = response.read(4096).decode("utf-8", "replace").strip()
    except OSError as error:
        raise click.ClickException(f"no answer from {admin}: {error}") from None
    finally:
        connection.close()
    if response.status != 200:
        raise click.ClickException(text)
    click.echo(text)

"""``explain``: why a request is in its ring, as a numbered trace.

The steps and the decision come from ``core.explain``; ``asking`` turns words into a request, ``tracing`` the trace into
text. It decides nothing and sends no request to any version.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from router.cli.asking import Words, request_of, to_bytes
from router.cli.compiled import compiled
from router.cli.options import admin_option, live_option, optional_config_option, output_option, pick_name
from router.cli.tracing import render
from router.core.explain import explain as explain_request
from router.core.identity import put_key
from router.core.rules import Request
from router.core.snapshot import Service, Snapshot
from router.core.trace import as_plain
from router.proxy.weighing import weigh
from router.trust.tokens import MissingLibraryError

_Command = TypeVar("_Command", bound=Callable[..., Any])
_REQUEST: Final = (
    click.option("--host", metavar="HOST", help="The host of the request: it chooses the service."),
    click.option("--path", metavar="PATH", help="The path of the request [default: /]."),
    click.option("--query", metavar="QUERY", help="What stands behind the `?`."),
    click.option("--method", metavar="METHOD", default="GET", show_default=True, help="The method."),
    click.option("-H", "--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="A header, repeatable."),
    click.option("--cookie", "cookies", multiple=True, metavar="'NAME=VALUE'", help="A cookie, repeatable."),
    click.option("--client", metavar="ADDRESS", help="The client's address, as trusted proxies tell it."),
    click.option("--trusted", "is_trusted", is_flag=True, help="The peer is one of `trusted_proxies`."),
    click.option("--outbound", "is_outbound", is_flag=True, help="It came in on an outbound listener."),
    click.option("--claim", "claims", multiple=True, metavar="NAME=VALUE", help="Of a token, as if verified."),
    click.option("--certificate", multiple=True, metavar="NAME=VALUE", help="Of its certificate, such as cn=…."),
    click.option("--at", metavar="TIME", help="When, as in RFC 3339 [default: now]."),
    click.option("--ring", metavar="RING", help="X-Ring-Override: the ring that it names."),
    click.option("--pass", "token", metavar="TOKEN", help="A pass."),
    click.option("--propagated", metavar="RING", help="The ring that its call chain has had so far, unsigned."),
)


def _request_options(command: _Command) -> _Command:
    for option in reversed(_REQUEST):
        command = option(command)
    return command


@click.command(epilog="Example: ring-router explain https://shop.example.com/cart --user alice --client 192.0.2.7")
@click.argument("url", required=False)
@optional_config_option
@click.option("--service", metavar="NAME", help="The service; needed if there are several and no host or path.")
@_request_options
@click.option("--user", metavar="KEY", help="The user: sets the service's first source of keys.")
@live_option
@admin_option
@output_option
def explain(
    config_path: Path | None,
    service: str | None,
    user: str | None,
    live: bool,
    admin_url: str,
    output: str,
    **words: Any,
) -> None:
    """Say which ring and version a request gets, and why, step by step."""
    asked = Words(**words)
    about = compiled(config_path, live=live, admin_url=admin_url)
    request = request_of(asked)
    chosen = _service(about.snapshot, service, request)
    if user is not None:
        _identify_as(chosen, request, to_bytes(user))
    spec = about.snapshot.spec
    # --user may stand for what only a trusted peer says; that does not make the peer trusted in anything else.
    believed, request.is_trusted = request.is_trusted, asked.is_trusted
    try:
        proofs = weigh(request, chosen, spec.trust, mode=spec.listener.mode, is_outbound=asked.is_outbound)
    except MissingLibraryError as error:
        raise click.ClickException(str(error)) from None
    request.is_trusted = believed
    trace = explain_request(chosen, request, about.tables)
    if output == "json":
        click.echo(json.dumps(as_plain(trace, proofs, about.notes), indent=2, ensure_ascii=False))
        return
    click.echo(render(trace, proofs))
    for note in dict.fromkeys(about.notes):
        click.echo(f"note: {note}")


def _service(snapshot: Snapshot, name: str | None, request: Request) -> Service:
    names = [service.spec.name for service in snapshot.services]
    if name is not None or (len(names) == 1 and not request.host and request.path == b"/"):
        return snapshot.services[names.index(pick_name(names, name))]
    found = snapshot.find(request.host, request.path)
    if found is not None:
        return found
    if not request.host:
        raise click.UsageError(f"there are several services: choose one with --service ({', '.join(names)}), or --host")
    where = (request.host + request.path).decode(errors="replace")
    raise click.UsageError(f"no service answers for {where}: the proxy would say 404. There is: {', '.join(names)}")


def _identify_as(service: Service, request: Request, key: bytes) -> None:
    """Put the key where the service looks first; a cookie of the router's own is the last choice."""
    sources = service.spec.identity
    if not sources:
        raise click.UsageError(f"the service {service.spec.name} has no `identity:`, so --user means nothing there")
    put_key(next((source for source in sources if source.kind != "anonymous_cookie"), sources[0]), request, key)

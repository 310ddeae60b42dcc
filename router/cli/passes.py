"""``ring-router pass``: a ring for whoever has it, signed, and over after a while.

Signing is ``router.trust.passes``' affair, taking back is ``router.control.passes``'.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from router.cli.options import check_ring, config_option, load_or_exit, output_option, pick_service
from router.cli.weights import ask, target_of

if TYPE_CHECKING:
    from router.config.settings import Settings
    from router.core.audience import KeySpec


def _keys(settings: Settings, config_path: Path, key_id: str | None = None) -> list[KeySpec]:
    """The signing keys, the wanted one first. Ends the command where there is none."""
    from router.core.audience import KeySpec

    keys = [KeySpec(one.id, one.secret) for one in settings.signing_keys]
    if not keys:
        raise click.ClickException(
            f"{config_path} has no `signing_keys:`, so nobody could verify a pass: add e.g.\n"
            f'  signing_keys: [{{id: "1", secret: "${{RING_ROUTER_KEY}}"}}]'
        )
    if key_id is not None and key_id not in {key.id for key in keys}:
        raise click.UsageError(f"there is no signing key {key_id!r}: there is {', '.join(key.id for key in keys)}")
    return sorted(keys, key=lambda key: key.id != key_id) if key_id is not None else keys


def _when(at: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(at))


@click.group("pass")
def passes() -> None:
    """Passes: a ring for whoever has one, signed and for a while."""


@passes.command()
@click.option("--service", metavar="NAME", help="The service; needed if there are several.")
@click.option("--ring", required=True, metavar="NAME", help="The ring that the pass leads into.")
@click.option("--user", default="", metavar="KEY", help="For this user alone [default: for whoever has it].")
@click.option("--expires", default="2h", show_default=True, metavar="TIME", help="How long it holds: 30m, 2h.")
@click.option("--key", "key_id", metavar="ID", help="The signing key [default: the first].")
@config_option
@output_option
def sign(
    service: str | None, ring: str, user: str, expires: str, key_id: str | None, config_path: Path, output: str
) -> None:
    """Make a pass, to be sent as X-Ring-Pass, as the cookie ring_pass, or in a link."""
    from router.config.values import parse_duration
    from router.trust.passes import read_pass, sign_pass

    settings = load_or_exit(config_path)
    name, chosen = pick_service(settings, service)
    check_ring(ring, [one.name for one in chosen.rings], name)
    keys = _keys(settings, config_path, key_id)
    if chosen.override == "off":
        raise click.ClickException(f"{name} has `override: off`: no pass leads anywhere there")
    try:
        seconds = parse_duration(float(expires) if expires.replace(".", "", 1).isdigit() else expires)
        token = sign_pass(keys, name, ring, user, time.time() + seconds)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    said = read_pass(keys, token)
    if output == "json":
        answer = {"token": token, "id": said.id, "key": said.key_id, "service": name, "ring": ring, "user": user}
        click.echo(json.dumps({**answer, "expires_at": said.expires_at}, indent=2))
        return
    host = chosen.hosts[0] if chosen.hosts else "HOST"
    path = chosen.paths[0] if chosen.paths else "/"
    click.echo(token)
    click.echo(f"\nfor {user or 'whoever has it'}, until {_when(said.expires_at)}; to take it back: pass id {said.id}")
    click.echo(f"a header:  X-Ring-Pass: {token[:16]}…")
    click.echo(f"a link:    http://{host}{path}?ring_pass={token[:16]}…   (it becomes a cookie)")


@passes.command()
@click.argument("token")
@config_option
@output_option
def show(token: str, config_path: Path, output: str) -> None:
    """Say what a pass says, and whether its signature holds; revocations are Redis' to know."""
    from router.trust.passes import PassError, read_pass

    keys = _keys(load_or_exit(config_path), config_path)
    try:
        said = read_pass(keys, token)
    except PassError as error:
        raise click.ClickException(f"{error}: nothing in it can be believed") from None
    is_over = time.time() >= said.expires_at
    if output == "json":
        fields = ("service", "ring", "user", "expires_at", "id", "key_id")
        click.echo(json.dumps({**{name: getattr(said, name) for name in fields}, "expired": is_over}, indent=2))
        return
    click.echo(f"ring {said.ring} of {said.service}, for {said.user or 'whoever has it'}")
    click.echo(f"{'over since' if is_over else 'until'} {_when(said.expires_at)}; id {said.id}, key {said.key_id}")


@passes.command()
@click.argument("what")
@click.option("--service", metavar="NAME", help="The service; needed if there are several.")
@click.option("--key", "is_key", is_flag=True, help="WHAT is the id of a signing key: all that it has signed.")
@click.option("--reason", default="", metavar="TEXT", help="Why; kept in the audit trail.")
@config_option
def revoke(what: str, service: str | None, is_key: bool, reason: str, config_path: Path) -> None:
    """Take back a pass (the token, or its id), or with --key everything that a key has signed."""
    from router.control.passes import revoke as take_back
    from router.trust.passes import PassError, read_pass

    target = target_of(config_path, service)
    name, until, field = target.rules.name, 0, f"key:{what}" if is_key else f"pass:{what}"
    if not is_key and "." in what:
        try:
            said = read_pass(_keys(load_or_exit(config_path), config_path), what)
        except PassError as error:
            raise click.ClickException(f"{error}: it leads nowhere as it is") from None
        if said.service != name:
            raise click.UsageError(f"this pass is for {said.service}: --service {said.service}")
        until, field = said.expires_at, f"pass:{said.id}"
    is_new = ask(target, lambda client: take_back(client, name, field, until, reason))
    click.echo(f"{name}: {field} {'is revoked' if is_new else 'was revoked already'}")


@passes.command("list-revoked")
@click.option("--service", metavar="NAME", help="The service; needed if there are several.")
@config_option
@output_option
def list_revoked(service: str | None, config_path: Path, output: str) -> None:
    """Show what was taken back."""
    from router.control.passes import listed

    target = target_of(config_path, service)
    found = ask(target, lambda client: listed(client, target.rules.name))
    if output == "json":
        click.echo(json.dumps({field: {"until": at, "reason": why} for field, (at, why) in found.items()}, indent=2))
        return
    for field, (until, reason) in found.items():
        click.echo(f"{field:<32} {_when(until) if until else 'for ever':<28} {reason}")
    if not found:
        click.echo(f"nothing of {target.rules.name} is revoked")

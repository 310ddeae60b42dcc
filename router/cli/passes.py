"""``ring-router pass``: sign a pass, look into one, take one back.

A pass is signed and read here, with the keys of the config; what is revoked stands in Redis (``control.passes``).
The token goes to standard output and everything about it to standard error, so that a script gets what it can use.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import click

from router.cli.options import (
    ask_redis,
    check_ring,
    config_option,
    find_config,
    load_or_exit,
    optional_config_option,
    output_option,
    pick_name,
    pick_service,
)
from router.trust.passes import Pass, PassError, Verdict, check_pass, read_pass, sign_pass

if TYPE_CHECKING:
    from router.config.settings import Service, Settings
    from router.control.weights import Client
    from router.core.audience import KeySpec

_Result = TypeVar("_Result")
_SPAN: Final = re.compile(r"([0-9]{1,9})\s*(s|m|h|d)")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
LONGEST_SECONDS: Final = 90 * 86_400
"""What lives longer is no pass for a test any more, but a ring: list its users."""


@click.group("pass", invoke_without_command=True, epilog="Example: ring-router pass --ring canary --user alice")
@click.option("--service", metavar="NAME", help="The service; needed if there are several.")
@click.option("--ring", metavar="RING", help="The ring that the pass is for.")
@click.option("--user", metavar="KEY", default="", help="The one user it is for [default: whoever has it].")
@click.option("--expires", metavar="SPAN", default="2h", show_default=True, help="How long it holds: 30m, 2h, 7d.")
@click.option("--key", "key_id", metavar="ID", help="The key that signs it [default: the first of signing_keys].")
@optional_config_option
@output_option
@click.pass_context
def passes(
    context: click.Context,
    service: str | None,
    ring: str | None,
    user: str,
    expires: str,
    key_id: str | None,
    config_path: Path | None,
    output: str,
) -> None:
    """Sign a pass: a ring for whoever has it, until it expires."""
    if context.invoked_subcommand is not None:
        given = {"config_path": config_path, "service": service}  # -c and --service in front of the word count for it
        context.default_map = {context.invoked_subcommand: {key: value for key, value in given.items() if value}}
        return
    path = find_config(config_path)
    settings = load_or_exit(path)
    name, chosen = pick_service(settings, service)
    if ring is None:
        raise click.UsageError(f"--ring is missing: {', '.join(one.name for one in chosen.rings)}")
    _check_admits(name, chosen, ring)
    seconds = _span(expires)
    expires_at = int(time.time()) + seconds
    try:
        token = sign_pass(_signing_first(settings, path, key_id), name, ring, user, expires_at, secrets.token_hex(8))
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    made = read_pass(_keys(settings), token)
    link = _link(settings, chosen, token)
    if output == "json":
        click.echo(json.dumps({"token": token, "link": link, **_described(made)}, indent=2, ensure_ascii=False))
        return
    click.echo(token)
    click.echo(f"\n{_sentence(made)}", err=True)
    click.echo(f"link:    {link}", err=True)
    click.echo("header:  X-Ring-Pass, cookie: ring_pass", err=True)
    click.echo(f"revoke:  ring-router pass revoke {made.id} --service {name}", err=True)


@passes.command()
@click.argument("token")
@config_option
@output_option
def show(token: str, config_path: Path, output: str) -> None:
    """Say what is in a pass, and whether it holds; exit code 1 if it does not."""
    settings = load_or_exit(config_path)
    token = _bare(token)
    try:
        found = read_pass(_keys(settings), token)
    except PassError as error:
        why = {
            Verdict.FORGED: f"no key in {config_path} signed it, or it was changed afterwards",
            Verdict.MALFORMED: "this is no pass",
        }.get(error.verdict, str(error))
        if output == "json":
            click.echo(json.dumps({"valid": False, "verdict": error.verdict.value}, indent=2))
        else:
            click.echo(f"{error.verdict.value}: {why}")
        raise SystemExit(1) from None
    verdict, note = _verdict(settings, found)
    if output == "json":
        answer = {"valid": verdict is Verdict.VALID, "verdict": verdict.value, "note": note, **_described(found)}
        click.echo(json.dumps(answer, indent=2, ensure_ascii=False))
    else:
        click.echo(_sentence(found))
        click.echo(f"it is {verdict.value}" + (f": {note}" if note else ""))
    if verdict is not Verdict.VALID:
        raise SystemExit(1)


@passes.command("revoke")
@click.argument("token_or_id")
@click.option("--service", metavar="NAME", help="The service; a token knows it itself.")
@click.option("--reason", default="", metavar="TEXT", help="Why; kept in the audit trail.")
@config_option
def revoke_pass(token_or_id: str, service: str | None, reason: str, config_path: Path) -> None:
    """Take one pass back, by its token or its id."""
    settings = load_or_exit(config_path)
    token = _bare(token_or_id)
    if "." not in token:
        _revoke(settings, config_path, [pick_name(list(settings.services), service)], f"pass:{token}", 0, reason)
        return
    try:
        found = read_pass(_keys(settings), token)
    except PassError as error:
        raise click.ClickException(f"{error}, so nobody knows its id: no key in {config_path} signed it") from None
    if service not in (None, found.service):
        raise click.UsageError(f"this pass is for the service {found.service}, not {service}")
    services = [pick_name(list(settings.services), found.service)]
    _revoke(settings, config_path, services, f"pass:{found.id}", found.expires_at, reason)


@passes.command()
@click.argument("key_id", metavar="ID")
@click.option("--service", metavar="NAME", help="For this service alone [default: for all].")
@click.option("--reason", default="", metavar="TEXT", help="Why; kept in the audit trail.")
@config_option
def revoke_key(key_id: str, service: str | None, reason: str, config_path: Path) -> None:
    """Take back all passes that a key has signed."""
    settings = load_or_exit(config_path)
    names = list(settings.services)
    _revoke(
        settings, config_path, names if service is None else [pick_name(names, service)], f"key:{key_id}", 0, reason
    )
    known = [key.id for key in settings.signing_keys]
    if known[:1] == [key_id]:
        click.echo(f"{key_id} still signs: put another key in front of it in `signing_keys`", err=True)
    elif key_id not in known:
        click.echo(f"there is no key {key_id} in {config_path}: {', '.join(known) or 'none at all'}", err=True)


@passes.command()
@click.option("--service", metavar="NAME", help="Of this service alone [default: of all].")
@config_option
@output_option
def list_revoked(service: str | None, config_path: Path, output: str) -> None:
    """Show what is revoked."""
    from router.control.passes import read_revoked

    settings = load_or_exit(config_path)
    names = list(settings.services) if service is None else [pick_name(list(settings.services), service)]
    now = time.time()

    async def read(client: Client) -> dict[str, list[dict[str, object]]]:
        return {
            name: [
                {"field": one.field, "until": one.until, "reason": one.reason, "text": str(one)}
                for one in await read_revoked(client, name)
                if one.matters(now)
            ]
            for name in names
        }

    found = ask_redis(_url(settings, config_path), read)
    if output == "json":
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    for name, rows in found.items():
        for row in rows:
            click.echo(f"{name}  {row['text']}")
    if not any(found.values()):
        click.echo("no pass is revoked")


# -- what they share ---------------------------------------------------------------------------------------------------


def _revoke(settings: Settings, config_path: Path, services: list[str], field: str, until: int, reason: str) -> None:
    from router.control.passes import revoke

    async def write(client: Client) -> list[bool]:
        return [await revoke(client, name, field, until=until, reason=reason) for name in services]

    for name, is_new in zip(services, ask_redis(_url(settings, config_path), write), strict=True):
        click.echo(f"{name}: {field} is revoked" + ("" if is_new else " already"))


def _url(settings: Settings, config_path: Path) -> str:
    if settings.redis is None:
        why = "what is revoked stands in Redis, and there is none"
        raise click.ClickException(f"{why} in {config_path}: add `redis:`, or take the key out of `signing_keys`")
    return settings.redis


def _keys(settings: Settings) -> tuple[KeySpec, ...]:
    from router.core.audience import KeySpec

    return tuple(KeySpec(key.id, key.secret) for key in settings.signing_keys)


def _signing_first(settings: Settings, path: Path, key_id: str | None) -> tuple[KeySpec, ...]:
    keys = _keys(settings)
    if not keys:
        remedy = 'add e.g. `signing_keys: [{id: "2026-12", secret: "${RING_ROUTER_KEY}"}]`'
        raise click.ClickException(f"{path} has no key to sign with: {remedy}")
    if key_id is None:
        return keys
    chosen = [key for key in keys if key.id == key_id]
    if not chosen:
        raise click.UsageError(f"there is no key {key_id!r} in `signing_keys`: {', '.join(key.id for key in keys)}")
    return (*chosen, *keys)


def _check_admits(name: str, service: Service, ring: str) -> None:
    check_ring(ring, [one.name for one in service.rings], name)
    if service.override == "off":
        raise click.ClickException(f"{name} takes no passes: it says `override: off`")


def _span(text: str) -> int:
    found = _SPAN.fullmatch(text.strip())
    seconds = int(found[1]) * _UNITS[found[2]] if found else 0
    if not 0 < seconds <= LONGEST_SECONDS:
        raise click.UsageError(f"--expires takes a time such as 30m, 2h or 7d, at most 90d, not {text!r}")
    return seconds


def _bare(word: str) -> str:
    """A token alone, also where somebody pasted the whole link."""
    return word.partition("ring_pass=")[2].partition("&")[0] if "ring_pass=" in word else word.strip()


def _link(settings: Settings, service: Service, token: str) -> str:
    """Where a browser would get the pass; the first host that is one, else a listener."""
    host = next((one for one in service.hosts if not one.startswith("*")), "")
    scheme = "https" if any(one.tls is not None for one in settings.listen) else "http"
    if not host:
        first = next((one.address for one in settings.listen if not one.address.path), None)
        shown = "127.0.0.1" if first is None or first.host in ("0.0.0.0", "::") else first.host  # noqa: S104
        host = f"{f'[{shown}]' if ':' in shown else shown}:{8080 if first is None else first.port}"
    path = service.paths[0] if service.paths else "/"
    return f"{scheme}://{host}{path}?ring_pass={token}"


def _verdict(settings: Settings, found: Pass) -> tuple[Verdict, str]:
    """What the pass is worth, by the config and by what Redis has revoked."""
    from router.control.passes import read_revoked

    service = settings.services.get(found.service)
    if service is None or found.ring not in [ring.name for ring in service.rings]:
        return Verdict.FOREIGN, "the config has no such service, or no such ring of it"
    if service.override == "off":
        return Verdict.FOREIGN, f"{found.service} takes no passes (`override: off`)"
    now, note, revoked = time.time(), "", frozenset[str]()
    if settings.redis is None:
        note = "without `redis:` nothing can be revoked"
    else:
        try:
            entries = ask_redis(settings.redis, lambda client: read_revoked(client, found.service))
            revoked = frozenset(one.field for one in entries if one.matters(now))
        except click.ClickException as error:
            note = f"whether it is revoked is not known: {error.message}"
    return check_pass(found, found.service, revoked, found.user, now), note


def _sentence(found: Pass) -> str:
    whose = f"the user {found.user}" if found.user else "whoever has it"
    until = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(found.expires_at))
    what = f"pass {found.id}: ring {found.ring} of {found.service} for {whose}"
    return f"{what}, until {until}, signed by key {found.key_id}"


def _described(found: Pass) -> dict[str, object]:
    return {
        "id": found.id,
        "service": found.service,
        "ring": found.ring,
        "user": found.user,
        "expires_at": found.expires_at,
        "key": found.key_id,
    }

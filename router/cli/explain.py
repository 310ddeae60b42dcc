"""``explain``: why a request is in its ring, as a numbered trace.

The steps and the decision come from ``core.explain``; this module turns words into a request and the trace into text.
It decides nothing and sends no request to any version.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final

import click

from router.cli.options import (
    admin_option,
    live_option,
    optional_config_option,
    output_option,
    pick_name,
    snapshot_of,
)
from router.core.explain import Finding, HashStep, IdentityStep, RuleStep, Trace
from router.core.explain import explain as explain_request
from router.core.identity import put_key
from router.core.rules import Request
from router.core.snapshot import Reason, Service, Snapshot
from router.core.trace import as_plain

_WHY: Final = {
    Reason.MEMBER: "the user is a member",
    Reason.RULE: "a rule matches",
    Reason.HASH: "the hash of the key falls into its interval",
}


@click.command()
@optional_config_option
@click.option("--service", metavar="NAME", help="The service; needed if there are several and no --host or --path.")
@click.option("--host", metavar="HOST", help="The host of the request: it chooses the service.")
@click.option("--path", metavar="PATH", help="The path of the request [default: /].")
@click.option("-H", "--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="A header; may be repeated.")
@click.option("--cookie", "cookies", multiple=True, metavar="'NAME=VALUE'", help="A cookie; may be repeated.")
@click.option("--user", metavar="KEY", help="The user: sets the service's first identity header or cookie.")
@live_option
@admin_option
@output_option
def explain(
    config_path: Path | None,
    service: str | None,
    host: str | None,
    path: str | None,
    headers: tuple[str, ...],
    cookies: tuple[str, ...],
    user: str | None,
    live: bool,
    admin_url: str,
    output: str,
) -> None:
    """Say which ring and version a request gets, and why, step by step."""
    snapshot = Snapshot(snapshot_of(config_path, live=live, admin_url=admin_url))
    request = _request(host, path, headers, cookies)
    chosen = _service(snapshot, service, request)
    if user is not None:
        _identify_as(chosen, request, _bytes(user))
    trace = explain_request(chosen, request)
    click.echo(json.dumps(as_plain(trace), indent=2, ensure_ascii=False) if output == "json" else render(trace))


def _request(host: str | None, path: str | None, lines: tuple[str, ...], cookies: tuple[str, ...]) -> Request:
    """The request as the proxy would see it: repeated headers joined, cookies apart, host without its port."""
    headers: dict[bytes, bytes] = {}
    jar = []
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise click.UsageError(f"a header is written 'Name: value', not {line!r}")
        field, text = _bytes(name.strip().lower()), _bytes(value.strip())
        if field == b"cookie":
            jar.append(text)
        else:
            headers[field] = headers[field] + b", " + text if field in headers else text
    for cookie in cookies:
        if not cookie.partition("=")[1]:
            raise click.UsageError(f"a cookie is written 'name=value', not {cookie!r}")
        jar.append(_bytes(cookie))
    where = _bytes(host).lower() if host is not None else headers.get(b"host", b"").lower()
    bare, colon_, port = where.rpartition(b":")
    if colon_ and port.isdigit():
        where = bare
    return Request(where, _bytes(path or "/").partition(b"?")[0], headers, b"; ".join(jar))


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


def render(trace: Trace) -> str:
    """The trace as numbered lines, in the order in which the proxy asks, and the decision."""
    steps = [_identity_line(step) for step in trace.identity]
    if trace.key is None:
        minted = f"; the proxy would set the cookie {trace.mints} and hash that" if trace.mints else ""
        steps.append(f"identity: nobody has a key here{minted}")
    elif trace.member_of is not None:
        steps.append(f"members: {_text(trace.key)!r} is a member of {trace.member_of}")
    else:
        steps.append(f"members: {_text(trace.key)!r} is listed in no ring")
    steps += [_rule_line(trace, step) for step in trace.rules]
    if trace.hash is not None:
        steps.append("\n   ".join(_hash_lines(trace, trace.hash)))
    lines = [f"{trace.service}"] + [f"{number:2}. {step}" for number, step in enumerate(steps, 1)]
    decision = trace.decision
    default = "nobody has a key to hash" if trace.key is None else "the default ring takes the rest"
    why = _WHY.get(decision.reason, default)
    return "\n".join([*lines, f" => ring {decision.ring}, version {decision.version}, reason {decision.reason}: {why}"])


def _identity_line(step: IdentityStep) -> str:
    if step.value is None:
        return f"identity: {step.kind} {step.name} is not there"
    note = (
        "this is the key" if step.chosen else "empty, so it does not count" if not step.value else "not asked any more"
    )
    return f"identity: {step.kind} {step.name} is {_text(step.value)!r}: {note}"


def _rule_line(trace: Trace, step: RuleStep) -> str:
    head = f"rule of {step.ring}: {step.finding.text}"
    if step.killed:
        return f"{head}: not asked, {step.ring} is killed"
    answer = "matches" if step.finding.holds else "does not match"
    if step.finding.holds and not step.decided:
        answer = "would match, but was not asked: decided above"
    return f"{head}: {answer}{_because(step.finding)}"


def _because(finding: Finding) -> str:
    """What the request had in the places a rule looked at."""
    leaves = list(_leaves(finding))
    if len(leaves) == 1:
        return "" if finding.holds and leaves[0].found is not None else f" ({_found(leaves[0])})"
    return "".join(f"\n      {'yes' if leaf.holds else 'no '}  {leaf.text} ({_found(leaf)})" for leaf in leaves)


def _leaves(finding: Finding) -> list[Finding]:
    if not finding.children:
        return [finding]
    return [leaf for child in finding.children for leaf in _leaves(child)]


def _found(finding: Finding) -> str:
    return "it is not there" if finding.found is None else f"it is {_text(finding.found)!r}"


def _hash_lines(trace: Trace, step: HashStep) -> list[str]:
    asked = trace.decision.reason in (Reason.HASH, Reason.DEFAULT)
    ring, border = step.ring, _percent(step.bucket + 1)
    lines = [
        f"hash: bucket {step.bucket:04}/10000{'' if asked else ' (not asked: decided above)'}; "
        f"{ring} owns {_percent(step.inner_border)} to {_percent(step.outer_border)}"
    ]
    if step.lands_in != ring:
        lines.append(f"  {ring} is killed: its users go outward to {step.lands_in}")
    if not step.is_default:
        lines.append(
            f"  stays in {ring} until its outer border falls below {border} (now {_percent(step.outer_border)}, "
            f"{_percent(step.may_narrow)} to spare)"
        )
    if step.widen_to_move_inward is not None:
        lines.append(
            f"  moves inward as soon as the rings inside {ring} reach {border} together "
            f"(now {_percent(step.inner_border)}, {_percent(step.widen_to_move_inward)} more)"
        )
    return lines


def _percent(basis_points: int) -> str:
    return f"{basis_points // 100}.{basis_points % 100:02} %"


def _bytes(word: str) -> bytes:
    return os.fsencode(word)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")

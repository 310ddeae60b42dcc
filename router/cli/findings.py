"""What ``doctor`` finds in the config, on this machine and in the running router. Each finding names its remedy."""

from __future__ import annotations

import hashlib
import os
import resource
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from router.cli.options import TOKEN_VARIABLE, AdminUnreachable, fetch
from router.control.finding import Finding

if TYPE_CHECKING:
    from router.config.admin import AdminSettings
    from router.config.settings import Settings

BACKLOG: Final = 4096
"""What the listeners ask for; the kernel gives somaxconn at the most."""
FEW_FILES: Final = 4096
DAYS_BEFORE: Final = 14
SHORTEST_TOKEN: Final = 24
_GUESSES: Final = ("", "admin", "changeme", "demo", "operator", "password", "ring-router", "secret", "test", "token")


def of_config(path: Path) -> tuple[Settings | None, list[Finding]]:
    """The settings, or every problem with them."""
    from router.config.load import ConfigError, load_settings

    try:
        settings = load_settings(path, os.environ)
    except ConfigError as error:
        return None, [Finding("bad", f"the config cannot be used: {error}", f"`ring-router check -c {path}`")]
    rings = sum(len(service.rings) for service in settings.services.values())
    return settings, [Finding("ok", f"config {path} can be used: services {len(settings.services)}, rings {rings}")]


def of_router(admin_url: str) -> list[Finding]:
    """The running router and the others on the same Redis."""
    try:
        state, fleet = fetch("/state", admin_url), fetch("/fleet", admin_url)
    except AdminUnreachable as error:
        return [Finding("warning", f"the running router could not be asked: {error.message}")]
    workers = state["workers"]
    away = [worker["slot"] for worker in workers if not worker["connected"]]
    found = [
        Finding("bad", f"workers {away} do not answer", "look into the router's log; the parent starts them again")
        if away or not workers
        else Finding("ok", f"{state['instance']} serves: {len(workers)} workers, generation {state['generation']}")
    ]
    late = [worker["slot"] for worker in workers if worker["generation"] < state["generation"]]
    if late:
        found.append(Finding("warning", f"workers {late} route by an older generation", "wait a second and look again"))
    if state["config"]["error"]:
        said = f"the config file is refused, #{state['config']['revision']} is in force: {state['config']['error']}"
        found.append(Finding("bad", said, "mend the file; it is read again by itself"))
    if state["config"]["needs_restart"]:
        keys = ", ".join(state["config"]["needs_restart"])
        found.append(Finding("warning", f"{keys} changed since the start", "`ring-router run --take-over` applies it"))
    if state["store"]["state"] == "down":
        said = f"Redis is away from the router: {state['store']['last_error']}"
        found.append(Finding("bad", said, "it goes on with what it knew last; mend Redis or `redis:` in the config"))
    elif state["store"]["state"] == "poll":
        said = "Redis does not push changes to the router, which asks for them instead"
        found.append(Finding("warning", said, "allow it CLIENT TRACKING (+client|tracking, +client|id)"))
    for name, service in state["services"].items():
        found += [Finding("bad", f"{name}: {why}", f"`ring-router weights get {name}`") for why in service["refused"]]
        found += [Finding("warning", f"{name}: {said}") for said in (*service["warnings"], *service["notes"])]
    found.append(_of_fleet(fleet))
    return found


def _of_fleet(fleet: Mapping[str, Any]) -> Finding:
    behind = [one["instance"] for one in fleet["instances"] if one["is_fresh"] and not one["is_current"]]
    if behind:
        who = ", ".join(behind[:5]) + (" …" if len(behind) > 5 else "")
        return Finding("warning", f"{fleet['sentence']}; behind: {who}", "look at their Redis and their logs")
    return Finding("ok", str(fleet["sentence"]))


def of_admin(admin: AdminSettings) -> list[Finding]:
    """Who could get at the admin side."""
    found = []
    if admin.is_on_loopback:
        found.append(Finding("ok", f"the admin side is reached from this machine alone ({admin.listen})"))
    elif not admin.tokens:
        said = f"the admin side listens on {admin.listen} and has no tokens, so nobody can use its API"
        found.append(Finding("warning", said, "`ring-router token` makes one for `admin.tokens`"))
    else:
        said = f"the admin side is reached from other machines ({admin.listen}), and speaks no TLS by itself"
        found.append(Finding("warning", said, "listen on loopback, or put a TLS proxy before it"))
    guessed = {hashlib.sha256(word.encode()).hexdigest(): word for word in _GUESSES}
    for token in admin.tokens:
        if token.sha256 in guessed:
            said = f"the token of {token.name} can be guessed: it is {guessed[token.sha256]!r}"
            found.append(Finding("bad", said, "make another with `ring-router token`"))
    own = os.environ.get(TOKEN_VARIABLE)
    if own is not None and len(own) < SHORTEST_TOKEN:
        said = f"the token in {TOKEN_VARIABLE} has {len(own)} letters, and may be guessed"
        found.append(Finding("bad", said, "make another with `ring-router token`"))
    return found


def of_certificates(expiries: Mapping[str, float]) -> list[Finding]:
    """File → when it ends, in Unix seconds."""
    found = []
    for path, end in expiries.items():
        days = (end - time.time()) / 86_400
        if days < 0:
            found.append(Finding("bad", f"the certificate {path} ended {-days:.0f} days ago", "renew it"))
        elif days < DAYS_BEFORE:
            found.append(Finding("warning", f"the certificate {path} ends in {days:.0f} days", "renew it"))
        else:
            found.append(Finding("ok", f"the certificate {path} is good for {days:.0f} days"))
    return found


def of_machine(settings: Settings) -> list[Finding]:
    """File descriptors and the accept queue, as they are for a process that is started from here."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(FEW_FILES, 2 * (settings.limits.connections or 0))
    found = [
        Finding("ok", f"{soft} open files are allowed")
        if soft == resource.RLIM_INFINITY or soft >= wanted
        else Finding(
            "warning", f"{soft} open files are allowed: a client and its backend need one each",
            f"`ulimit -n {wanted}` (up to {hard}), LimitNOFILE= in systemd",
        )
    ]  # fmt: skip
    try:
        most = int(Path("/proc/sys/net/core/somaxconn").read_text())
    except (OSError, ValueError):
        return found
    if most < BACKLOG:
        said = f"the accept queue holds {most} connections (net.core.somaxconn); the listeners ask for {BACKLOG}"
        found.append(Finding("warning", said, f"`sysctl -w net.core.somaxconn={BACKLOG}`"))
    else:
        found.append(Finding("ok", f"the accept queue holds {BACKLOG} connections"))
    return found

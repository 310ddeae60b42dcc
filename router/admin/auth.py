"""Who may do what: decided here, from plain values. It knows no request and no clock.

A token is compared with every digest of the config, in the same time whichever it is. It must never keep or log one.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import urlsplit

from router.admin.bodies import Role
from router.admin.trouble import Trouble
from router.config.admin import AdminSettings, Token

Access = Literal["anybody", "viewer", "operator"]

FAILURES: Final = 10
WINDOW_SECONDS: Final = 60.0
MOST_ADDRESSES: Final = 1024
"""Addresses whose failures are remembered: the one that failed longest ago is forgotten first."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. ``role`` None: a stranger. ``csrf``: what a write of this session has to carry."""

    name: str | None = None
    role: Role | None = None
    by: Literal["token", "session", "nobody"] = "nobody"
    expires: float | None = None
    csrf: str | None = None


STRANGER: Final = Caller()


def digest_of(token: str) -> str:
    """SHA-256 in hexadecimal, as the config has it. Tokens are random: no salt and no slow hash would add anything."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def holder_of(token: str, settings: AdminSettings) -> Token | None:
    """Whose token this is."""
    wanted, found = digest_of(token), None
    for known in settings.tokens:
        if hmac.compare_digest(wanted, known.sha256):
            found = known
    return found


def are_reads_open(settings: AdminSettings) -> bool:
    """Whether a stranger may read: only on loopback, and only as long as no token is configured."""
    return settings.is_on_loopback and not settings.tokens


def is_link_allowed(settings: AdminSettings) -> bool:
    """Whether the one-time link may make somebody an operator."""
    return settings.is_on_loopback and not settings.tokens


def demand(access: Access, caller: Caller, settings: AdminSettings) -> None:
    """Raises ``Trouble`` unless the caller may. Operators may do whatever viewers may."""
    if access == "anybody" or caller.role == "operator":
        return
    if access == "viewer" and (caller.role == "viewer" or are_reads_open(settings)):
        return
    if caller.role is not None:
        raise Trouble("wrong_role", f"{caller.name} is a {caller.role}: this takes an {access}.")
    if settings.tokens:
        raise Trouble("no_token", f"Send `Authorization: Bearer` with {_a(access)}'s token, or POST /api/v1/login.")
    if settings.is_on_loopback:
        why = "Use the link that the router logged when it started, or configure `admin.tokens` (`ring-router token`)."
        raise Trouble("no_token", why)
    raise Trouble(
        "no_token", "The admin side does not listen on loopback: configure `admin.tokens` (`ring-router token`)."
    )


def _a(access: Access) -> str:
    return "an operator" if access == "operator" else "a viewer"


def check_host(host: str, settings: AdminSettings) -> None:
    """Only names that nobody outside can point here, and those of the config: DNS rebinding. Raises ``Trouble``."""
    name = bare_host(host)
    if name in ("", "localhost") or name in settings.hosts:
        return
    try:
        ipaddress.ip_address(name[1:-1] if name.startswith("[") and name.endswith("]") else name)
    except ValueError:
        if "." in name or not name.replace("-", "").replace("_", "").isalnum():
            raise Trouble(
                "wrong_host",
                f"Host {host[:100]!r} is not this admin listener's: ask by its IP address, localhost or a bare name, "
                f"or put the name into `admin.hosts`.",
            ) from None


def bare_host(host: str) -> str:
    """A Host field without its port, in lower case."""
    if host.startswith("["):
        address, bracket, _ = host.partition("]")
        return (address + bracket).lower()
    return host.partition(":")[0].lower()


def check_origin(host: str, origin: str | None, fetch_site: str | None, *, is_session: bool) -> None:
    """A write comes from the admin side's own pages, or from no page at all. Raises ``Trouble``.

    Browsers send Origin with every POST (Fetch §3.2), so a session without any of the two is no browser's.
    """
    if fetch_site is not None and fetch_site not in ("same-origin", "none"):
        raise Trouble("origin", f"Sec-Fetch-Site is {fetch_site[:40]!r}: only the admin side's own pages may write.")
    if origin is None:
        if is_session and fetch_site is None:
            raise Trouble("origin", "A write with a session carries Origin; without a browser, use a token.")
        return
    try:
        parts = urlsplit(origin)
        is_own = parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()
    except ValueError:
        is_own = False
    if not is_own:
        raise Trouble("origin", f"Origin is {origin[:100]!r}: only the admin side's own pages may write.")


def check_csrf(caller: Caller, sent: str | None, cookie: str | None) -> None:
    """Both halves of the double submit, and both this session's. Raises ``Trouble``."""
    if caller.by != "session":
        return
    wanted = (caller.csrf or "").encode()
    halves = [(half or "").encode("utf-8", "surrogatepass") for half in (sent, cookie)]
    is_right = [hmac.compare_digest(half, wanted) for half in halves]
    if not wanted or not all(is_right):
        raise Trouble("csrf", "Send the header X-CSRF-Token with the value of the cookie ring_csrf.")


class Failures:
    """Failed attempts by address; beyond ten in a minute nothing that it claims is looked at."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def check(self, address: str, now: float) -> None:
        """Raises ``Trouble`` where there were too many."""
        began, count = self._known.get(_network(address), (now, 0))
        left = began + WINDOW_SECONDS - now
        if count >= FAILURES and left > 0:
            raise Trouble(
                "too_many_failures", f"{count} failed attempts from {address}: wait.", retry_after=max(1, round(left))
            )

    def note(self, address: str, now: float) -> None:
        """One more."""
        network = _network(address)
        began, count = self._known.pop(network, (now, 0))
        if now - began >= WINDOW_SECONDS:
            began, count = now, 0
        self._known[network] = (began, count + 1)
        while len(self._known) > MOST_ADDRESSES:
            self._known.popitem(last=False)


def _network(address: str) -> str:
    """Of IPv6 the /64, which is one customer's (RFC 6177)."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return address
    return str(ipaddress.ip_network((parsed, 64), strict=False))

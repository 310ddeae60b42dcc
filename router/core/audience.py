"""Who is meant, as plain data: what a rule compares, where a user's key stands, and whose word is believed.

The part of a snapshot that is about people; the rest of it is in ``spec``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

ConditionKind = Literal[
    "header", "cookie", "query", "path", "method", "host", "client", "claim", "user", "time", "all_of", "any_of"
]
Comparison = Literal[
    "equals", "prefix", "suffix", "contains", "present", "one_of", "glob", "regex", "semver", "within", "listed"
]
IdentityKind = Literal["header", "cookie", "query", "claim", "certificate", "client", "anonymous_cookie"]


@dataclass(frozen=True, slots=True)
class ConditionSpec:
    """One node of a rule: a comparison of something the request has, or ``all_of`` / ``any_of`` over children.

    ``name`` is that of a header, cookie, query parameter or claim; the other kinds have none. ``values`` are what is
    compared with: texts; for ``semver`` requirements that all hold (``>=5.2``); for ``within`` networks (client) or a
    beginning and an end in RFC 3339, either may be empty (time); for ``listed`` one path of a member table's file.
    """

    kind: ConditionKind
    name: str = ""
    compare: Comparison = "present"
    values: tuple[str, ...] = ()
    inverted: bool = False
    children: tuple[ConditionSpec, ...] = ()
    share: int = 10_000
    """Basis points of the users for whom it holds; those without a key are outside of a share below the whole."""


@dataclass(frozen=True, slots=True)
class CookieSpec:
    """How the router's own cookie is set. ``secure`` auto: on TLS."""

    max_age: int = 31_536_000
    secure: Literal["auto", "always", "never"] = "auto"
    http_only: bool = True
    same_site: Literal["Lax", "Strict", "None"] = "Lax"
    domain: str = ""
    path: str = "/"
    partitioned: bool = False
    is_signed: bool = False
    """Whether a value that was not minted here counts as no cookie at all; needs a signing key."""


@dataclass(frozen=True, slots=True)
class IdentitySpec:
    """One place to look for the user's key; the first that has one wins.

    ``name`` is that of the header, cookie, query parameter or claim; of a certificate what of it (``subject``, ``cn``,
    ``dns``, ``email``, ``uri``); empty for the client's address.
    """

    kind: IdentityKind
    name: str
    is_trusted_only: bool = False
    """Whether it counts only where the peer is one of ``trusted_proxies``."""
    prefix4: int = 32
    """Of a client's address: how many of its bits are the key."""
    prefix6: int = 64
    cookie: CookieSpec | None = None
    """Of an anonymous cookie; None: as ``CookieSpec()``."""


@dataclass(frozen=True, slots=True)
class KeySpec:
    """A signing key. The first one of the list signs, all of them verify."""

    id: str
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class IssuerSpec:
    """Whose JSON Web Tokens are believed (RFC 7519), and where they stand in a request.

    ``keys`` is a JWK set as JSON text (RFC 7517), from a file or from ``jwks_url``, which control fetches; ``secret``
    instead for the HS algorithms. Only ``algorithms`` are taken, whatever a token says of itself (RFC 8725 §3.1).
    """

    name: str
    algorithms: tuple[str, ...]
    keys: str = ""
    secret: str = field(default="", repr=False)
    issuer: str = ""
    """What ``iss`` has to be; empty: anything."""
    audience: str = ""
    """What has to be in ``aud``; empty: anything."""
    header: str = "Authorization"
    """``Bearer`` in front of the token is left out."""
    cookie: str = ""
    """Looked at where the header has none; empty: not."""
    leeway: float = 30.0
    """Seconds that clocks may differ."""


@dataclass(frozen=True, slots=True)
class TrustSpec:
    """Secrets: what the router signs with, and whom it believes. Never shown by the admin side."""

    keys: tuple[KeySpec, ...] = ()
    issuers: tuple[IssuerSpec, ...] = ()

"""Whom the router believes: its own signing keys, and the issuers of tokens.

Secrets stand here. No message, repr or JSON of this module shows one; ``document.py`` leaves out the source lines.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from router.config.document import Document
from router.config.document import Path as Place
from router.config.files import Files
from router.config.identity import CookieName, HeaderName, exactly_one
from router.config.model import Model, Seconds, SecondsOrNone, Text
from router.core.spec import IssuerSpec, KeySpec, TrustSpec

SHORTEST_SECRET: Final = 16
"""Bytes: 128 bits."""
_ISSUER: Final = IssuerSpec("", ())
_SECRET_BYTES: Final = {"HS256": 32, "HS384": 48, "HS512": 64}
"""RFC 7518 §3.2: as long as the hash, at least."""
_KEYED: Final = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
)  # fmt: skip
_GENERATE: Final = "make one with `openssl rand -base64 48`"
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")

_KEY_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")


def _check_key_id(value: str) -> str:
    if not _KEY_ID.fullmatch(value):
        raise ValueError(f"{value!r} is not the id of a key: letters, digits, - and _, at most 32, such as 2026-12")
    return value


KeyId = Annotated[str, AfterValidator(_check_key_id)]
Mode = Literal["edge", "sidecar"]
KeySets = Mapping[str, str]
"""Issuer → the JWK set that control fetched from its ``jwks_url``, as JSON text."""
NO_KEY_SETS: Final[KeySets] = {}


def _check_secret(value: str) -> str:
    if len(value.encode()) < SHORTEST_SECRET:
        raise ValueError(f"a secret has at least {SHORTEST_SECRET} bytes: {_GENERATE}, and keep it in a ${{VARIABLE}}")
    return value


def _check_algorithm(value: str) -> str:
    if value.lower() == "none":
        raise ValueError("`none` takes tokens that nobody has signed: anybody could write one (RFC 8725 §3.2)")
    known = (*_SECRET_BYTES, *_KEYED)
    if value not in known:
        like = next((one for one in known if one.lower() == value.lower()), None)
        raise ValueError(f"{value!r} is not known: " + (f"write {like}" if like else f"there is {', '.join(known)}"))
    return value


def _check_jwks_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise ValueError("where keys are fetched is a URL such as https://id.example.com/.well-known/jwks.json")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a URL of keys has neither user nor password: key sets are public")
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise ValueError("keys that come over http:// may be anybody's who is on the way: use https://, or a keys_file")
    return value


class SigningKey(Model):
    """What passes, anonymous cookies and propagated rings are signed with."""

    id: KeyId = Field(description="Its name, in every pass: letters, digits, - and _.")
    secret: Annotated[str, AfterValidator(_check_secret)] = Field(
        repr=False, description="At least 16 bytes; from the environment: ${RING_ROUTER_KEY}."
    )


class Issuer(Model):
    """Whose JSON Web Tokens are believed, and where they stand."""

    algorithms: Annotated[tuple[Annotated[str, AfterValidator(_check_algorithm)], ...], Field(min_length=1)] = Field(
        description="What its tokens are signed with: HS256, RS256, PS256, ES256, EdDSA …; no other is taken."
    )
    jwks_url: Annotated[str, AfterValidator(_check_jwks_url)] | None = Field(
        default=None, description="Where its keys (a JWK set) are fetched."
    )
    keys_file: Text | None = Field(default=None, description="A file with its keys (a JWK set).")
    secret: Annotated[str, AfterValidator(_check_secret)] | None = Field(
        default=None, repr=False, description="What it signs with, for the HS algorithms; from the environment."
    )
    issuer: Text | None = Field(default=None, description="What `iss` has to be; absent: anything.")
    audience: Text | None = Field(default=None, description="What has to be in `aud`; absent: anything.")
    header: HeaderName = Field(default=_ISSUER.header, description="Where the token stands, after `Bearer` if need be.")
    cookie: CookieName | None = Field(default=None, description="Looked at where the header has no token.")
    leeway: SecondsOrNone = Field(default=_ISSUER.leeway, description="By how much clocks may differ.")
    refresh: Annotated[Seconds, Field(ge=1)] = Field(default=300.0, description="How often jwks_url is fetched anew.")

    @model_validator(mode="after")
    def _together(self) -> Issuer:
        given = exactly_one(self, ("jwks_url", "keys_file", "secret"), "an issuer")
        secret = [one for one in self.algorithms if one in _SECRET_BYTES]
        keyed = [one for one in self.algorithms if one in _KEYED]
        if given != "secret" and secret:
            why = f"{secret[0]} signs with a secret, and `{given}` is public: whoever reads the keys could sign"
            raise PydanticCustomError("choice", f"{why} (RFC 8725 §2.1); use `secret`, or RS256, ES256 or EdDSA")
        if given == "secret" and keyed:
            remedy = "give its keys with jwks_url or keys_file, or take HS256"
            raise PydanticCustomError("choice", f"{keyed[0]} is verified with a public key, not a `secret`: {remedy}")
        shortest = max((_SECRET_BYTES[one] for one in secret), default=0)
        if len((self.secret or "").encode()) < shortest:
            why = f"a secret for {max(secret)} has at least {shortest} bytes (RFC 7518 §3.2)"
            raise PydanticCustomError("choice", f"{why}: {_GENERATE}")
        return self

    def spec(self, name: str, keys: str) -> IssuerSpec:
        return IssuerSpec(
            name=name,
            algorithms=self.algorithms,
            keys=keys,
            secret=self.secret or "",
            issuer=self.issuer or "",
            audience=self.audience or "",
            header=self.header,
            cookie=self.cookie or "",
            leeway=self.leeway,
        )


def trust_spec(
    keys: tuple[SigningKey, ...], issuers: Mapping[str, Issuer], files: Files, fetched: KeySets
) -> TrustSpec:
    """All secrets, with the public keys of the issuers as they are known now; none yet: no token is believed."""
    return TrustSpec(
        keys=tuple(KeySpec(key.id, key.secret) for key in keys),
        issuers=tuple(
            one.spec(name, files.key_sets.get(one.keys_file, "") if one.keys_file else fetched.get(name, ""))
            for name, one in issuers.items()
        ),
    )


# -- what only several values together can get wrong -------------------------------------------------------------------


def check_trust(document: Document) -> None:
    """Keys that are wanted and not there, sources that need something which is missing, names that come twice."""
    data = _mapping(document.data)
    keys, tokens = _sequence(data.get("signing_keys")), _mapping(data.get("tokens"))
    _check_keys(document, keys)
    if tokens and importlib.util.find_spec("jwt") is None:
        why = "tokens are verified with PyJWT, which is not installed"
        document.add_at(("tokens",), f"{why}: pip install 'ring-router[jwt]'", at_key=True)
    _check_listeners(document, data)
    has_proxies = bool(_sequence(data.get("trusted_proxies")))
    for name, service in _mapping(data.get("services")).items():
        path: Place = ("services", name)
        service = _mapping(service)
        if service.get("override") == "trusted" and not has_proxies:
            _needs_proxies(document, (*path, "override"), "`override: trusted`")
        for i, source in enumerate(_sequence(service.get("identity"))):
            at: Place = (*path, "identity", i)
            source = _mapping(source)
            if source.get("trusted") is True and not has_proxies:
                _needs_proxies(document, (*at, "trusted"), "`trusted: true`")
            if "claim" in source and not tokens:
                _needs_tokens(document, (*at, "claim"))
            if "certificate" in source and not _asks_for_certificates(data):
                why = "no listener asks clients for a certificate"
                remedy = "add `tls: {client_certificate: optional, client_ca: …}` to one, or remove this source"
                document.add_at((*at, "certificate"), f"{why}: {remedy}", at_key=True)
            if _mapping(source.get("anonymous_cookie")).get("signed") is True and not keys:
                why = "a signed cookie needs a key to sign with"
                document.add_at((*at, "anonymous_cookie", "signed"), f"{why}: add `signing_keys:`", at_key=True)
        for i, ring in enumerate(_sequence(service.get("rings"))):
            for key in ("audience", "deny"):
                for place in _claims(_mapping(ring).get(key), (*path, "rings", i, key)):
                    if not tokens:
                        _needs_tokens(document, place)


def _check_keys(document: Document, keys: list[Any]) -> None:
    first: dict[str, int] = {}
    for i, key in enumerate(keys):
        id_ = _mapping(key).get("id")
        if isinstance(id_, str) and first.setdefault(id_, i) != i:
            document.add_at(("signing_keys", i, "id"), f"there is a key {id_!r} already: give this one another id")


def _check_listeners(document: Document, data: Mapping[str, Any]) -> None:
    for i, listener in enumerate(_sequence(data.get("listen"))):
        one = _mapping(listener)
        if one.get("outbound") is not True:
            continue
        for key, why in (
            ("redirect_to_https", "an outbound listener serves the application's own calls, and cannot send them away"),
            ("inbound", "a listener is inbound (for others' calls) or outbound (for the application's own)"),
            ("proxy_protocol", "the application's own calls begin with no PROXY header"),
        ):
            if one.get(key) not in (None, False):
                place: Place = ("listen", i, key)
                document.add_at(place, f"{why}: remove `{key}` or `outbound`", at_key=True)


def _asks_for_certificates(data: Mapping[str, Any]) -> bool:
    listeners = [_mapping(one) for one in _sequence(data.get("listen"))]
    return any(_mapping(one.get("tls")).get("client_certificate") in ("optional", "required") for one in listeners)


def _claims(entries: object, place: Place) -> Iterator[Place]:
    """Where in a list of audience entries a claim is asked for, however deep."""
    for i, entry in enumerate(_sequence(entries)):
        yield from _claims_of(entry, (*place, i))


def _claims_of(entry: object, at: Place) -> Iterator[Place]:
    known = _mapping(entry)
    if "claim" in known:
        yield (*at, "claim")
    for key in ("all_of", "any_of"):
        yield from _claims(known.get(key), (*at, key))
    if "not" in known:
        yield from _claims_of(known["not"], (*at, "not"))


def _needs_proxies(document: Document, place: Place, what: str) -> None:
    why = f"{what} means the peers in `trusted_proxies`, and there are none"
    document.add_at(place, f"{why}: name them, or remove this", at_key=True)


def _needs_tokens(document: Document, place: Place) -> None:
    document.add_at(
        place, "a claim is taken from verified tokens only: say under `tokens:` whose are believed", at_key=True
    )


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _sequence(value: object) -> list[Any]:
    return value if isinstance(value, list) else []

"""Who asks: the places where a user's key may stand, and the cookie that the router sets on whoever has none.

What one source may be is here; that a certificate needs a listener which asks for one, or a claim an issuer, is in
``trust.py``.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    StrictBool,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from router.config.model import Model, Text
from router.config.problems import did_you_mean
from router.config.values import check_cookie_name, check_header_name, check_name
from router.core.spec import CookieSpec, IdentityKind, IdentitySpec

_COOKIE: Final = CookieSpec()
_SOURCE: Final = IdentitySpec("client", "")
LONGEST_AGE: Final = 400 * 86_400
"""Seconds. Browsers keep no cookie longer (RFC 6265bis §5.5)."""
_AGE: Final = re.compile(r"([0-9]{1,9})\s*(s|m|h|d)?")
_AGE_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_QUERY_NAME: Final = re.compile(r"[^\s&=#%+;?\x00-\x1f\x7f]+")
_COOKIE_PATH: Final = re.compile(r"/[\x20-\x3a\x3c-\x7e]*")  # RFC 6265 §4.1.1: path-value, without semicolons
_DOMAIN: Final = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+")

_KINDS: Final = ("header", "cookie", "query", "claim", "certificate", "client", "anonymous_cookie")


def exactly_one(model: Model, names: tuple[str, ...], what: str) -> str:
    """The one of these fields that is given. Raises what pydantic takes for a complaint when it is not one."""
    given = [name for name in names if getattr(model, name) is not None]
    if len(given) != 1:
        chosen = f"not {' and '.join(given)}" if given else "it has none"
        raise PydanticCustomError("choice", f"{what} has exactly one of {', '.join(names)}: {chosen}")
    return given[0]


def check_query_name(value: str) -> str:
    """A query parameter's name as it stands in a URL."""
    if not _QUERY_NAME.fullmatch(value):
        raise ValueError(f"{value!r} is not the name of a query parameter as it stands in a URL, such as user")
    return value


def parse_age(value: object) -> int:
    """Whole seconds: a number, or text such as 12h or 365d."""
    found = _AGE.fullmatch(str(value).strip()) if isinstance(value, int | str) and not isinstance(value, bool) else None
    if found is None:
        raise ValueError("an age is a whole number of seconds, or text such as 12h or 365d")
    seconds = int(found[1]) * _AGE_UNITS[found[2] or "s"]
    if not 0 < seconds <= LONGEST_AGE:
        raise ValueError("a cookie's age is at least a second and at most 400d: browsers keep none for longer")
    return seconds


def _check_domain(value: str) -> str:
    if value.startswith("."):
        raise ValueError(f"a cookie's domain is written without the dot in front: {value[1:]}")
    check_name(value)
    if not _DOMAIN.fullmatch(value.lower()) or value.replace(".", "").isdigit():
        raise ValueError(f"{value!r} cannot be a cookie's domain: a name with a dot in it, such as example.com")
    return value.lower()


def _check_cookie_path(value: str) -> str:
    if not _COOKIE_PATH.fullmatch(value):
        raise ValueError("a cookie's path begins with a slash, such as /shop, and has no semicolon")
    return value


HeaderName = Annotated[str, AfterValidator(check_header_name)]
CookieName = Annotated[str, AfterValidator(check_cookie_name)]
QueryName = Annotated[str, AfterValidator(check_query_name)]
Age = Annotated[
    int,
    PlainValidator(parse_age),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": LONGEST_AGE},
                {"type": "string", "pattern": r"^[0-9]+\s*(s|m|h|d)?$"},
            ]
        }
    ),
]


class AnonymousCookie(Model):
    """A cookie that the router sets on whoever has no key."""

    name: CookieName = Field(description="The cookie's name.")
    max_age: Age = Field(default=_COOKIE.max_age, description="How long browsers keep it: 12h, 365d; at most 400d.")
    secure: Literal["auto", "always", "never"] = Field(
        default=_COOKIE.secure, description="Only over TLS: where the request came over TLS (auto), always or never."
    )
    http_only: StrictBool = Field(default=_COOKIE.http_only, description="Kept from the scripts of pages.")
    same_site: Literal["Lax", "Strict", "None"] = Field(
        default=_COOKIE.same_site, description="Whether it comes with requests from other sites: Lax, Strict or None."
    )
    domain: Annotated[str, AfterValidator(_check_domain)] | None = Field(
        default=None, description="For this name and all below it; default: for the host alone."
    )
    path: Annotated[str, AfterValidator(_check_cookie_path)] = Field(
        default=_COOKIE.path, description="For what is below this path."
    )
    partitioned: StrictBool = Field(
        default=_COOKIE.partitioned, description="Another one for each site that the service is embedded in (CHIPS)."
    )
    signed: StrictBool = Field(
        default=_COOKIE.is_signed, description="A value that was not set here counts as no cookie; needs signing_keys."
    )

    @model_validator(mode="after")
    def _together(self) -> AnonymousCookie:
        """What browsers refuse: they would drop the cookie without a word (RFC 6265bis §5.6)."""
        lower = self.name.lower()  # browsers compare the prefixes without regard to case
        wanting = [
            (self.same_site == "None", "same_site: None"),
            (self.partitioned, "partitioned: true"),
            (lower.startswith("__secure-"), f"the name {self.name}"),
            (lower.startswith("__host-"), f"the name {self.name}"),
        ]
        for is_so, what in wanting:
            if is_so and self.secure != "always":
                raise PydanticCustomError("choice", f"browsers refuse {what} unless it is Secure: add `secure: always`")
        if lower.startswith("__host-") and (self.domain is not None or self.path != "/"):
            wrong = "domain" if self.domain is not None else "path"
            remedy = f"remove `{wrong}`, or take another name"
            raise PydanticCustomError("choice", f"browsers refuse {self.name} with a {wrong} of its own: {remedy}")
        return self

    @property
    def spec(self) -> CookieSpec:
        return CookieSpec(
            max_age=self.max_age,
            secure=self.secure,
            http_only=self.http_only,
            same_site=self.same_site,
            domain=self.domain or "",
            path=self.path,
            partitioned=self.partitioned,
            is_signed=self.signed,
        )


class ClientPrefix(Model):
    """How much of a client's address is the key."""

    ipv4: Annotated[int, Field(strict=True, ge=8, le=32)] = Field(
        default=_SOURCE.prefix4, description="Bits of an IPv4 address, 8 to 32."
    )
    ipv6: Annotated[int, Field(strict=True, ge=16, le=128)] = Field(
        default=_SOURCE.prefix6,
        description="Bits of an IPv6 address, 16 to 128; a machine changes those beyond 64 as it likes.",
    )


def _cookie_or_name(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


def _prefix_or_word(value: object) -> object:
    if value == "address":
        return {}
    if isinstance(value, str):
        hint = did_you_mean(value, ["address"]) or "`client: address`, or e.g. `client: {ipv4: 24, ipv6: 56}`"
        raise PydanticCustomError("choice", f"{value!r} is no part of a client's address: {hint}")
    return value


def _or_text(schema: dict[str, Any]) -> None:
    """In JSON Schema: the mapping, or one word."""
    mapping = schema.pop("anyOf")[0]
    schema["anyOf"] = [{"type": "string"}, mapping, {"type": "null"}]


Certificate = Literal["subject", "cn", "dns", "email", "uri"]


class Identity(Model):
    """One place to look for the user's key: exactly one of them, and whether it is only believed of trusted peers."""

    header: HeaderName | None = Field(default=None, description="A request header that holds the key.")
    cookie: CookieName | None = Field(default=None, description="A cookie that holds the key.")
    query: QueryName | None = Field(default=None, description="A query parameter that holds the key.")
    claim: Text | None = Field(default=None, description="A claim of a verified token (see `tokens`), such as sub.")
    certificate: Certificate | None = Field(
        default=None,
        description="Of a client's verified certificate: subject, cn, or its first name of the kind dns, email or uri.",
    )
    client: Annotated[ClientPrefix, BeforeValidator(_prefix_or_word)] | None = Field(
        default=None,
        json_schema_extra=_or_text,
        description="The client's address: `address` (all of IPv4, 64 bits of IPv6), or how many bits of it.",
    )
    anonymous_cookie: Annotated[AnonymousCookie, BeforeValidator(_cookie_or_name)] | None = Field(
        default=None,
        json_schema_extra=_or_text,
        description="A cookie the router itself sets on who has no key: its name, or a mapping.",
    )
    trusted: StrictBool = Field(default=False, description="true: counts only where the peer is a trusted proxy.")

    @model_validator(mode="after")
    def _one(self) -> Identity:
        if exactly_one(self, _KINDS, "an identity source") == "anonymous_cookie" and self.trusted:
            why = "an anonymous cookie comes from the user's browser, whoever the peer is"
            raise PydanticCustomError("choice", f"{why}: remove `trusted`; `signed: true` keeps made-up values out")
        return self

    @property
    def kind(self) -> IdentityKind:
        kinds: tuple[IdentityKind, ...] = _KINDS
        return next(kind for kind in kinds if getattr(self, kind) is not None)

    @property
    def name(self) -> str:
        match self.kind:
            case "client":
                return ""
            case "anonymous_cookie":
                return self.anonymous_cookie.name if self.anonymous_cookie is not None else ""
            case kind:
                return str(getattr(self, kind))

    @property
    def spec(self) -> IdentitySpec:
        cookie = None if self.anonymous_cookie is None else self.anonymous_cookie.spec
        return IdentitySpec(
            self.kind,
            self.name,
            self.trusted,
            _SOURCE.prefix4 if self.client is None else self.client.ipv4,
            _SOURCE.prefix6 if self.client is None else self.client.ipv6,
            None if cookie == _COOKIE else cookie,
        )

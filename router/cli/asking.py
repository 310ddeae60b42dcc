"""Words of a command line → a request as the proxy would see it, and what it would believe of it.

What a request proves is weighed with the same functions as in the proxy (``router.trust``), in the same order.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from urllib.parse import quote, urlsplit

import click

from router.core.audience import TrustSpec
from router.core.decide import identify
from router.core.rules import Request, cookie_value
from router.core.snapshot import Service
from router.proxy.grammar import TOKEN
from router.trust.passes import PassError, Verdict, check_pass, read_pass
from router.trust.propagation import Claim, check_member, read_baggage, ring_of
from router.trust.tokens import NO_CLAIMS, MissingLibraryError, TokenError, Tokens

_PASS_COOKIE: Final = b"ring_pass"
_BEARER: Final = b"bearer "


@dataclass(frozen=True, slots=True)
class Words:
    """What somebody asks about, as it was typed; empty or None is not said."""

    url: str | None = None
    host: str | None = None
    path: str | None = None
    query: str | None = None
    method: str = "GET"
    headers: tuple[str, ...] = ()
    cookies: tuple[str, ...] = ()
    client: str | None = None
    is_trusted: bool = False
    is_outbound: bool = False
    claims: tuple[str, ...] = ()
    certificate: tuple[str, ...] = ()
    at: str | None = None
    ring: str | None = None
    token: str | None = None
    """A pass."""
    propagated: str | None = None


@dataclass(frozen=True, slots=True)
class Proof:
    """Something that a request brought along to be believed. ``word`` is the one that the proxy counts it by."""

    kind: str
    word: str
    said: str

    @property
    def is_valid(self) -> bool:
        return self.word == "valid"


def request_of(words: Words) -> Request:
    """The request as the proxy would see it: repeated headers joined, cookies apart, host without its port."""
    headers: dict[bytes, bytes] = {}
    jar = []
    for line in words.headers:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise click.UsageError(f"a header is written 'Name: value', not {line!r}")
        field, text = to_bytes(name.strip().lower()), to_bytes(value.strip())
        if field == b"cookie":
            jar.append(text)
        else:
            headers[field] = headers[field] + b", " + text if field in headers else text
    for cookie in words.cookies:
        if not cookie.partition("=")[1]:
            raise click.UsageError(f"a cookie is written 'name=value', not {cookie!r}")
        jar.append(to_bytes(cookie))
    named, target = _where(words)
    where = to_bytes(named).lower() if named is not None else headers.get(b"host", b"").lower()
    bare, colon_, port = where.rpartition(b":")
    if colon_ and port.isdigit():
        where = bare
    path, _, query = to_bytes(target).partition(b"?")
    request = Request(where.strip(b"[]"), path, headers, b"; ".join(jar), to_bytes(words.method))
    request.query = to_bytes(words.query.removeprefix("?")) if words.query is not None else query
    request.client = to_bytes(words.client) if words.client is not None else b""
    request.is_trusted = words.is_trusted
    request.now = _moment(words.at)
    request.claims = _pairs(words.claims, "--claim")
    request.certificate = _pairs(words.certificate, "--certificate")
    for forcing, word in ((b"x-ring-override", words.ring), (b"x-ring-pass", words.token)):
        if word is not None:
            headers[forcing] = to_bytes(word)
    if words.propagated is not None:
        headers[b"baggage"] = b"ring=" + quote(words.propagated, safe="").encode()
    return request


def _where(words: Words) -> tuple[str | None, str]:
    """Host, if it is said, and path with query."""
    if words.url is None:
        return words.host, words.path or "/"
    if words.host is not None or words.path is not None:
        raise click.UsageError("a URL has host and path already: leave out --host and --path")
    try:
        parts = urlsplit(words.url if "://" in words.url else f"//{words.url}")
        host = parts.hostname
    except ValueError:
        raise click.UsageError(f"{words.url!r} is no URL, such as https://shop.example.com/cart?x=1") from None
    return host or None, (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _moment(text: str | None) -> float:
    if text is None:
        return time.time()
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise click.UsageError(f"--at takes a time with its offset (RFC 3339), such as 2026-12-01T09:00Z, not {text!r}")
    return moment.timestamp()


def _pairs(words: tuple[str, ...], option: str) -> dict[str, tuple[bytes, ...]]:
    found: dict[str, tuple[bytes, ...]] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise click.UsageError(f"{option} is written NAME=VALUE, not {word!r}")
        found[name] = (*found.get(name, ()), to_bytes(value))
    return found


def weigh(
    request: Request, service: Service, trust: TrustSpec, *, mode: str = "edge", is_outbound: bool = False
) -> list[Proof]:
    """Fill in what the request proves: claims, an override, the ring of its call chain; and say what it does not."""
    proofs = [*_claims(request, service, trust)] if "claims" in service.needs and not request.claims else []
    proofs += _passes(request, service, trust)
    said = request.headers.get(b"x-ring-override")
    if said is not None:
        proofs.append(_override(request, service, said.decode("latin-1")))
    return proofs + _propagated(request, service, trust, mode, is_outbound)


def _claims(request: Request, service: Service, trust: TrustSpec) -> list[Proof]:
    try:
        issuers = Tokens(trust.issuers).issuers
    except MissingLibraryError as error:
        raise click.ClickException(str(error)) from None
    proofs = []
    for issuer in issuers:
        token = request.headers.get(issuer.header, b"")
        if token[:7].lower() == _BEARER:
            token = token[7:].strip(b" ")
        elif issuer.header == b"authorization":
            token = b""
        token = token or (cookie_value(request.cookie, issuer.cookie) or b"" if issuer.cookie else b"")
        if not token:
            continue
        try:
            request.claims = issuer.claims_of(token, request.now)
        except TokenError as error:
            said = f"the token is {error.verdict.value} for the issuer {issuer.spec.name}: its claims do not count"
            proofs.append(Proof("token", error.verdict.value, said))
            continue
        names = ", ".join(request.claims)
        proofs.append(Proof("token", "valid", f"the token is signed by the issuer {issuer.spec.name}; it has {names}"))
        return proofs
    request.claims = NO_CLAIMS
    return proofs


def _passes(request: Request, service: Service, trust: TrustSpec) -> list[Proof]:
    """The first pass that holds: of the field, the link, the cookie. A link's is taken off the query."""
    linked = b""
    if request.query:
        kept = []
        for one in request.query.split(b"&"):
            name, separator, value = one.partition(b"=")
            if name == _PASS_COOKIE and separator:
                linked = linked or value
            else:
                kept.append(one)
        request.query = b"&".join(kept)
    key = identify(service, request)
    user = "" if key is None else key.decode("utf-8", "surrogateescape")
    proofs = []
    for token in (request.headers.get(b"x-ring-pass"), linked, cookie_value(request.cookie, _PASS_COOKIE)):
        if not token:
            continue
        proof, ring = _pass(token.decode("latin-1"), service, trust, user, request.now)
        proofs.append(proof)
        if proof.is_valid:
            request.override = ring
            break
    return proofs


def _pass(token: str, service: Service, trust: TrustSpec, user: str, now: float) -> tuple[Proof, str]:
    name = service.spec.name
    if service.spec.override == "off":
        return Proof("pass", "off", f"a pass is not looked at: {name} says `override: off`"), ""
    try:
        found = read_pass(trust.keys, token)
    except PassError as error:
        why = "no key of the config signed it, or it was changed" if error.verdict is Verdict.FORGED else "it is none"
        return Proof("pass", error.verdict.value, f"the pass is {error.verdict.value}: {why}"), ""
    verdict = check_pass(found, name, service.spec.revoked, user, now)
    if verdict is Verdict.VALID and found.ring not in service.overrides:
        verdict = Verdict.FOREIGN
    whose = f" and user {found.user}" if found.user else ""
    about = f"pass {found.id} of key {found.key_id}, for ring {found.ring} of {found.service}{whose}"
    return Proof("pass", verdict.value, f"{about}, is {verdict.value}"), found.ring


def _override(request: Request, service: Service, ring: str) -> Proof:
    allowed = service.spec.override
    if not (allowed == "insecure" or (allowed == "trusted" and request.is_trusted)):
        whom = {"passes": "passes alone", "trusted": "trusted proxies alone", "off": "nobody"}[allowed]
        said = f"X-Ring-Override {ring} does not count: {service.spec.name} believes {whom} (`override: {allowed}`)"
        return Proof("override", "off" if allowed == "off" else "untrusted", said)
    if ring not in service.overrides:
        return Proof("override", "foreign", f"X-Ring-Override {ring} does not count: there is no such ring")
    if request.override:
        return Proof("override", "valid", f"X-Ring-Override {ring} comes after the pass")
    request.override = ring
    return Proof("override", "valid", f"X-Ring-Override {ring} is believed (`override: {allowed}`)")


def _propagated(request: Request, service: Service, trust: TrustSpec, mode: str, is_outbound: bool) -> list[Proof]:
    field, plain = request.headers.get(b"baggage"), request.headers.get(b"x-ring", b"")
    ours = read_baggage(field).ring if field is not None else b""
    if not ours and not plain:
        return []
    named = ring_of(ours) if ours else plain.decode("latin-1")
    what = f"the call chain's ring {named}" if named else "the call chain's ring"
    if mode == "edge" and not is_outbound:
        return [Proof("baggage", "untrusted", f"{what} is taken off: this is an edge (`mode: edge`)")] if ours else []
    if is_outbound or request.is_trusted:
        is_form = bool(ours) or TOKEN.fullmatch(plain) is not None
        claim, whom = (Claim.VALID, "said by a trusted peer") if named and is_form else (Claim.MALFORMED, "not a ring")
    elif ours:
        claim, whom = check_member(trust.keys, ours, request.now), "by its signature"
    else:
        claim, whom = Claim.UNTRUSTED, "X-Ring of a stranger"
    if claim is Claim.VALID:
        request.propagated = named
    return [Proof("baggage", claim.value, f"{what} is {claim.value} ({whom})")]


def to_bytes(word: str) -> bytes:
    """What was typed, as it would stand on the wire."""
    return os.fsencode(word)

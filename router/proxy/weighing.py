"""What a described request would prove, weighed as the proxy does: with ``router.trust``, in the same order.

For questions (``explain``), not for traffic. Nothing is counted, and nothing is sent anywhere.
"""

from __future__ import annotations

from typing import Final

from router.core.audience import TrustSpec
from router.core.decide import identify
from router.core.request import Request, cookie_value
from router.core.snapshot import Service
from router.core.trace import Proof
from router.proxy.forwarding import RING_PASS
from router.proxy.grammar import TOKEN
from router.trust.passes import PassError, Verdict, check_pass, read_pass
from router.trust.propagation import Claim, check_member, read_baggage, ring_of
from router.trust.tokens import NO_CLAIMS, TokenError, Tokens

_BEARER: Final = b"bearer "


def weigh(
    request: Request, service: Service, trust: TrustSpec, *, mode: str = "edge", is_outbound: bool = False
) -> list[Proof]:
    """Fill in what the request proves: claims, an override, the ring of its call chain; and say what it does not.

    Raises ``MissingLibraryError`` where tokens count and PyJWT is not installed.
    """
    proofs = [*_claims(request, service, trust)] if "claims" in service.needs and not request.claims else []
    proofs += _passes(request, service, trust)
    said = request.headers.get(b"x-ring-override")
    if said is not None:
        proofs.append(_override(request, service, said.decode("latin-1")))
    return proofs + _propagated(request, service, trust, mode, is_outbound)


def _claims(request: Request, service: Service, trust: TrustSpec) -> list[Proof]:
    proofs = []
    for issuer in Tokens(trust.issuers).issuers:
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
            if name == RING_PASS and separator:
                linked = linked or value
            else:
                kept.append(one)
        request.query = b"&".join(kept)
    key = identify(service, request)
    user = "" if key is None else key.decode("utf-8", "surrogateescape")
    proofs = []
    for token in (request.headers.get(b"x-ring-pass"), linked, cookie_value(request.cookie, RING_PASS)):
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

"""What a few services ask of a request beyond its head: its query, the clock, a verified token, a certificate.

A service that needs none of it never comes here (``Service.has_to_gather``). Nothing is believed because the client
said it.
"""

from __future__ import annotations

from time import time
from typing import TYPE_CHECKING, Any, Final

from router.core.audience import CookieSpec
from router.core.rules import NOTHING, cookie_value
from router.proxy.client import last_said
from router.proxy.forwarding import cookie_line
from router.trust.tokens import TokenError, TokenVerdict

if TYPE_CHECKING:
    from router.core.snapshot import Service
    from router.proxy.downstream import Downstream
    from router.proxy.heads import RequestHead
    from router.trust.tokens import Claims, Issuer

_BEARER: Final = b"bearer "
_AUTHORIZATION: Final = b"authorization"
_COOKIE: Final = CookieSpec()
_RANKS: Final = {word: rank for rank, word in enumerate(reversed(TokenVerdict))}
"""Of several issuers' words on a token the one counts that comes closest to valid."""
_SHORT: Final = {
    "commonName": "CN", "organizationName": "O", "organizationalUnitName": "OU", "countryName": "C",
    "localityName": "L", "stateOrProvinceName": "ST", "streetAddress": "STREET", "domainComponent": "DC",
    "userId": "UID",
}  # fmt: skip
"""RFC 4514 §3."""
_SAN: Final = {"DNS": "dns", "email": "email", "URI": "uri", "IP Address": "ip"}
_ESCAPED: Final = frozenset('"+,;<>\\')


def gather(downstream: Downstream, service: Service, head: RequestHead) -> None:
    """Fill in what the service needs to know of a request, before anybody asks who it is."""
    needs = service.needs
    if "query" in needs:
        head.query = head.start.target.partition(b"?")[2]
    if "time" in needs or "claims" in needs:
        head.now = time()
    if "certificate" in needs:
        if downstream.certificate is None:
            downstream.certificate = certificate_of(downstream.transport.get_extra_info("peercert"))
        head.certificate = downstream.certificate
    if "claims" in needs:
        head.claims = _claims(downstream, service, head)


def _claims(downstream: Downstream, service: Service, head: RequestHead) -> Claims:
    """Those of the first token that one of the issuers has signed; the others' claims are not even read."""
    plane = downstream.plane
    refused: TokenVerdict | None = None
    for issuer in plane.verifier.tokens.issuers:
        token = _token(issuer, head)
        if not token:
            continue
        try:
            claims = issuer.claims_of(token, head.now)
        except TokenError as error:
            if refused is None or _RANKS[error.verdict] > _RANKS[refused]:
                refused = error.verdict
            continue
        plane.tally.proved(service.spec.name, "token", TokenVerdict.VALID.value)
        return claims
    if refused is not None:
        plane.tally.proved(service.spec.name, "token", refused.value)
    return NOTHING


def _token(issuer: Issuer, head: RequestHead) -> bytes:
    """Where the issuer's tokens stand: a field, with ``Bearer`` in front (RFC 6750 §2.1) or without, then a cookie."""
    value = head.headers.get(issuer.header, b"")
    if value[:7].lower() == _BEARER:
        return value[7:].strip(b" ")
    if value and issuer.header != _AUTHORIZATION:  # there, what has another scheme is no token
        return value
    return (cookie_value(head.cookie, issuer.cookie) or b"") if issuer.cookie else b""


def certificate_of(shown: dict[str, Any] | None) -> dict[str, tuple[bytes, ...]]:
    """What a verified client certificate says, of ``ssl.SSLObject.getpeercert()``; nothing for who has shown none.

    ``subject`` as RFC 4514 writes it, the most particular part first; ``cn``; ``dns``, ``email``, ``uri`` and ``ip`` of
    its alternative names (RFC 5280 §4.2.1.6).
    """
    if not shown:
        return NOTHING
    found: dict[str, list[bytes]] = {}
    parts = []
    for relative in reversed(shown.get("subject", ())):
        parts.append("+".join(f"{_SHORT.get(name, name)}={_escaped(value)}" for name, value in relative))
        for name, value in relative:
            if name == "commonName":
                found.setdefault("cn", []).append(value.encode())
    if parts:
        found["subject"] = [",".join(parts).encode()]
    for kind, value in shown.get("subjectAltName", ()):
        if kind in _SAN and isinstance(value, str):
            found.setdefault(_SAN[kind], []).append(value.encode())
    return {name: tuple(values) for name, values in found.items()}


def _escaped(value: str) -> str:
    """A value inside of a name (RFC 4514 §2.4)."""
    escaped = "".join(f"\\{one}" if one in _ESCAPED else "\\00" if one == "\0" else one for one in value)
    if escaped[:1] in ("#", " "):
        escaped = "\\" + escaped
    return escaped[:-1] + "\\ " if len(escaped) > 1 and escaped.endswith(" ") else escaped


def is_secure(downstream: Downstream, head: RequestHead) -> bool:
    """Whether the client came over TLS: here, or to the trusted proxy in front."""
    if downstream.is_trusted and head.said is not None:
        said = last_said(head.said.get(b"x-forwarded-proto"))
        if said:
            return said.lower() == b"https"
    return downstream.door.scheme == b"https"


def minted_cookie(downstream: Downstream, service: Service, head: RequestHead, key: bytes) -> bytes:
    """The field that gives a new anonymous user a key. One who came with a cookie has forged it, which is counted."""
    source = next(one for one in service.spec.identity if one.kind == "anonymous_cookie")
    name = source.name.encode()
    if service.signer is not None and cookie_value(head.cookie, name):
        downstream.plane.tally.proved(service.spec.name, "cookie", "forged")
    value = key if service.signer is None else service.signer.sign(key)
    return cookie_line(name, value, source.cookie or _COOKIE, is_secure=is_secure(downstream, head))

"""JSON Web Tokens (RFC 7519), verified: which claims may be believed. PyJWT does the signatures, and nothing else.

A token says itself how it was signed, and that is never taken for an answer (RFC 8725 §3.1): each issuer has a table
from the algorithms of its config to the keys that fit them, made when the snapshot changes. Secrets stand there under
HS algorithms and public keys under all others, so ``alg: none`` finds no table and a public key is nobody's secret. A
payload is parsed only after its signature was verified. The clock is an argument.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from router.core.spec import IssuerSpec

if TYPE_CHECKING:
    from jwt.api_jwk import PyJWK
    from jwt.api_jws import PyJWS

LONGEST: Final = 16 * 1024
"""Bytes of a token: twice what common servers take as a field."""
REMEMBERED: Final = 4096
"""Tokens of an issuer that are known at a time, in each of two generations; and as many that are known to be bad."""
MOST_CLAIMS: Final = 256
"""Names of one token; what comes behind is left out."""
_DEEPEST: Final = 8

Claims = dict[str, tuple[bytes, ...]]
"""Name → values as text; the names of those inside of others have dots between them."""
NO_CLAIMS: Final[Claims] = {}

_EC_CURVES: Final = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}
"""RFC 7518 §3.4: each has its one curve."""


class TokenVerdict(StrEnum):
    """What a token is worth."""

    VALID = "valid"
    EXPIRED = "expired"
    """Or not valid yet."""
    FORGED = "forged"
    FOREIGN = "foreign"
    """Another issuer's, or for another audience."""
    MALFORMED = "malformed"


class TokenError(ValueError):
    """A token that is not believed, and why."""

    def __init__(self, verdict: TokenVerdict) -> None:
        super().__init__(f"the token is {verdict.value}")
        self.verdict = verdict


class MissingLibraryError(RuntimeError):
    """Tokens are configured, and PyJWT is not installed."""


@dataclass(frozen=True, slots=True)
class Known:
    """A verified token: its claims, and the Unix times between which it holds (leeway included)."""

    claims: Claims
    begins: float
    ends: float


class Issuer:
    """Whose tokens are believed, and those of them that were seen lately."""

    __slots__ = ("_bad", "_jws", "_keys", "_known", "_older", "_older_bad", "cookie", "header", "spec")

    def __init__(self, spec: IssuerSpec) -> None:
        """Keys that nothing can be verified with are left out. Raises MissingLibraryError."""
        try:
            from jwt.api_jws import PyJWS
        except ImportError as error:
            raise MissingLibraryError(
                f"the issuer {spec.name!r} needs PyJWT: install ring-router with its extra [jwt]"
            ) from error
        self.spec = spec
        self.header = spec.header.lower().encode()
        self.cookie = spec.cookie.encode()
        self._jws: PyJWS = PyJWS(algorithms=list(spec.algorithms))
        self._keys = {name: _keys_for(name, spec) for name in spec.algorithms}
        self._known: dict[bytes, Known] = {}
        self._older: dict[bytes, Known] = {}
        self._bad: dict[bytes, TokenVerdict] = {}
        self._older_bad: dict[bytes, TokenVerdict] = {}

    def __repr__(self) -> str:
        return f"<Issuer {self.spec.name} {','.join(self.spec.algorithms)}>"

    def claims_of(self, token: bytes, now: float) -> Claims:
        """The claims of a token that holds at ``now`` (Unix time). Raises TokenError.

        A token is verified once: its digest stands for it from then on, also for one that was refused.
        """
        if len(token) > LONGEST:
            raise TokenError(TokenVerdict.MALFORMED)
        digest = hashlib.sha256(token).digest()
        known = self._known.get(digest)
        if known is None:
            known = self._older.get(digest)
            if known is None:
                known = self._verified(token, digest)
            if len(self._known) >= REMEMBERED:
                self._older, self._known = self._known, {}
            self._known[digest] = known
        if not known.begins <= now < known.ends:
            raise TokenError(TokenVerdict.EXPIRED)
        return known.claims

    def _verified(self, token: bytes, digest: bytes) -> Known:
        verdict = self._bad.get(digest) or self._older_bad.get(digest)
        if verdict is None:
            try:
                return verify(token, self.spec, self._keys, self._jws)
            except TokenError as error:
                verdict = error.verdict
            if len(self._bad) >= REMEMBERED:
                self._older_bad, self._bad = self._bad, {}
            self._bad[digest] = verdict
        raise TokenError(verdict)


class Tokens:
    """The issuers of a snapshot. What is remembered of one goes when it changes."""

    __slots__ = ("issuers",)

    def __init__(self, specs: Sequence[IssuerSpec] = (), before: Tokens | None = None) -> None:
        """Issuers that are the same as ``before`` keep what they know. Raises MissingLibraryError."""
        kept = {} if before is None else {one.spec: one for one in before.issuers}
        self.issuers: tuple[Issuer, ...] = tuple(kept.get(spec) or Issuer(spec) for spec in specs)

    @property
    def headers(self) -> frozenset[bytes]:
        """Lower-case names of the fields where tokens stand."""
        return frozenset(one.header for one in self.issuers)


def verify(token: bytes, spec: IssuerSpec, keys: dict[str, list[PyJWK]], jws: PyJWS) -> Known:
    """Signature, then claims (RFC 7519 §7.2). ``keys`` are those for each algorithm. Raises TokenError."""
    from jwt.exceptions import PyJWTError

    try:
        header = jws.get_unverified_header(token)
    except (PyJWTError, ValueError, RecursionError):
        raise TokenError(TokenVerdict.MALFORMED) from None
    if "crit" in header or "b64" in header:  # extensions that nobody here understands (RFC 7515 §4.1.11)
        raise TokenError(TokenVerdict.MALFORMED)
    algorithm = header.get("alg")
    fitting = keys.get(algorithm, []) if isinstance(algorithm, str) else []
    kid = header.get("kid")
    if kid is not None and not spec.secret:
        fitting = [key for key in fitting if key.key_id == kid]
    for key in fitting:
        try:
            payload = jws.decode_complete(token, key, algorithms=[str(algorithm)])["payload"]
        except (PyJWTError, ValueError):
            continue
        return _known(payload, spec)
    raise TokenError(TokenVerdict.FORGED)


def _known(payload: bytes, spec: IssuerSpec) -> Known:
    """A payload whose signature is verified. Raises TokenError."""
    try:
        said = json.loads(payload)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise TokenError(TokenVerdict.MALFORMED)
    if spec.issuer and said.get("iss") != spec.issuer:
        raise TokenError(TokenVerdict.FOREIGN)
    audience = said.get("aud")
    if spec.audience and spec.audience not in (audience if isinstance(audience, list) else [audience]):
        raise TokenError(TokenVerdict.FOREIGN)
    # A token that never ends could never be taken back.
    ends = _date(said, "exp") + spec.leeway
    begins = _date(said, "nbf") - spec.leeway if "nbf" in said else -math.inf
    claims: Claims = {}
    for name, value in _flat("", said, _DEEPEST):
        if name in claims or len(claims) < MOST_CLAIMS:
            claims[name] = (*claims.get(name, ()), value)
    return Known(claims, begins, ends)


def _date(said: dict[str, Any], name: str) -> float:
    """Seconds since 1970 (RFC 7519 §2, NumericDate). Raises TokenError."""
    value = said.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e12:
        raise TokenError(TokenVerdict.MALFORMED)
    return float(value)


def _flat(name: str, value: object, levels: int) -> Iterator[tuple[str, bytes]]:
    """Names with their values as text: texts as they are, numbers and truth as in JSON; null is nothing."""
    if isinstance(value, dict):
        for inner, one in value.items() if levels else ():
            yield from _flat(f"{name}.{inner}" if name else inner, one, levels - 1)
    elif isinstance(value, list):
        for one in value if levels else ():
            yield from _flat(name, one, levels - 1)
    elif isinstance(value, str):
        yield name, value.encode("utf-8", "replace")
    elif value is not None:
        yield name, json.dumps(value).encode()


def _keys_for(algorithm: str, spec: IssuerSpec) -> list[PyJWK]:
    """The issuer's keys that this algorithm may use; none for an algorithm that is not known here."""
    from jwt.api_jwk import PyJWK
    from jwt.exceptions import PyJWTError

    found = []
    for jwk in _jwks(spec):
        if not _fits(algorithm, jwk):
            continue
        try:
            found.append(PyJWK(jwk, algorithm))
        except (PyJWTError, ValueError, TypeError, KeyError):
            continue  # config has said so; the others may do
    return found


def _jwks(spec: IssuerSpec) -> list[dict[str, Any]]:
    if spec.secret:
        return [{"kty": "oct", "k": base64.urlsafe_b64encode(spec.secret.encode()).rstrip(b"=").decode()}]
    try:
        keys = json.loads(spec.keys)["keys"] if spec.keys else []
    except (ValueError, KeyError, TypeError, RecursionError):
        return []
    # A symmetric key in a published set would be known to everybody.
    return [one for one in keys if isinstance(one, dict) and one.get("kty") != "oct"] if isinstance(keys, list) else []


def _fits(algorithm: str, jwk: dict[str, Any]) -> bool:
    """Whether a key is for this algorithm, by its type and by what it says it is for (RFC 7517 §4)."""
    kty, crv = jwk.get("kty"), jwk.get("crv")
    if jwk.get("use", "sig") != "sig" or jwk.get("alg", algorithm) != algorithm:
        return False
    if "key_ops" in jwk and "verify" not in jwk["key_ops"]:
        return False
    match algorithm[:2]:
        case "HS":
            return bool(kty == "oct")
        case "RS" | "PS":
            return bool(kty == "RSA")
        case "ES":
            return bool(kty == "EC" and crv is not None and crv == _EC_CURVES.get(algorithm))
        case "Ed":
            return bool(kty == "OKP")
        case _:
            return False

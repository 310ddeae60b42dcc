"""Tokens for tests: an issuer with keys of each kind, and whatever somebody might make of its tokens."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

SECRET: Final = "a secret of the issuer's that is longer than any hash that signs with it"


def public_jwk(key: Any, **also: str) -> dict[str, Any]:
    """A public key as RFC 7517 writes it."""
    public = key.public_key()
    algorithm = {rsa.RSAPublicKey: RSAAlgorithm, ec.EllipticCurvePublicKey: ECAlgorithm}
    kind = next((one for base, one in algorithm.items() if isinstance(public, base)), OKPAlgorithm)
    return {**json.loads(kind.to_jwk(public)), **also}


def jwk_set(*keys: dict[str, Any]) -> str:
    return json.dumps({"keys": keys})


def pem(key: Any) -> bytes:
    """A public key as everybody can have it."""
    return bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def token(claims: dict[str, Any], key: Any, algorithm: str, **header: Any) -> bytes:
    return jwt.encode(claims, key, algorithm=algorithm, headers=header or None).encode()


def by_hand(header: dict[str, Any], claims: object, secret: bytes | None = None) -> bytes:
    """A token that no library would make: signed with HMAC-SHA256 whatever it says of itself, or not at all."""
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, claims)]
    signature = b""
    if secret is not None:
        signature = base64.urlsafe_b64encode(hmac.digest(secret, b".".join(parts), hashlib.sha256)).rstrip(b"=")
    return b".".join([*parts, signature])


RSA: Final = rsa.generate_private_key(65537, 2048)
OTHER_RSA: Final = rsa.generate_private_key(65537, 2048)
P256: Final = ec.generate_private_key(ec.SECP256R1())
P384: Final = ec.generate_private_key(ec.SECP384R1())
ED25519: Final = ed25519.Ed25519PrivateKey.generate()

"""Tokens: those of the issuer are believed for as long as they say; whatever else calls itself one is not."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jwt import api_jws as jws

from router.core.spec import IssuerSpec
from router.trust.tokens import LONGEST, REMEMBERED, Claims, Issuer, TokenError, Tokens, TokenVerdict
from tests.tokens import ED25519, OTHER_RSA, P256, P384, RSA, SECRET, by_hand, jwk_set, pem, public_jwk, token

NOW = int(time.time())
"""Real, since PyJWT would look at the clock itself if it were let."""
KEYS = jwk_set(
    public_jwk(RSA, kid="rsa"),
    public_jwk(P256, kid="p256"),
    public_jwk(P384, kid="p384"),
    public_jwk(ED25519, kid="ed"),
)
ID = IssuerSpec("id", ("RS256", "PS256", "ES256", "ES384", "EdDSA"), keys=KEYS, issuer="https://id", audience="shop")
ALICE: dict[str, Any] = {"iss": "https://id", "aud": "shop", "sub": "alice", "exp": NOW + 300}


def refused(spec: IssuerSpec, said: bytes, now: float = NOW) -> TokenVerdict:
    with pytest.raises(TokenError) as error:
        Issuer(spec).claims_of(said, now)
    return error.value.verdict


@pytest.mark.parametrize(
    ("algorithm", "key", "kid"),
    [("RS256", RSA, "rsa"), ("PS256", RSA, "rsa"), ("ES256", P256, "p256"), ("ES384", P384, "p384"),
     ("EdDSA", ED25519, "ed")],
)  # fmt: skip
@pytest.mark.parametrize("has_kid", [True, False])
def test_a_token_of_the_issuer_is_believed_with_the_id_of_its_key_or_without(
    algorithm: str, key: Any, kid: str, has_kid: bool
) -> None:
    said = token(ALICE, key, algorithm, **({"kid": kid} if has_kid else {}))
    assert Issuer(ID).claims_of(said, NOW)["sub"] == (b"alice",)


def test_a_secret_signs_as_well() -> None:
    spec = IssuerSpec("id", ("HS256",), secret=SECRET)
    assert Issuer(spec).claims_of(token(ALICE, SECRET, "HS256"), NOW)["sub"] == (b"alice",)
    assert refused(spec, token(ALICE, SECRET + "!", "HS256")) is TokenVerdict.FORGED
    assert refused(spec, token(ALICE, SECRET, "HS512")) is TokenVerdict.FORGED


FORGED = {
    "none": by_hand({"alg": "none"}, ALICE),
    "none with a key id": by_hand({"alg": "none", "kid": "rsa"}, ALICE),
    "None": by_hand({"alg": "None"}, ALICE),
    "none with a signature": by_hand({"alg": "none"}, ALICE, b""),
    "no algorithm": by_hand({}, ALICE),
    "an algorithm that is no text": by_hand({"alg": ["RS256"]}, ALICE),
    "the public key as a secret": by_hand({"alg": "HS256", "kid": "rsa"}, ALICE, pem(RSA)),
    "the key set as a secret": by_hand({"alg": "HS256", "kid": "rsa"}, ALICE, KEYS.encode()),
    "RS256 signed with the public key": by_hand({"alg": "RS256", "kid": "rsa"}, ALICE, pem(RSA)),
    "an algorithm that config does not name": token(ALICE, RSA, "RS512", kid="rsa"),
    "another key": token(ALICE, OTHER_RSA, "RS256", kid="rsa"),
    "an unknown key": token(ALICE, OTHER_RSA, "RS256", kid="theirs"),
    "a key that the token brings along": token(ALICE, OTHER_RSA, "RS256", jwk=public_jwk(OTHER_RSA), kid="rsa"),
    "a key for another algorithm": token(ALICE, RSA, "RS256", kid="p256"),
    "an empty signature": token(ALICE, RSA, "RS256").rpartition(b".")[0] + b".",
}


@pytest.mark.parametrize("said", FORGED.values(), ids=FORGED)
def test_what_the_issuer_did_not_sign_is_forged(said: bytes) -> None:
    assert refused(ID, said) is TokenVerdict.FORGED


MALFORMED = {
    "nothing": b"",
    "no token": b"opaque",
    "two parts": b"e30.e30",
    "not base64": b"!!!.!!!.!!!",
    "a header that is no object": by_hand([], ALICE),  # type: ignore[arg-type]
    "a header of brackets": b"W1tb" * 3000 + b".e30.e30",
    "critical extensions": token(ALICE, RSA, "RS256", kid="rsa", crit=["b64"], b64=True),
    "unknown critical extensions": by_hand({"alg": "RS256", "crit": ["exp"], "exp": 1}, ALICE),
    "too long": b"e30." + b"a" * LONGEST + b".e30",
    "no end": token({name: value for name, value in ALICE.items() if name != "exp"}, RSA, "RS256"),
    "an end that is no number": token({**ALICE, "nbf": True}, RSA, "RS256"),
}


@pytest.mark.parametrize("said", MALFORMED.values(), ids=MALFORMED)
def test_what_is_no_token_is_malformed(said: bytes) -> None:
    assert refused(ID, said) is TokenVerdict.MALFORMED


@given(at=st.integers(0, 10_000), other=st.sampled_from("aZ09-_."))
def test_a_token_with_one_changed_letter_is_none(at: int, other: str) -> None:
    said = bytearray(token(ALICE, ED25519, "EdDSA", kid="ed"))
    at %= len(said)
    if said[at] != ord(other):
        said[at] = ord(other)
        assert refused(ID, bytes(said)) in (TokenVerdict.FORGED, TokenVerdict.MALFORMED)


@pytest.mark.parametrize(
    "changed",
    [{"iss": "https://other"}, {"iss": None}, {"aud": "search"}, {"aud": ["search", "pay"]}, {"aud": None},
     {"aud": {"shop": 1}}],
)  # fmt: skip
def test_a_token_of_somebody_else_or_for_somebody_else_is_foreign(changed: dict[str, Any]) -> None:
    claims = {name: value for name, value in {**ALICE, **changed}.items() if value is not None}
    said = jws.encode(json.dumps(claims).encode(), RSA, "RS256", {"kid": "rsa"}).encode()  # jwt.encode would object
    assert refused(ID, said) is TokenVerdict.FOREIGN


def test_an_audience_among_several_will_do() -> None:
    assert Issuer(ID).claims_of(token({**ALICE, "aud": ["pay", "shop"]}, RSA, "RS256"), NOW)["aud"] == (b"pay", b"shop")


def test_a_token_holds_between_its_dates_give_or_take_the_leeway_also_when_it_is_known() -> None:
    issuer = Issuer(ID)
    said = token({**ALICE, "nbf": NOW}, RSA, "RS256")
    assert issuer.claims_of(said, NOW)
    for at, holds in ((NOW - 31, False), (NOW - 29, True), (NOW + 329, True), (NOW + 331, False)):
        if holds:
            assert issuer.claims_of(said, at)
        else:
            with pytest.raises(TokenError) as error:
                issuer.claims_of(said, at)
            assert error.value.verdict is TokenVerdict.EXPIRED


def test_claims_inside_of_others_have_dots_and_lists_have_several_values() -> None:
    said: dict[str, Any] = {
        **ALICE, "age": 42, "beta": True, "nothing": None, "share": 0.5, "groups": ["staff", "qa", 7],
        "realm": {"roles": ["admin"], "tenant": {"name": "acmé"}}, "list": [{"id": 1}, {"id": 2}], "empty": [],
    }  # fmt: skip
    claims: Claims = Issuer(ID).claims_of(token(said, RSA, "RS256"), NOW)
    assert {name: value for name, value in claims.items() if name not in ("iss", "aud", "exp")} == {
        "sub": (b"alice",), "age": (b"42",), "beta": (b"true",), "share": (b"0.5",), "groups": (b"staff", b"qa", b"7"),
        "realm.roles": (b"admin",), "realm.tenant.name": ("acmé".encode(),), "list.id": (b"1", b"2"),
    }  # fmt: skip


def test_a_published_secret_is_no_key_and_a_key_for_encryption_signs_nothing() -> None:
    published = {"kty": "oct", "k": "YSBzZWNyZXQgdGhhdCBldmVyeWJvZHkga25vd3MgLi4u", "kid": "s"}
    spec = IssuerSpec("id", ("HS256", "RS256"), keys=jwk_set(published, public_jwk(RSA, kid="rsa", use="enc")))
    assert refused(spec, by_hand({"alg": "HS256", "kid": "s"}, ALICE, b"a secret that everybody knows ...")) is (
        TokenVerdict.FORGED
    )
    assert refused(spec, token(ALICE, RSA, "RS256", kid="rsa")) is TokenVerdict.FORGED


@pytest.mark.parametrize("keys", ["", "{}", "[]", "not json", '{"keys": [{"kty": "RSA"}, 7]}'])
def test_an_issuer_without_usable_keys_believes_nobody(keys: str) -> None:
    assert refused(IssuerSpec("id", ("RS256",), keys=keys), token(ALICE, RSA, "RS256")) is TokenVerdict.FORGED


def test_a_flood_of_forged_tokens_takes_no_more_room_and_puts_no_good_one_out() -> None:
    issuer = Issuer(ID)
    good = token(ALICE, ED25519, "EdDSA")
    assert issuer.claims_of(good, NOW)
    for i in range(3 * REMEMBERED):
        with pytest.raises(TokenError):
            issuer.claims_of(b"forged-%d" % i, NOW)
    assert len(issuer._bad) + len(issuer._older_bad) <= 2 * REMEMBERED
    assert len(issuer._known) == 1
    assert issuer.claims_of(good, NOW)


def test_an_issuer_that_changes_is_asked_anew_and_one_that_stays_remembers() -> None:
    other = IssuerSpec("other", ("HS256",), secret=SECRET)
    before = Tokens((ID, other))
    said = token(ALICE, RSA, "RS256", kid="rsa")
    assert before.issuers[0].claims_of(said, NOW)
    rotated = IssuerSpec("id", ("RS256",), keys=jwk_set(public_jwk(OTHER_RSA, kid="rsa")))
    after = Tokens((rotated, other), before)
    assert after.issuers[1] is before.issuers[1]
    with pytest.raises(TokenError):
        after.issuers[0].claims_of(said, NOW)

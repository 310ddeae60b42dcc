"""Passes: what is signed comes back as it was; whatever was changed, outlived, taken back or lent does not count."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core.spec import KeySpec
from router.trust.passes import Pass, PassError, Verdict, check_pass, read_pass, sign_pass

NOW = 1_732_500_000
OLD, NEW = KeySpec("k1", "the first secret, long enough"), KeySpec("k2", "the second secret, long enough")
KEYS = (NEW, OLD)


def refused(keys: tuple[KeySpec, ...], token: str, now: float | None = None) -> Verdict:
    with pytest.raises(PassError) as error:
        read_pass(keys, token, now)
    return error.value.verdict


@given(service=st.text(max_size=40), ring=st.text(max_size=40), user=st.text(max_size=60), lives=st.integers(1, 10**9))
def test_what_was_signed_is_what_is_read_and_it_fits_into_a_url(service: str, ring: str, user: str, lives: int) -> None:
    texts = [text.encode("utf-8", "replace").decode() for text in (service, ring, user)]
    token = sign_pass(KEYS, *texts, NOW + lives, "p-1")
    assert set(token) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
    assert read_pass(KEYS, token, NOW) == Pass(*texts, NOW + lives, "p-1", "k2")


def test_a_pass_gets_an_id_of_its_own() -> None:
    ids = {read_pass(KEYS, sign_pass(KEYS, "shop", "canary", "", NOW)).id for _ in range(100)}
    assert len(ids) == 100


@given(at=st.integers(0, 10_000), other=st.sampled_from("aZ09-_.~ é"))
def test_a_pass_with_one_changed_character_is_none(at: int, other: str) -> None:
    token = sign_pass(KEYS, "shop", "canary", "alice", NOW + 60)
    at %= len(token)
    if token[at] != other:
        assert refused(KEYS, token[:at] + other + token[at + 1 :], NOW) in (Verdict.FORGED, Verdict.MALFORMED)


@given(length=st.integers(0, 10_000))
def test_a_pass_that_is_cut_short_is_none(length: int) -> None:
    token = sign_pass(KEYS, "shop", "canary", "alice", NOW + 60)
    assert refused(KEYS, token[: length % len(token)], NOW) in (Verdict.FORGED, Verdict.MALFORMED)


def test_an_older_key_verifies_until_it_is_taken_out() -> None:
    token = sign_pass((OLD,), "shop", "canary", "alice", NOW + 60)
    assert read_pass(KEYS, token, NOW).key_id == "k1"
    assert refused((NEW,), token, NOW) is Verdict.FORGED


def test_the_id_in_front_is_signed_too() -> None:
    """Else a pass of a revoked key could pretend to be another one's, where both have the same secret."""
    twin = KeySpec("k3", OLD.secret)
    token = sign_pass((OLD,), "shop", "canary", "alice", NOW + 60)
    assert refused((OLD, twin), "k3" + token[2:], NOW) is Verdict.FORGED


def test_a_payload_that_is_signed_and_senseless_is_malformed() -> None:
    from router.trust.passes import _signature

    for payload in (b"[]", b"null", b'["shop","canary","alice",true,"p"]', b'["shop"', b"\xff"):
        value = f"k1.{base64.urlsafe_b64encode(payload).rstrip(b'=').decode()}"
        assert refused((OLD,), f"{value}.{_signature(OLD, value)}", NOW) is Verdict.MALFORMED


def test_a_pass_ends_on_the_second() -> None:
    token = sign_pass(KEYS, "shop", "canary", "alice", NOW)
    assert read_pass(KEYS, token, NOW - 0.5).ring == "canary"
    assert refused(KEYS, token, NOW) is Verdict.EXPIRED


@pytest.mark.parametrize(
    ("service", "user", "revoked", "now", "expected"),
    [
        ("shop", "alice", set(), NOW, Verdict.VALID),
        ("shop", "alice", {"pass:p-2", "key:k1", "p-1", "k2"}, NOW, Verdict.VALID),
        ("shop", "alice", set(), NOW + 60, Verdict.EXPIRED),
        ("shop", "alice", {"pass:p-1"}, NOW, Verdict.REVOKED),
        ("shop", "alice", {"key:k2"}, NOW, Verdict.REVOKED),
        ("shop", "mallory", set(), NOW, Verdict.FOREIGN),
        ("shop", "", set(), NOW, Verdict.FOREIGN),
        ("search", "alice", set(), NOW, Verdict.FOREIGN),
    ],
)
def test_what_a_pass_is_worth(service: str, user: str, revoked: set[str], now: int, expected: Verdict) -> None:
    found = read_pass(KEYS, sign_pass(KEYS, "shop", "canary", "alice", NOW + 60, "p-1"))
    assert check_pass(found, service, revoked, user, now) is expected


def test_a_pass_without_a_user_is_anybodys() -> None:
    found = read_pass(KEYS, sign_pass(KEYS, "shop", "canary", "", NOW + 60))
    assert check_pass(found, "shop", (), "", NOW) is Verdict.VALID
    assert check_pass(found, "shop", (), "mallory", NOW) is Verdict.VALID


def test_nothing_is_signed_without_a_key_or_with_an_id_that_does_not_fit_a_url() -> None:
    with pytest.raises(ValueError, match="no key to sign with"):
        sign_pass((), "shop", "canary", "", NOW)
    with pytest.raises(ValueError, match="is no id"):
        sign_pass(KEYS, "shop", "canary", "", NOW, "a.b")
    with pytest.raises(ValueError, match="is no id"):
        sign_pass((KeySpec("k 1", "secret"),), "shop", "canary", "", NOW)
    with pytest.raises(ValueError, match="characters long"):
        sign_pass(KEYS, "shop", "canary", "a" * 4000, NOW)

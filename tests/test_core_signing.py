"""The router's own cookie: signed, verified through key rotation, and worthless when anybody touches it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core.audience import CookieSpec, IdentitySpec, KeySpec, TrustSpec
from router.core.decide import identify
from router.core.signing import CookieSigner
from router.core.snapshot import Snapshot, compile_service
from router.core.spec import RingSpec, ServiceSpec, SnapshotSpec
from tests.core_services import VERSIONS, request

OLD, NEW = KeySpec("k1", "old secret"), KeySpec("k2", "new secret")
KEY = b"Xq3vJ0pV9uB2mC5n"


def signer(*keys: KeySpec, cookie: bytes = b"r") -> CookieSigner:
    return CookieSigner(keys, cookie)


def test_the_first_key_signs_and_all_of_them_verify() -> None:
    before, during, after = signer(OLD), signer(NEW, OLD), signer(NEW)
    assert during.verified(before.sign(KEY)) == KEY
    assert during.sign(KEY) == after.sign(KEY) != before.sign(KEY)
    assert after.verified(before.sign(KEY)) is None


def test_the_signature_is_an_api() -> None:
    """Cookies live for a year: another signature would make every anonymous user a new one."""
    assert signer(OLD).sign(KEY) == b"Xq3vJ0pV9uB2mC5n.TL8lhrTrJ8ZaByLKzwWwdA"


def test_what_is_signed_stands_in_a_cookie_as_it_is() -> None:
    safe = frozenset(range(0x21, 0x7F)) - frozenset(b'",;\\')  # RFC 6265 §4.1.1, cookie-octet
    assert safe.issuperset(signer(OLD).sign(KEY))


@given(at=st.integers(0, 38), byte=st.integers(0, 255))
def test_no_changed_byte_verifies(at: int, byte: int) -> None:
    value = bytearray(signer(OLD).sign(KEY))
    assert len(value) == 39
    changed = value[at] != byte
    value[at] = byte
    assert (signer(OLD).verified(bytes(value)) is None) is changed


@given(value=st.binary(max_size=60))
def test_what_nobody_signed_is_refused_without_a_word(value: bytes) -> None:
    assert signer(OLD, NEW).verified(value) is None


@pytest.mark.parametrize("cut", range(39))
def test_a_truncated_value_is_refused(cut: int) -> None:
    assert signer(OLD).verified(signer(OLD).sign(KEY)[:cut]) is None


def test_another_cookies_value_is_refused() -> None:
    assert signer(OLD, cookie=b"other").verified(signer(OLD).sign(KEY)) is None


def test_no_key_is_empty() -> None:
    assert signer(OLD).verified(signer(OLD).sign(b"")) is None


SIGNED = ServiceSpec(
    "shop",
    VERSIONS,
    (RingSpec("everyone", "v1", 10_000),),
    identity=(IdentitySpec("anonymous_cookie", "r", cookie=CookieSpec(is_signed=True)), IdentitySpec("cookie", "uid")),
)


def test_a_value_that_is_not_ours_counts_as_no_cookie() -> None:
    (shop,) = Snapshot(SnapshotSpec(1, (SIGNED,), trust=TrustSpec((NEW, OLD)))).services
    assert shop.signer is not None
    ours = shop.signer.sign(KEY).decode()
    assert identify(shop, request(f"r={ours}")) == KEY
    assert identify(shop, request(f"r={KEY.decode()}")) is None
    assert identify(shop, request(f"r={KEY.decode()}; uid=alice")) == b"alice"
    assert identify(shop, request("r=")) is None


def test_a_cookie_to_sign_without_a_key_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match="cookie r is to be signed"):
        compile_service(SIGNED)

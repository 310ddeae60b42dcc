"""The ring as a member of baggage: ours is read and written, everybody else's travels on as it was."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core.spec import KeySpec
from router.trust.propagation import (
    LIFETIME,
    MOST_BYTES,
    MOST_MEMBERS,
    Claim,
    check_member,
    read_baggage,
    ring_of,
    with_others,
    write_member,
)

NOW = 1_732_500_000
OLD, NEW = KeySpec("k1", "the first secret, long enough"), KeySpec("k2", "the second secret, long enough")
TOKEN = st.text("abcdefghijklmnopqrstuvwxyzRING0123456789!#$%&'*+-.^_`|~", min_size=1, max_size=12)
VALUE = st.text("".join(chr(c) for c in range(0x21, 0x7F) if chr(c) not in '",;\\'), max_size=20)
"""baggage-octet of W3C Baggage §3.3.1."""
SPACE = st.sampled_from(["", " ", "\t", "  "])


@st.composite
def foreign(draw: st.DrawFn) -> bytes:
    """A member of somebody else's, with properties and white space where they may be."""
    key = draw(TOKEN.filter(lambda name: name != "ring"))
    member = f"{key}{draw(SPACE)}={draw(SPACE)}{draw(VALUE)}"
    for name, value in draw(st.lists(st.tuples(TOKEN | st.just("ring"), st.none() | VALUE), max_size=3)):
        member += f"{draw(SPACE)};{draw(SPACE)}{name}" + ("" if value is None else f"={value}")
    return member.rstrip(" \t").encode()


@given(
    members=st.lists(foreign(), max_size=8),
    at=st.integers(0, 8),
    ours=st.sampled_from([b"", b"ring=canary", b"ring = canary ;kid=k1", b"ring"]),
    space=SPACE,
)
def test_the_members_of_others_survive_untouched_and_in_their_order(
    members: list[bytes], at: int, ours: bytes, space: str
) -> None:
    came = [*members[:at], *([ours] if ours else []), *members[at:]]
    field = f"{space},{space}".encode().join(came)
    found = read_baggage(field)
    assert found.ring == ours
    assert found.others == b",".join(members)
    written = with_others(b"ring=early", found.others) if found.others else b"ring=early"
    again = read_baggage(written)
    assert again.ring == b"ring=early"
    assert again.others == b",".join(members)


@given(ring=st.text(min_size=1, max_size=20), signs=st.booleans())
def test_a_ring_is_read_as_it_was_written_and_spoils_no_other_member(ring: str, signs: bool) -> None:
    member = write_member((NEW,) if signs else (), ring, NOW)
    assert read_baggage(b"a=1,%b,b=2" % member) == (member, b"a=1,b=2")
    assert ring_of(member) == ring
    assert check_member((NEW, OLD), member, NOW) is (Claim.VALID if signs else Claim.UNTRUSTED)


def test_of_several_rings_the_first_counts_and_none_is_passed_on() -> None:
    assert read_baggage(b"ring=a,x=1,ring=b") == (b"ring=a", b"x=1")
    assert read_baggage(b"Ring=a,xring=b,ring2=c") == (b"", b"Ring=a,xring=b,ring2=c")


@given(at=st.integers(0, 10_000), other=st.sampled_from("aZ09-_;=%"))
def test_a_signed_member_with_one_changed_letter_is_none(at: int, other: str) -> None:
    member = bytearray(write_member((NEW,), "canary", NOW))
    at %= len(member)
    if member[at] != ord(other):
        member[at] = ord(other)
        ours, _ = read_baggage(bytes(member))
        assert not ours or check_member((NEW,), ours, NOW) is not Claim.VALID


@pytest.mark.parametrize(
    ("member", "expected"),
    [
        (b"ring=canary", Claim.UNTRUSTED),
        (b"ring=canary;kid=k2;exp=9999999999", Claim.UNTRUSTED),
        (b"ring=canary;kid=k2;exp=9999999999;sig=", Claim.FORGED),
        (b"ring=canary;kid=k9;exp=9999999999;sig=AAAA", Claim.FORGED),
        (b"ring=canary;kid=k2;exp=soon;sig=AAAA", Claim.MALFORMED),
        (b"ring=canary;kid=k2;sig=AAAA", Claim.MALFORMED),
        (b"ring=;kid=k2;exp=9999999999;sig=AAAA", Claim.MALFORMED),
        (b"ring=%ff;kid=k2;exp=9999999999;sig=AAAA", Claim.MALFORMED),
        (b"ring=canary;kid=k2;exp=9999999999;sig=\xe9", Claim.FORGED),
    ],
)
def test_what_is_not_signed_well_is_worth_nothing(member: bytes, expected: Claim) -> None:
    assert check_member((NEW, OLD), member, NOW) is expected


def test_a_signature_is_worth_nothing_for_another_ring_or_later_or_when_its_key_is_gone() -> None:
    member = write_member((OLD,), "early", NOW)
    assert check_member((NEW, OLD), member, NOW + LIFETIME - 1) is Claim.VALID
    assert check_member((NEW, OLD), member, NOW + LIFETIME) is Claim.EXPIRED
    later = member.replace(b"exp=%d" % (NOW + LIFETIME), b"exp=%d" % (NOW + 10 * LIFETIME))
    assert check_member((NEW, OLD), later, NOW) is Claim.FORGED
    assert check_member((NEW, OLD), member.replace(b"early", b"canary"), NOW) is Claim.FORGED
    assert check_member((NEW,), member, NOW) is Claim.FORGED


@given(st.lists(st.integers(1, 400), min_size=1, max_size=400))
def test_what_is_too_much_is_left_out_from_the_end_and_by_whole_members(sizes: list[int]) -> None:
    members = [b"k=" + b"v" * size for size in sizes]
    written = with_others(b"ring=canary", b",".join(members))
    kept = written.split(b",")
    assert kept == [b"ring=canary", *members][: len(kept)]
    assert len(written) <= MOST_BYTES
    assert len(kept) <= MOST_MEMBERS
    if len(kept) <= len(members):
        assert len(kept) == MOST_MEMBERS or len(written) + 1 + len(members[len(kept) - 1]) > MOST_BYTES

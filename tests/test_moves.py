"""Who moves when weights change: what intervals say is what every single bucket does."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from router.control.keys import RawFault, RawService
from router.control.revision import rev_of
from router.core.moves import shifts

RINGS = ("canary", "early", "late", "everyone")


@st.composite
def weights(draw: st.DrawFn) -> list[int]:
    cuts = sorted(draw(st.lists(st.integers(0, 10_000), min_size=3, max_size=3)))
    return [cuts[0], cuts[1] - cuts[0], cuts[2] - cuts[1], 0]


@given(weights(), weights())
def test_shifts_are_what_the_buckets_do(before: list[int], after: list[int]) -> None:
    old, new = list(accumulate(before[:3])), list(accumulate(after[:3]))
    moved = Counter((bisect_right(old, bucket), bisect_right(new, bucket)) for bucket in range(10_000))
    expected = {(RINGS[was], RINGS[now], now < was): n for (was, now), n in moved.items() if was != now}
    assert {
        (one.before, one.after, one.is_inward): one.basis_points for one in shifts(RINGS, before, after)
    } == expected


def test_the_revision_changes_with_every_content_and_with_nothing_else() -> None:
    contents = [
        RawService(), RawService(weights={b"a": b"1"}), RawService(weights={b"a": b"11"}),
        RawService(weights={b"a1": b"1"}), RawService(versions={b"a": b"1"}), RawService(control={b"a": b"1"}),
        RawService(weights={b"a": b"1", b"rev": b"4"}), RawService(weights=RawFault("wrong_type", "")),
        RawService(weights={b"a": b"1:b", b"c": b"2"}), RawService(weights={b"a": b"1", b"b:c": b"2"}),
    ]  # fmt: skip
    assert len({rev_of(one) for one in contents}) == len(contents)
    assert rev_of(RawService(weights={b"b": b"2", b"a": b"1"})) == rev_of(RawService(weights={b"a": b"1", b"b": b"2"}))
    assert rev_of(contents[6]).startswith("4.")
    assert "." not in rev_of(RawService(weights={b"rev": b"4\xff"}))

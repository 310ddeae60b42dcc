"""The history: the same as a list that keeps everything, for as long back as it says, in memory that is bounded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from router.telemetry.buckets import Piece, merged, pack, unpack
from router.telemetry.history import MINUTES, QUIET_SECONDS, SECONDS, History
from router.telemetry.meters import histogram_index, micros_of
from router.telemetry.quantiles import quantile_seconds

KEY = ("shop", "canary", "v2")
START = 1_764_000_000


def piece(ok: int, errors: int, seconds: float = 0.01) -> Piece:
    codes = {code: count for code, count in ((200, ok), (503, errors)) if count}
    return Piece(codes, {"hash": ok + errors}, {histogram_index(micros_of(seconds)): ok + errors} if codes else {})


@given(
    st.lists(
        st.tuples(
            st.integers(1, 400), st.integers(0, 50), st.integers(0, 5), st.sampled_from([0.001, 0.02, 0.7])
        ),
        min_size=1, max_size=40,
    )
)  # fmt: skip
def test_what_it_says_is_what_a_list_of_everything_would_say(steps: list[tuple[int, int, int, float]]) -> None:
    history, all_seconds, now = History(), {}, START
    for gap, ok, errors, seconds in steps:
        now += gap
        history.put(float(now), {KEY: piece(ok, errors, seconds)})
        all_seconds[now - 1] = piece(ok, errors, seconds)
    kept = {second: one for second, one in all_seconds.items() if one.codes}
    newest = max(kept, default=now)
    begin = newest - SECONDS + 1
    rps = history.points(KEY, "rps", begin, SECONDS + 5, 1)
    assert rps == [float(kept[s].requests) if s in kept else 0.0 for s in range(begin, begin + SECONDS + 5)]
    success = history.points(KEY, "success", begin, SECONDS, 1)
    for second, value in zip(range(begin, begin + SECONDS), success, strict=True):
        one = kept.get(second)
        assert value == (None if one is None else round(100 * (1 - one.errors / one.requests), 4))
    for minute in range(newest // 60 - 3, newest // 60 + 1):
        inside = merged({("canary", "v2"): one} for second, one in kept.items() if second // 60 == minute)
        whole = inside.get(("canary", "v2"))
        (p95,), (rate,) = (history.points(KEY, name, minute, 1, 60) for name in ("p95", "rps"))
        if whole is None:
            assert (p95, rate) == (None, 0.0)
        else:
            exact = quantile_seconds(whole.histogram, 0.95)
            assert exact is not None
            assert p95 is not None
            assert abs(p95 - 1000 * exact) < 1e-3 * max(1.0, p95)
            assert rate == whole.requests / 60


def test_a_ring_is_all_of_its_versions_and_its_share_is_of_the_service() -> None:
    history = History()
    history.put(START, {KEY: piece(10, 0), ("shop", "canary", "v1"): piece(0, 10), ("shop", "all", "v1"): piece(60, 0)})
    at = START - 1
    assert history.points(("shop", "canary", ""), "success", at, 1, 1) == [50.0]
    assert history.points(("shop", "canary", ""), "share", at, 1, 1) == [25.0]
    assert history.points(KEY, "share", at, 1, 1) == [12.5]
    assert history.points(("shop", "early", ""), "share", at, 1, 1) == [0.0]
    assert history.points(("shop", "early", ""), "success", at, 1, 1) == [None]


def test_quiet_rings_make_room_and_services_that_are_gone_are_forgotten() -> None:
    history = History(most=6)
    for number in range(5):
        history.put(START + number * QUIET_SECONDS, {(f"s{number}", "canary", "v2"): piece(1, 0)})
    assert len(history) == 6
    assert history.points(("s4", "canary", "v2"), "rps", START + 4 * QUIET_SECONDS - 1, 1, 1) == [1.0]
    assert history.points(("s0", "canary", "v2"), "rps", START - 1, 1, 1) == [0.0]
    history.keep(["s4"])
    assert len(history) == 3


def test_where_too_many_have_traffic_those_that_were_first_keep_all_of_it() -> None:
    history, count = History(most=6), 2 * QUIET_SECONDS
    for second in range(count):
        history.put(START + second, {(f"s{number}", "canary", "v2"): piece(1, 0) for number in range(5)})
    for number in range(2):
        assert history.points((f"s{number}", "canary", "v2"), "rps", START - 1, count, 1) == [1.0] * count
    assert len(history) == 6


def test_a_day_is_kept_by_the_minute_and_no_more() -> None:
    history = History()
    history.put(START, {KEY: piece(60, 0)})
    minute = (START - 1) // 60
    history.put(START + 60 * (MINUTES - 1), {KEY: piece(1, 0)})
    assert history.points(KEY, "rps", minute, 1, 60) == [1.0]
    history.put(START + 60 * MINUTES, {KEY: piece(1, 0)})
    assert history.points(KEY, "rps", minute, 1, 60) == [0.0]


@given(
    st.dictionaries(
        st.tuples(st.text(max_size=8), st.text(max_size=8)),
        st.builds(Piece, st.dictionaries(st.integers(100, 599), st.integers(1, 10**9)),
                  st.dictionaries(st.sampled_from(["hash", "rule"]), st.integers(1, 10**9)),
                  st.dictionaries(st.integers(0, 511), st.integers(1, 10**9))),
    )
)  # fmt: skip
def test_what_instances_tell_each_other_arrives_whole(pieces: dict[tuple[str, str], Piece]) -> None:
    assert unpack(pack(pieces)) == pieces

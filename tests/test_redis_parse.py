"""Poison handling: nothing raises, nothing is half applied, absence changes nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.control.keys import RawFault, RawHash, RawService
from router.control.parse import Parsed, fit, parse
from router.core.live import Live
from tests.redis_fixture import SHOP

BEFORE = Live(weights={"canary": 300}, versions={"early": "v3"}, killed=("early",), revision="7")


def judged(
    previous: Live | None = None,
    weights: RawHash | None = None,
    versions: RawHash | None = None,
    control: RawHash | None = None,
) -> Parsed:
    return parse(RawService(weights or {}, versions or {}, control or {}), SHOP, previous)


def reasons(parsed: Parsed) -> list[str]:
    return [problem.reason for problem in parsed.problems]


def test_a_good_hash_is_applied_and_unnamed_rings_keep_the_weight_of_the_config_file() -> None:
    parsed = judged(weights={b"canary": b"5.25", b"rev": b"3"})
    assert parsed.live == Live(weights={"canary": 525}, revision="3")
    assert SHOP.effective_weights(parsed.live) == {"canary": 525, "early": 1000}
    assert parsed.is_from_redis
    assert not parsed.problems


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        (b"canary", b"NaN", "not_a_number"),
        (b"canary", b"10%", "not_a_number"),
        (b"canary", b"", "not_a_number"),
        (b"canary", b" 5", "not_a_number"),
        (b"canary", "٥".encode(), "not_a_number"),
        (b"canary", b"\xff\xfe", "not_a_number"),
        (b"canary", b"5\n", "not_a_number"),
        (b"canary", b"1e999", "out_of_range"),
        (b"canary", b"-5", "out_of_range"),
        (b"canary", b"101", "out_of_range"),
        (b"canary", b"100.01", "out_of_range"),
        (b"canary", b"0.001", "out_of_range"),
        (b"canry", b"5", "unknown_ring"),
        (b"\xff", b"5", "unknown_ring"),
        (b"everyone", b"5", "default_ring"),
        (b"canary", b"95", "sum_above_100"),
    ],
)
def test_one_bad_field_refuses_the_whole_hash(field: bytes, value: bytes, reason: str) -> None:
    fields = {b"rev": b"9", field: value} if reason == "sum_above_100" else {b"early": b"1", b"rev": b"9", field: value}
    parsed = judged(BEFORE, weights=fields, control={b"kill": b"early"}, versions={b"early": b"v3"})
    assert parsed.live == BEFORE
    assert reasons(parsed) == [reason]
    assert parsed.problems[0].message
    assert len(parsed.problems[0].value) <= 60


def test_weights_of_the_config_file_count_in_the_sum() -> None:
    assert not judged(weights={b"canary": b"90"}).problems
    parsed = judged(weights={b"canary": b"90.01"})
    assert reasons(parsed) == ["sum_above_100"]
    assert "early 10 (config file)" in parsed.problems[0].message


def test_a_flushed_redis_changes_nothing_not_even_kills_and_says_what_is_held() -> None:
    before = Live({"canary": 300}, {"early": "v3"}, ("early",), "holiday", "7")
    parsed = judged(before)
    assert parsed.live == before
    assert reasons(parsed) == ["held_missing"] * 3
    assert not parsed.is_from_redis


def test_keys_that_never_were_are_nothing_to_report() -> None:
    assert judged(None) == Parsed(Live())


def test_a_deleted_control_key_ends_kill_and_freeze_only_beside_valid_weights() -> None:
    before = Live({"canary": 300}, {}, ("early",), "holiday")
    assert judged(before, weights={b"canary": b"3"}).live == Live({"canary": 300})
    held = judged(before, weights={b"canary": b"x"}).live
    assert (held.killed, held.freeze) == (("early",), "holiday")


@pytest.mark.parametrize("fault", [RawFault("wrong_type", "WRONGTYPE"), RawFault("too_many_fields", "300 fields")])
def test_unreadable_keys_hold_what_was(fault: RawFault) -> None:
    parsed = judged(BEFORE, weights=fault, versions=fault, control=fault)
    assert parsed.live == BEFORE
    assert reasons(parsed) == [fault.reason] * 3


def test_kill_names_rings_or_all_but_the_default_ring() -> None:
    assert judged(control={b"kill": b"early, canary"}).live.killed == ("canary", "early")
    assert judged(control={b"kill": b"*"}).live.killed == ("canary", "early")
    assert judged(control={b"kill": b""}).live.killed == ()
    assert reasons(judged(control={b"kill": b"everyone"})) == ["default_ring"]
    assert reasons(judged(control={b"kill": b"canry"})) == ["unknown_ring"]
    assert reasons(judged(control={b"kil": b"canary"})) == ["unknown_field"]


def test_versions_are_those_of_the_config_file() -> None:
    assert judged(versions={b"everyone": b"v2"}).live.versions == {"everyone": "v2"}
    parsed = judged(versions={b"early": b"v3", b"canary": b"v9"})
    assert parsed.live.versions == {}
    assert reasons(parsed) == ["unknown_version"]


def test_a_freeze_refuses_widening_and_lets_narrowing_through() -> None:
    frozen = {b"freeze": b"holiday"}
    wider = judged(Live({"canary": 300}), weights={b"canary": b"4"}, control=frozen)
    assert wider.live.weights == {"canary": 300}
    assert wider.live.freeze == "holiday"
    assert reasons(wider) == ["frozen"]
    assert judged(Live({"canary": 300}), weights={b"canary": b"1"}, control=frozen).live.weights == {"canary": 100}


def test_moving_weight_inward_under_a_freeze_is_widening_too() -> None:
    parsed = judged(
        Live({"canary": 300, "early": 1000}), weights={b"canary": b"5", b"early": b"8"}, control={b"freeze": b"x"}
    )
    assert reasons(parsed) == ["frozen"]
    assert parsed.problems[0].field == "canary"


def test_under_a_freeze_a_ring_may_only_go_back_to_a_version_further_out() -> None:
    frozen = {b"freeze": b"x"}
    assert judged(Live(), versions={b"early": b"v1"}, control=frozen).live.versions == {"early": "v1"}
    assert reasons(judged(Live(), versions={b"early": b"v3"}, control=frozen)) == ["frozen"]


def test_the_first_read_of_an_instance_is_adopted_whatever_the_freeze() -> None:
    assert judged(None, weights={b"canary": b"50"}, control={b"freeze": b"x"}).live.weights == {"canary": 5000}


FIELDS = st.one_of(
    st.binary(max_size=12), st.sampled_from([b"canary", b"early", b"everyone", b"rev", b"kill", b"freeze", b"drain"])
)
VALUES = st.one_of(
    st.binary(max_size=24), st.sampled_from([b"0", b"5", b"99.99", b"100", b"-1", b"v1", b"v3", b"canary", b"*"])
)
HASHES = st.one_of(
    st.dictionaries(FIELDS, VALUES, max_size=6),
    st.builds(RawFault, st.sampled_from(["wrong_type", "too_many_fields", "unreadable"]), st.text(max_size=20)),
)
LIVES = st.one_of(
    st.none(),
    st.builds(
        Live,
        weights=st.dictionaries(st.sampled_from(["canary", "early"]), st.integers(0, 5000), max_size=2),
        versions=st.dictionaries(st.sampled_from(SHOP.rings), st.sampled_from(["v1", "v2", "v3"]), max_size=3),
        killed=st.sampled_from([(), ("canary",), ("canary", "early")]),
        freeze=st.sampled_from(["", "holiday"]),
        revision=st.sampled_from(["", "4"]),
        drained=st.sampled_from([(), ("10.0.0.7:9001",)]),
    ),
)


@given(st.builds(RawService, HASHES, HASHES, HASHES), LIVES)
def test_whatever_redis_holds_each_part_is_applied_whole_or_held(raw: RawService, previous: Live | None) -> None:
    parsed = parse(raw, SHOP, previous)
    held = previous or Live()
    assert fit(parsed.live, SHOP) == parsed.live
    assert sum(SHOP.effective_weights(parsed.live).values()) <= 10_000
    keys = {problem.key.rpartition(":")[2] for problem in parsed.problems}
    for name in ("weights", "versions"):
        content = getattr(raw, name)
        if name in keys or not content:
            assert getattr(parsed.live, name) == getattr(held, name)
        else:
            expected = {field.decode() for field in content if field != b"rev"}
            assert set(getattr(parsed.live, name)) == expected
    if "control" in keys:
        assert (parsed.live.killed, parsed.live.freeze, parsed.live.drained) == (held.killed, held.freeze, held.drained)


@given(st.builds(RawService, HASHES, HASHES, HASHES), LIVES)
def test_reading_the_same_again_changes_nothing(raw: RawService, previous: Live | None) -> None:
    once = parse(raw, SHOP, previous)
    if previous is not None:
        assert parse(raw, SHOP, once.live).live == once.live


def test_values_that_no_longer_fit_a_changed_config_file_are_left_out() -> None:
    live = Live({"canary": 9500, "gone": 5}, {"early": "v9", "canary": "v3"}, ("gone", "early"), "", "3")
    assert fit(live, SHOP) == Live({}, {"canary": "v3"}, ("early",), "", "")

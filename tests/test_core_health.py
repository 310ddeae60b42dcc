"""The table of an endpoint's health: total, and slow to believe in either direction."""

from __future__ import annotations

from itertools import pairwise, product, takewhile

from hypothesis import given
from hypothesis import strategies as st

from router.core.health import KNOWN_DOWN, TRANSITIONS, Health, HealthEvent, HealthState, is_version_up
from router.core.spec import EndpointSpec, HealthCheckSpec, VersionSpec

RESULTS = st.lists(st.booleans(), max_size=60)
SPECS = st.builds(HealthCheckSpec, passes=st.integers(1, 5), failures=st.integers(1, 5))


def story(results: list[bool], spec: HealthCheckSpec, begin: Health) -> list[Health]:
    told = [begin]
    for result in results:
        told.append(told[-1].after(result, spec))
    return told


def tail(results: list[bool]) -> int:
    """How many results at the end are equal."""
    return len(list(takewhile(lambda result: result == results[-1], reversed(results))))


def test_every_state_knows_what_every_event_makes_of_it() -> None:
    assert set(TRANSITIONS) == set(product(HealthState, HealthEvent))
    reached = {HealthState.UNKNOWN} | set(TRANSITIONS.values())
    assert reached == set(HealthState)


def test_nobody_checked_yet_counts_as_up() -> None:
    assert not Health().is_down
    assert KNOWN_DOWN.is_down


@given(RESULTS, SPECS, st.sampled_from([Health(), KNOWN_DOWN]))
def test_it_goes_down_only_after_that_many_failures_in_a_row_and_up_only_after_passes(
    results: list[bool], spec: HealthCheckSpec, begin: Health
) -> None:
    told = story(results, spec, begin)
    for i, (before, after) in enumerate(pairwise(told), start=1):
        so_far = results[:i]
        if after.is_down and not before.is_down:
            assert not so_far[-1]
            assert tail(so_far) == spec.failures
        if before.is_down and not after.is_down:
            assert so_far[-1]
            assert tail(so_far) == spec.passes


@given(RESULTS.filter(bool), SPECS, st.sampled_from([Health(), KNOWN_DOWN]))
def test_enough_results_in_a_row_always_decide(results: list[bool], spec: HealthCheckSpec, begin: Health) -> None:
    end = story(results, spec, begin)[-1]
    if tail(results) >= (spec.passes if results[-1] else spec.failures):
        assert end.state is (HealthState.UP if results[-1] else HealthState.DOWN)
        assert not end.is_undecided
    assert end.has_passed == results[-1]


@given(st.integers(2, 5), st.integers(2, 5), st.integers(1, 40), st.sampled_from([Health(), KNOWN_DOWN]))
def test_results_that_alternate_never_change_anything(passes: int, failures: int, times: int, begin: Health) -> None:
    spec = HealthCheckSpec(passes=passes, failures=failures)
    assert {one.is_down for one in story([True, False] * times, spec, begin)} == {begin.is_down}


def test_a_version_is_up_while_one_endpoint_may_have_requests() -> None:
    one, other = EndpointSpec("127.0.0.1", 9001), EndpointSpec("127.0.0.1", 9002)
    assert is_version_up(VersionSpec("v1", (one, other), down=(one.address,)))
    assert not is_version_up(VersionSpec("v1", (one, other), down=(one.address,), drained=(other.address,)))
    assert not is_version_up(VersionSpec("v1", (one, EndpointSpec("127.0.0.1", 9002, weight=0)), down=(one.address,)))

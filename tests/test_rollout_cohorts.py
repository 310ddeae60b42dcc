"""Users as units: each counts once, at the end of their window, for every test that they are new to."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.rollout.cohorts import MOST_USERS, Cohorts, Note, Taken
from router.rollout.plan import Guardrail, Latency, Plan
from router.rollout.statistics.latency import TAIL, Earlier
from router.telemetry.evidence import CLIENT_ERROR, FAILED, ArmKey, slice_of
from tests.rollout_hand import ERRORS, PLAN, REFUSED

P50 = Guardrail("p50", latency=Latency(0.5, 2))
THREE: Plan = replace(PLAN, tick=10.0, window=30.0, guardrails=(ERRORS, P50, REFUSED))
"""Windows of three ticks."""
RING: ArmKey = ("canary", "v2", "hash")
CONTROL: ArmKey = ("everyone", "v1", "hash")
OPTED_IN: ArmKey = ("early", "v2", "chosen")
HELD_BACK: ArmKey = ("early", "v1", "chosen")
FOREIGN: ArmKey = ("early", "v3", "hash")
FINE = {100: 1}
FAILS = {100: 1, FAILED: 1}
Told = dict[ArmKey, dict[int, Any]]


def begun(plan: Plan = THREE, round_: int = 1, chosen: Sequence[str] = ("early",)) -> Cohorts:
    made = Cohorts(plan)
    made.begin_step(round_, 0, chosen)
    return made


def counted(taken: Taken, guardrail: str = "errors") -> list[tuple[int, float, int, float]]:
    return [
        (one.ring_units, one.ring_outcomes, one.control_units, one.control_outcomes)
        for one in taken.cohorts
        if one.guardrail == guardrail
    ]


def run(cohorts: Cohorts, *ticks: Told, first: int = 1) -> list[Taken]:
    return [cohorts.take(first + number, users, {}) for number, users in enumerate(ticks)]


def test_a_user_counts_once_at_the_end_of_their_window_however_often_they_come() -> None:
    takes = run(begun(), *({RING: {1: FINE}, CONTROL: {2: FINE}} for _ in range(9)))
    assert [counted(one) for one in takes] == [[], [], [(1, 0.0, 1, 0.0)], *([[]] * 6)]
    assert [set(one.notes) for one in takes] == [{1, 2}, *([set()] * 8)]


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_a_failure_anywhere_in_the_window_counts_and_one_is_as_many_as_ten(failing: int) -> None:
    ticks: list[Told] = [{RING: {1: FINE}, CONTROL: {2: FINE}} for _ in range(3)]
    ticks[failing - 1] = {RING: {1: {100: 10, FAILED: 10}}}
    assert counted(run(begun(), *ticks)[2])[0][:2] == (1, 1.0)


def test_a_failure_after_the_window_does_not_count_for_that_round() -> None:
    takes = run(begun(), {RING: {1: FINE}}, {}, {}, {RING: {1: FAILS}}, {}, {}, {})
    assert [one for take in takes for one in counted(take)] == [(1, 0.0, 0, 0.0)]


def test_every_outcome_has_its_code() -> None:
    takes = run(begun(), {RING: {1: FAILS, 2: {100: 1, CLIENT_ERROR: 1}}}, {}, {})
    assert counted(takes[2], "errors") == [(2, 1.0, 0, 0.0)]
    assert counted(takes[2], "http_4xx") == [(2, 1.0, 0, 0.0)]


@pytest.mark.parametrize("apart", [0, 1, 2])
def test_who_was_on_both_sides_within_a_window_counts_on_neither(apart: int) -> None:
    ticks: list[Told] = [{RING: {1: FAILS}}, {}, {}]
    ticks[apart] = {**ticks[apart], CONTROL: {1: FINE}}
    takes = run(begun(), *ticks, {RING: {1: FAILS}}, {}, {})
    assert [one for take in takes for one in counted(take)] == []


def test_who_was_chosen_and_hashed_within_a_window_counts_on_neither() -> None:
    assert counted(run(begun(), {RING: {1: FAILS}}, {OPTED_IN: {1: FAILS}}, {})[2]) == []


def test_who_chose_to_be_there_is_compared_where_some_are_held_back_and_nowhere_else() -> None:
    ticks: list[Told] = [{OPTED_IN: {1: FAILS}, HELD_BACK: {2: FINE}, FOREIGN: {3: FAILS}}, {}, {}]
    assert counted(run(begun(chosen=()), *ticks)[2]) == []
    held = run(begun(), *ticks)[2]
    assert [one.stratum for one in held.cohorts if one.guardrail == "errors"] == ["early"]
    assert counted(held) == [(1, 1.0, 1, 0.0)]


def test_a_new_step_drops_the_windows_that_are_open_and_counts_everybody_anew() -> None:
    cohorts = begun()
    run(cohorts, {RING: {1: FAILS}}, {})
    cohorts.begin_step(2, 0, ())
    takes = run(cohorts, {RING: {1: FINE}}, {}, {}, first=3)
    assert [counted(one) for one in takes] == [[], [], [(1, 0.0, 0, 0.0)]]
    assert [(one.since, one.round) for one in takes[2].cohorts if one.guardrail == "errors"] == [(2, 2)]
    assert cohorts.arrived == [1, 0]


def test_a_delayed_start_leaves_open_windows_open_and_each_test_counts_a_user_once() -> None:
    cohorts = begun()
    run(cohorts, {RING: {1: FAILS, 2: FINE}}, {})
    cohorts.begin_round(2)
    takes = run(cohorts, {RING: {1: FINE, 3: FINE}}, {RING: {1: FINE}}, {}, {RING: {2: FAILS}}, {}, {}, {}, first=3)
    rows = [(one.since, one.round, one.ring_units, one.ring_outcomes)
            for take in takes for one in take.cohorts if one.guardrail == "errors"]  # fmt: skip
    assert rows == [(1, 1, 2, 1.0), (1, 2, 1, 0.0), (2, 2, 1, 0.0), (2, 2, 1, 1.0)]


def test_users_who_came_before_everybody_was_routed_by_the_step_wait_for_their_turn() -> None:
    cohorts = Cohorts(THREE)
    cohorts.begin_step(1, 3, ())
    takes = run(cohorts, {RING: {1: FAILS}}, {RING: {1: FAILS}}, {RING: {1: FINE}}, {}, {})
    assert [counted(one) for one in takes] == [[], [], [], [], [(1, 0.0, 0, 0.0)]]
    assert takes[0].ring_errors == 1


def test_arrivals_are_the_hashed_once_a_step() -> None:
    cohorts = begun()
    run(cohorts, {RING: {1: FINE}, CONTROL: {2: FINE, 3: FINE}, OPTED_IN: {4: FINE}}, {RING: {1: FINE}})
    cohorts.begin_round(2)
    run(cohorts, {RING: {1: FINE}}, {}, {}, {RING: {1: FINE}}, first=3)
    assert cohorts.arrived == [1, 2]


def test_nobody_new_is_taken_in_beyond_the_bound_and_who_is_known_still_is() -> None:
    cohorts = Cohorts(THREE)
    notes = {digest: Note(1, 1, 1) for digest in range(100, 100 + MOST_USERS - 1)}
    cohorts.resume(2, 2, 0, (), notes, {}, Earlier(), (0, 0), [])
    takes = run(cohorts, {RING: {1: FINE, 2: FAILS}}, {RING: {2: FAILS, 100: FINE}}, {}, {}, first=9)
    assert [counted(take) for take in takes] == [[], [], [(1, 0.0, 0, 0.0)], [(1, 0.0, 0, 0.0)]]
    assert [set(take.notes) for take in takes[:2]] == [{1}, {100}]
    assert takes[0].ring_requests == 2


def test_requests_slices_and_users_hurt_are_of_the_tick() -> None:
    hurt, other = 7 * 10_000, 9 * 10_000
    told = {RING: {hurt: {100: 3, FAILED: 2}, other: FINE}, CONTROL: {3: {90: 4, FAILED: 1}}}
    first, second = run(begun(), told, {RING: {hurt: FAILS, other: FAILS}})
    assert (first.ring_requests, first.ring_errors, first.control_requests, first.control_errors) == (4, 2, 4, 1)
    assert first.failing_slices == 1 << slice_of(hurt)
    assert (first.users_hurt, second.users_hurt) == (1, 1)


def test_slices_are_of_the_control_alone() -> None:
    user = 5 * 10_000
    taken = run(begun(), {RING: {10_000: FAILS}, CONTROL: {user: FAILS}}, {}, {})[2]
    slices = {name: (units, outcomes) for name, units, outcomes in taken.slices}
    units, outcomes = slices["errors"]
    assert (sum(units), units[slice_of(user)]) == (1, 1)
    assert (sum(outcomes), outcomes[slice_of(user)]) == (1.0, 1.0)


# -- latency -----------------------------------------------------------------------------------------------------------


def warm(cohorts: Cohorts) -> None:
    """The control's requests are all in bucket 100, so its edge at p50 is 101."""
    cohorts.earlier = Earlier().after({100: 2 * TAIL})


def test_the_edge_is_chosen_from_earlier_ticks_alone() -> None:
    cohorts = begun()
    cohorts.take(1, {CONTROL: {user: {100: 1} for user in range(2 * TAIL)}, RING: {99: {200: 1}}}, {})
    assert cohorts.edges[1] == {"p50": None}
    cohorts.take(2, {CONTROL: {user: {300: 90} for user in range(2 * TAIL)}}, {})
    assert cohorts.edges[2] == {"p50": 101}
    assert counted(cohorts.take(3, {}, {}), "p50") == []


def test_a_user_is_judged_by_the_edge_of_the_tick_in_which_they_came_first() -> None:
    cohorts = begun()
    warm(cohorts)
    cohorts.take(1, {RING: {1: {102: 1}}, CONTROL: {2: {101: 1}}}, {})
    cohorts.take(2, {CONTROL: {3: {10: 5000}}, RING: {1: {103: 3}}}, {})
    assert counted(cohorts.take(3, {}, {}), "p50") == [(1, 0.75, 1, 1.0)]


def test_what_hangs_counts_as_slow_when_it_is_older_than_the_edge_and_not_before() -> None:
    cohorts = begun()
    warm(cohorts)
    cohorts.take(1, {RING: {1: {100: 1}, 2: {100: 1}}}, {RING: {3: [90]}})
    cohorts.take(2, {}, {RING: {1: [150]}})
    taken = cohorts.take(3, {}, {RING: {1: [200], 2: [102], 3: [103, 250]}})
    assert counted(taken, "p50") == [(3, 1.5, 0, 0.0)]


def test_who_only_hangs_is_a_user_all_the_same() -> None:
    cohorts = begun()
    warm(cohorts)
    takes = [cohorts.take(tick, {}, {RING: {1: [150 + tick]}}) for tick in (1, 2, 3)]
    assert counted(takes[2], "errors") == [(1, 0.0, 0, 0.0)]
    assert counted(takes[2], "p50") == [(1, 1.0, 0, 0.0)]
    assert cohorts.arrived == [1, 0]


# -- whatever comes ----------------------------------------------------------------------------------------------------

digests = st.integers(0, 5).map(lambda number: number * 10_000 + number)
codes = st.dictionaries(st.sampled_from([90, 100, 101, 102, 103]), st.integers(1, 3), min_size=1, max_size=2)
failures = st.dictionaries(st.sampled_from([FAILED, CLIENT_ERROR]), st.just(1), max_size=1)
finished = st.builds(lambda durations, failed: {**durations, **failed}, codes, failures)
arms = st.sampled_from([RING, RING, CONTROL, CONTROL, OPTED_IN, HELD_BACK, FOREIGN])
ticks = st.tuples(
    st.just("tick"),
    st.dictionaries(arms, st.dictionaries(digests, finished, min_size=1, max_size=4), max_size=3),
    st.dictionaries(arms, st.dictionaries(digests, st.lists(st.sampled_from([90, 103, 200]), min_size=1, max_size=2),
                                          min_size=1, max_size=2), max_size=2),
)  # fmt: skip
changes = st.tuples(
    st.sampled_from(["round", "step", "round", "nothing"]), st.integers(0, 2), st.sampled_from([(), ("early",)])
)
stories = st.lists(st.one_of(ticks, ticks, ticks, changes), min_size=4, max_size=24)


@dataclass
class Hands:
    """Users under a story, with all that is kept of them for whoever takes over."""

    cohorts: Cohorts = field(default_factory=begun)
    tick: int = 0
    round: int = 1
    step_round: int = 1
    clean: int = 0
    chosen: tuple[str, ...] = ("early",)
    notes: dict[int, Note] = field(default_factory=dict)
    told: list[tuple[int, Told, Told]] = field(default_factory=list)

    def follow(self, what: Any) -> Taken | None:
        kind, one, two = what
        if kind == "tick":
            self.tick += 1
            taken = self.cohorts.take(self.tick, one, two)
            self.notes |= taken.notes
            self.told.append((self.tick, one, two))
            return taken
        if kind == "round":
            self.round += 1
            self.cohorts.begin_round(self.round)
        elif kind == "step":
            self.round += 1
            self.step_round, self.clean, self.chosen = self.round, self.tick + 1 + one, two
            self.cohorts.begin_step(self.round, self.clean, self.chosen)
        return None

    def taken_over(self) -> Hands:
        edges = json.loads(json.dumps({str(tick): one for tick, one in self.cohorts.edges.items()}))
        made = Cohorts(THREE)
        made.resume(
            self.round, self.step_round, self.clean, self.chosen, self.notes,
            {int(tick): one for tick, one in edges.items()},
            Earlier.from_plain(json.loads(json.dumps(self.cohorts.earlier.to_plain()))),
            (self.cohorts.arrived[0], self.cohorts.arrived[1]), self.told[-3:],
        )  # fmt: skip
        return replace(self, cohorts=made, notes=dict(self.notes), told=list(self.told))


def take_over(story: list[Any], cut: int) -> None:
    one = Hands()
    for what in story[:cut]:
        one.follow(what)
    other = one.taken_over()
    for what in [*story[cut:], *[("tick", {}, {})] * 3]:
        mine, theirs = one.follow(what), other.follow(what)
        if mine is not None and theirs is not None:
            assert replace(theirs, users_hurt=0) == replace(mine, users_hurt=0)
    assert other.cohorts.arrived == one.cohorts.arrived
    assert other.cohorts.edges == one.cohorts.edges


@settings(max_examples=200)
@given(stories, st.integers(0, 24))
def test_who_takes_over_goes_on_as_if_nothing_had_happened(story: list[Any], cut: int) -> None:
    take_over(story, cut)


@pytest.mark.slow
@settings(max_examples=3000)
@given(stories, st.integers(0, 24))
def test_who_takes_over_goes_on_whatever_the_story(story: list[Any], cut: int) -> None:
    take_over(story, cut)


@dataclass
class Window:
    """Of the naive model."""

    user: int
    first: int
    arm: tuple[str, bool]
    copies: list[int]
    is_mixed: bool = False
    counts: Counter[int] = field(default_factory=Counter)


@dataclass
class Naive:
    """Whole sets: for every test that ever began, all users whom it has met."""

    met: dict[int, set[int]] = field(default_factory=lambda: {1: set()})
    open: dict[int, Window] = field(default_factory=dict)
    totals: dict[tuple[str, str, int], list[float]] = field(default_factory=dict)
    histograms: list[Counter[int]] = field(default_factory=list)

    def follow(self, hands: Hands, what: Any) -> None:
        kind, users, pending = what
        if kind in ("round", "step"):
            self.met[hands.round] = set()
            if kind == "step":
                self.open.clear()
        if kind != "tick":
            return
        for arm, user, counts in [*_comparable(hands, users), *_comparable(hands, pending)]:
            if user not in self.open and user not in self.met[hands.round] and hands.tick >= hands.clean:
                copies = [copy for copy, met in self.met.items() if user not in met]
                for copy in copies:
                    self.met[copy].add(user)
                self.open[user] = Window(user, hands.tick, arm, copies)
            if user in self.open:
                one = self.open[user]
                one.is_mixed |= one.arm != arm
                one.counts.update(counts if isinstance(counts, Mapping) else {})
        ages = {user: ages for _, user, ages in _comparable(hands, pending)}
        for one in [one for one in self.open.values() if one.first + 2 == hands.tick]:
            del self.open[one.user]
            if not one.is_mixed:
                self._count(one, ages.get(one.user, []))
        control = Counter[int]()
        for arm, _, counts in _comparable(hands, users):
            if not arm[1]:
                control.update({code: count for code, count in counts.items() if code < FAILED})
        self.histograms.append(control)

    def _count(self, one: Window, ages: list[int]) -> None:
        outcomes: dict[str, float] = {
            "errors": float(one.counts[FAILED] > 0), "http_4xx": float(one.counts[CLIENT_ERROR] > 0)
        }  # fmt: skip
        earlier = Earlier()
        for histogram in self.histograms[: one.first - 1]:
            earlier = earlier.after(histogram)
        edge = earlier.edge(0.5, 2)
        if edge is not None:
            edge += 2 if one.arm[1] else 0
            requests = [code for code in one.counts.elements() if code < FAILED]
            slow = [code for code in (*requests, *ages) if code >= edge]
            whole = len(requests) + sum(age >= edge for age in ages)
            if whole:
                outcomes["p50"] = len(slow) / whole
        for copy in one.copies:
            for name, outcome in outcomes.items():
                total = self.totals.setdefault((name, one.arm[0], copy), [0, 0.0, 0, 0.0])
                at = 0 if one.arm[1] else 2
                total[at] += 1
                total[at + 1] += outcome


def _comparable(hands: Hands, told: Told) -> list[tuple[tuple[str, bool], int, Any]]:
    return [
        (("hash" if kind == "hash" else ring, version == "v2"), user, figures)
        for (ring, version, kind), users in told.items()
        if version in ("v1", "v2") and (kind == "hash" or ring in hands.chosen)
        for user, figures in users.items()
    ]


def compare(story: list[Any]) -> None:
    hands, naive = Hands(), Naive()
    rows: list[Any] = []
    for what in [*story, *[("tick", {}, {})] * 3]:
        taken = hands.follow(what)
        naive.follow(hands, what)
        rows += taken.cohorts if taken is not None else ()
    found: dict[tuple[str, str, int], list[float]] = {}
    for row in rows:
        for copy in range(row.since, row.round + 1):
            key = (row.guardrail, row.stratum, copy)
            figures = (row.ring_units, row.ring_outcomes, row.control_units, row.control_outcomes)
            found[key] = [known + more for known, more in zip(found.get(key, [0.0] * 4), figures, strict=True)]
    assert found.keys() == naive.totals.keys()
    for key, total in found.items():
        assert total == pytest.approx(naive.totals[key], abs=1e-6)


@settings(max_examples=200)
@given(stories)
def test_every_test_counts_each_user_once_since_its_own_start(story: list[Any]) -> None:
    compare(story)


@pytest.mark.slow
@settings(max_examples=3000)
@given(stories)
def test_every_test_counts_each_user_once_whatever_the_story(story: list[Any]) -> None:
    compare(story)

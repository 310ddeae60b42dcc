"""Whom a worker tells control of: everybody whom the hash sorted, and nobody again before it is time."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from router.core.hashing import fingerprint
from router.core.snapshot import Snapshot
from router.proxy.sightings import MOST_SEEN, TOLD_AGAIN, Sightings
from tests.house import shop, snapshot


def noted(*services: str, generation: int = 1) -> Snapshot:
    made = (shop((1,), (2,), name=name, hosts=(name,), salt="same") for name in services)
    return Snapshot(snapshot(*made, generation=generation))


@given(
    st.lists(
        st.one_of(
            st.tuples(st.integers(0, 1), st.integers(0, 2), st.integers(0, 40)),
            st.sampled_from(["report", "whole report", "new snapshot"]),
        ),
        max_size=80,
    ),
)
def test_whoever_was_seen_was_told_of_since_the_last_time_that_everybody_was_forgotten(steps: list[Any]) -> None:
    """Against a table that keeps everything: control knows the outermost place of each, in every generation."""
    notes = Sightings()
    notes.begin(noted("a", "b"))
    generation, was_seen, was_told = 1, {}, {}
    for step in [*steps, "report"]:
        if step == "new snapshot":
            generation += 1
            notes.begin(noted("a", "b", generation=generation))
        elif isinstance(step, str):
            for seen in notes.take(whole=step == "whole report"):
                for name, users in seen.users.items():
                    for digest, place in users.items():
                        key = (seen.generation, name, digest)
                        was_told[key] = max(place, was_told.get(key, 0))
            seen_lately = {key: place for key, place in was_seen.items() if key[0] > generation - 4}
            assert {key: place for key, place in was_told.items() if key in seen_lately} == seen_lately
            if step == "whole report":
                was_seen, was_told = {}, {}
        else:
            number, place, digest = step
            digest = digest % 4 + (digest // 4 << 15)  # many of them have a place beside one another in the table
            notes.saw(number, place, digest)
            key = (generation, "ab"[number], digest)
            was_seen[key] = max(place, was_seen.get(key, 0))


def test_who_was_told_of_is_told_of_again_when_it_is_time_and_not_before() -> None:
    notes = Sightings()
    notes.begin(noted("a"))
    users = {fingerprint(b"user-%d" % number): number % 3 for number in range(5000)}
    reports = []
    for _ in range(1 + 2 * TOLD_AGAIN):
        for digest, place in users.items():
            notes.saw(0, place, digest)
        reports.append([one.users["a"] for one in notes.take()])
    assert reports[0] == [users]
    later = [one[0] if one else {} for one in reports[1:]]
    for turn in (later[:TOLD_AGAIN], later[TOLD_AGAIN:]):
        assert {digest: place for one in turn for digest, place in one.items()} == users
    assert max(map(len, later)) < len(users) / 10  # a sixtieth of them, and who finds no place in the table


def test_no_more_users_are_told_of_at_once_than_may_be_and_the_others_follow() -> None:
    notes = Sightings()
    notes.begin(noted("a"))
    reports = []
    for _ in range(3):
        for digest in range(MOST_SEEN + 1000):
            notes.saw(0, 0, digest * 2)
        reports.append([set(one.users["a"]) for one in notes.take()])
    assert len(reports[0][0]) == MOST_SEEN
    assert set().union(*(one for report in reports for one in report)) == {2 * one for one in range(MOST_SEEN + 1000)}

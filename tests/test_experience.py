"""Buckets and epochs: what counts for a comparison, and what does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from router.core.spec import EndpointSpec, RingSpec, ServiceSpec, SnapshotSpec, VersionSpec
from router.process.experience import Experience
from router.rollout.view import Verdict, table
from router.telemetry.buckets import BUCKET_SECONDS, Piece, Pieces, bucket_of
from router.telemetry.counters import RingKey
from router.telemetry.meters import histogram_index

START = 1_764_000_000.0
"""The begin of a bucket."""


def service(canary: int = 1000, version: str = "v2", killed: tuple[str, ...] = ()) -> ServiceSpec:
    return ServiceSpec(
        "shop",
        (VersionSpec("v1", (EndpointSpec("h", 1),)), VersionSpec("v2", (EndpointSpec("h", 2),))),
        (RingSpec("canary", version, canary), RingSpec("everyone", "v1", 0)),
        killed=killed,
    )


class World:
    """A clock, workers that report, users who arrive, and another instance."""

    def __init__(self) -> None:
        self.now = START
        self.came: dict[RingKey, Piece] = {}
        self.users = [0, 0]
        self.others: dict[int, dict[str, Pieces]] = {}
        self.is_there = True
        self.lag_seconds = 4.0
        self.generation = 0
        self.seen = Experience(self.take, lambda _: self.users, lambda: self.now)
        self.seen.fleet = self

    def take(self) -> Mapping[RingKey, Piece]:
        came, self.came = self.came, {}
        return came

    def peers(self, bucket: int, service: str) -> dict[str, Pieces]:
        return self.others.get(bucket, {})

    def route(self, spec: ServiceSpec) -> None:
        self.generation += 1
        self.seen.installed(SnapshotSpec(self.generation, (spec,)))

    def live(self, seconds: int, rates: Mapping[tuple[str, str], tuple[int, int]]) -> None:
        """Seconds go by, in each of them so many requests, and so many errors, per ring and version."""
        for _ in range(seconds):
            for (ring, version), (ok, errors) in rates.items():
                piece = Piece({200: ok, 503: errors}, {"hash": ok + errors}, {histogram_index(10_000): ok + errors})
                self.came["shop", ring, version] = piece
            self.now += 1
            self.seen.second()

    def row(self, ring: str) -> Any:
        epoch = self.seen.epoch("shop")
        assert epoch is not None
        rings = self.seen.rings("shop", {})
        return next(row for row in table(epoch, (), rings, 60.0) if row.ring == ring)

    def compared(self) -> tuple[int, int]:
        epoch = self.seen.epoch("shop")
        assert epoch is not None
        (comparison,) = epoch.comparisons.values()
        return comparison.ring_counts.requests, comparison.ring_counts.errors


GOOD = {("canary", "v2"): (10, 0), ("everyone", "v1"): (90, 0)}
BAD = {("canary", "v2"): (5, 5), ("everyone", "v1"): (90, 0)}


def test_harm_is_proven_and_a_change_of_weights_begins_anew() -> None:
    world = World()
    world.route(service())
    world.live(60, BAD)
    assert world.seen.epoch("shop").comparisons["canary", "v2"].breached == ("errors",)  # type: ignore[union-attr]
    world.route(service(canary=2000))
    world.live(3 * BUCKET_SECONDS, GOOD)
    assert world.seen.epoch("shop").comparisons["canary", "v2"].breached == ()  # type: ignore[union-attr]
    requests, errors = world.compared()
    assert requests > 0
    assert errors == 0, "what was before the change counts for nothing after it"


def test_a_bucket_in_which_something_changed_counts_for_neither() -> None:
    world = World()
    world.route(service())
    world.live(5 * BUCKET_SECONDS + 5, GOOD)
    world.route(service(version="v1"))
    mixed = {("canary", "v2"): (0, 10), ("canary", "v1"): (0, 10), ("everyone", "v1"): (90, 0)}
    world.live(5, mixed)
    world.live(3 * BUCKET_SECONDS, {("canary", "v1"): (10, 0), ("everyone", "v1"): (90, 0)})
    requests, errors = world.compared()
    assert (requests % (10 * BUCKET_SECONDS), errors) == (0, 0)


def test_the_others_count_as_well_and_while_they_cannot_be_heard_they_do_not() -> None:
    world = World()
    world.route(service())
    world.live(4 * BUCKET_SECONDS + 5, GOOD)
    bucket = bucket_of(world.now)
    theirs = {("canary", "v2"): Piece({200: 1000}, {"hash": 1000}, {100: 1000})}
    world.others[bucket] = {"other": theirs}
    pieces, _, instances = world.seen.window("shop", everybody=True)
    assert (pieces["canary", "v2"].requests, instances) == (450 + 1000, 2)
    pieces, _, instances = world.seen.window("shop", everybody=False)
    assert (pieces["canary", "v2"].requests, instances) == (450, 1)
    before, _ = world.compared()
    world.live(2 * BUCKET_SECONDS, GOOD)
    after, _ = world.compared()
    assert after - before == 1000 + 2 * 10 * BUCKET_SECONDS


def test_a_killed_rings_part_of_the_hash_space_is_the_next_ones() -> None:
    world = World()
    world.route(service(killed=("canary",)))
    assert [ring.target for ring in world.seen.rings("shop", {})] == [0, 10_000]
    world.route(service())
    assert [ring.target for ring in world.seen.rings("shop", {})] == [1000, 9000]


def test_nobody_asked_is_no_traffic_and_not_a_good_ring() -> None:
    world = World()
    world.route(service())
    world.live(6 * BUCKET_SECONDS, {("everyone", "v1"): (90, 0)})
    assert world.row("canary").verdict == Verdict.NO_TRAFFIC
    assert world.row("canary").success is None
    assert world.row("canary").error_difference is None


def test_users_who_do_not_come_in_their_shares_are_noticed() -> None:
    world = World()
    world.route(service())
    world.live(2 * BUCKET_SECONDS, GOOD)
    for _ in range(30):
        world.users = [world.users[0] + 20, world.users[1] + 480]  # 4 % where 10 % are asked for
        world.live(BUCKET_SECONDS, GOOD)
    assert world.row("canary").mismatch_p < 0.001
    right = World()
    right.route(replace(service(), name="shop"))
    right.live(2 * BUCKET_SECONDS, GOOD)
    for _ in range(30):
        right.users = [right.users[0] + 50, right.users[1] + 450]
        right.live(BUCKET_SECONDS, GOOD)
    assert right.row("canary").mismatch_p > 0.1

"""Envoy's figures as they are read: nothing twice, nothing lost, whoever is restarted."""

from __future__ import annotations

import msgspec

from router.envoy.access_log import parsed_lane, parsed_line
from router.envoy.books import Books
from router.envoy.forward import end_of
from router.envoy.stats import Reading, is_restarted, news
from tests.house import shop, snapshot

LANE = "shop/canary/v2//v2//shop/hash//200//-"


def reading(began_at: float, requests: int) -> Reading:
    return Reading(began_at, {LANE: {650: requests}}, numbers={"server.uptime": 1})


def test_what_came_between_two_looks_is_the_difference() -> None:
    assert news(reading(100, 7), reading(100, 5)).durations == {LANE: {650: 2}}
    assert news(reading(101.9, 5), reading(100, 5)).durations == {}


def test_another_envoy_is_counted_from_its_start() -> None:
    assert is_restarted(reading(100, 3), reading(100, 5))
    assert news(reading(100, 3), reading(100, 5)).durations == {LANE: {650: 3}}
    assert news(reading(200, 9), reading(100, 5)).durations == {LANE: {650: 9}}


def test_an_envoy_that_an_answer_was_late_of_is_the_same() -> None:
    assert not is_restarted(reading(103.5, 6), reading(100, 5))


def test_an_envoy_that_begins_after_the_router_is_another_than_nobody() -> None:
    assert is_restarted(reading(100.5, 1), Reading(100))
    assert not is_restarted(reading(99, 1), Reading(100))


def test_a_lane_says_what_became_of_a_request() -> None:
    lane = parsed_lane("shop/canary/v2//v1//shop/hash//503//UF,URX")
    assert lane is not None
    assert (lane.ring, lane.target, lane.version, lane.status) == ("canary", "v2", "v1", 503)
    assert lane.flags == ("UF", "URX")
    assert lane.is_outward
    assert parsed_lane("something else") is None
    line = parsed_line(f"7//-//12//{LANE}")
    assert line is not None
    assert (line.generation, line.micros) == (7, 12_000)


def test_a_client_that_left_is_a_499_of_its_ring() -> None:
    books = Books()
    books.installed(snapshot(shop((1,), (2,))))
    left = "shop/everyone/v1//v1//shop/hash//0//DC"
    books.add(news(Reading(1, flagged={left: 2}, numbers={"server.uptime": 1}), Reading(0)), {})
    ring = books.report(0, whole=False).rings["shop", "everyone", "v1"]
    assert (ring.codes, ring.client_aborts, ring.reasons) == ({499: 2}, 2, {"default": 2})


def test_a_message_ends_where_messagepack_says_at_every_cut() -> None:
    message = msgspec.msgpack.encode(
        ["users", [[1.5, {"l": "x" * 300, "n": None, "deep": [1, -1, 2**40, b"b", True]}]]]
    )
    assert end_of(message + b"\x93") == len(message)
    assert all(end_of(message[:cut]) == -1 for cut in range(len(message)))

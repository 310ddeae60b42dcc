"""When the calendar of those who would have to get up forbids to go on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.rollout.plan import DAYS, Window
from router.rollout.windows import closed

BERLIN = "Europe/Berlin"


def at(text: str, zone: str = "UTC", fold: int = 0) -> float:
    """``2026-03-06 16:00`` (a Friday), as the clocks of a zone show it; ``fold`` 1: the second time."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


def hours(begin: int, end: int = 24, **more: Any) -> Window:
    return Window(more.pop("days", ("fri",)), begin * 60, end * 60, **more)


@pytest.mark.parametrize(
    ("window", "moment", "is_closed"),
    [
        (hours(16), "2026-03-06 15:59:59", False),
        (hours(16), "2026-03-06 16:00", True),
        (hours(16), "2026-03-06 23:59:59", True),
        (hours(16), "2026-03-07 00:00", False),
        (hours(16), "2026-03-05 17:00", False),
        (hours(0), "2026-03-06 00:00", True),
        (hours(9, 17), "2026-03-06 16:59:59", True),
        (hours(9, 17), "2026-03-06 17:00", False),
        # over midnight: what began on Friday ends on Saturday
        (hours(22, 6), "2026-03-06 05:00", False),
        (hours(22, 6), "2026-03-06 22:00", True),
        (hours(22, 6), "2026-03-07 05:59:59", True),
        (hours(22, 6), "2026-03-07 06:00", False),
        (hours(22, 6), "2026-03-07 22:00", False),
        (hours(22, 6, days=("sun",)), "2026-03-09 05:00", True),
        # the same hour twice: a whole day of it
        (hours(12, 12), "2026-03-06 11:59:59", False),
        (hours(12, 12), "2026-03-07 11:59:59", True),
        (hours(12, 12), "2026-03-07 12:00", False),
    ],
)
def test_a_window_is_closed_from_its_first_minute_until_before_its_last(
    window: Window, moment: str, is_closed: bool
) -> None:
    assert bool(closed([window], at(moment), "expand")) is is_closed


@pytest.mark.parametrize(
    ("moment", "is_closed"), [("14:59", False), ("15:00", True), ("22:59", True), ("23:00", False)]
)
def test_the_clock_is_the_one_of_the_windows_zone(moment: str, is_closed: bool) -> None:
    window = hours(16, timezone=BERLIN)
    assert bool(closed([window], at(f"2026-03-06 {moment}"), "expand")) is is_closed


def test_in_summer_the_same_hour_comes_earlier() -> None:
    window = hours(16, timezone=BERLIN)
    assert closed([window], at("2026-07-03 14:00"), "expand")
    assert not closed([window], at("2026-07-03 13:59"), "expand")


@pytest.mark.parametrize("fold", [0, 1])
def test_an_hour_that_comes_twice_is_closed_both_times(fold: int) -> None:
    window = hours(2, 3, days=("sun",), timezone=BERLIN)
    assert closed([window], at("2026-10-25 02:30", BERLIN, fold), "expand")
    assert not closed([window], at("2026-10-25 03:00", BERLIN), "expand")


def test_a_night_in_which_an_hour_is_left_out_is_closed_until_its_end() -> None:
    window = hours(22, 6, days=("sat",), timezone=BERLIN)
    begin = at("2026-03-28 22:00", BERLIN)
    assert [bool(closed([window], begin + 3600 * hour, "start")) for hour in (-1, 0, 4, 6, 7)] == [
        False, True, True, True, False,
    ]  # fmt: skip


def test_a_window_forbids_only_what_it_applies_to() -> None:
    window = hours(0, applies=("start",))
    assert closed([window], at("2026-03-06 10:00"), "start")
    assert not closed([window], at("2026-03-06 10:00"), "expand")


def test_of_several_windows_the_one_that_holds_is_named() -> None:
    windows = [hours(0, days=("mon",)), hours(16, timezone=BERLIN, days=("fri", "sat"))]
    assert closed(windows, at("2026-03-06 18:00"), "start") == (
        "closed by a window: fri, sat 16:00 to 24:00 Europe/Berlin"
    )
    assert closed([], at("2026-03-06 18:00"), "start") == ""


minutes = st.integers(0, 24 * 60 - 1)
zones = st.sampled_from(["UTC", BERLIN, "Asia/Kathmandu", "America/St_Johns", "Pacific/Auckland"])


@given(
    st.sets(st.sampled_from(DAYS)), minutes, st.integers(0, 24 * 60), zones,
    st.integers(int(at("2026-01-01 00:00")), int(at("2027-01-01 00:00"))),
)  # fmt: skip
def test_a_window_holds_when_one_of_its_days_began_it_and_it_is_not_over(
    days: set[Any], begin: int, end: int, zone: str, moment: int
) -> None:
    """By the clocks on the wall: every span of the year as it is written in a calendar, and the moment beside it."""
    wall = datetime.fromtimestamp(moment, UTC).astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    holds = False
    for back in (0, 1):
        midnight = datetime(wall.year, wall.month, wall.day) - timedelta(days=back)
        if DAYS[midnight.weekday()] in days:
            first = midnight + timedelta(minutes=begin)
            last = midnight + timedelta(minutes=end if end > begin else end + 24 * 60)
            holds |= first <= wall < last
    window = Window(tuple(days), begin, end, zone)
    assert bool(closed([window], moment, "expand")) is holds

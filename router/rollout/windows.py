"""When a rollout must not start or go on, by the calendar of those who would have to get up."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from router.rollout.plan import DAYS, Applies, Window

DAY_MINUTES: Final = 24 * 60


def closed(windows: Sequence[Window], at: float, applies: Applies) -> str:
    """The window that forbids it at this moment (Unix time), as a sentence; empty: none does."""
    for window in windows:
        if applies in window.applies and _holds(window, datetime.fromtimestamp(at, ZoneInfo(window.timezone))):
            days = ", ".join(window.days)
            return f"closed by a window: {days} {_clock(window.begin)} to {_clock(window.end)} {window.timezone}"
    return ""


def _holds(window: Window, now: datetime) -> bool:
    """A window that ends at or before it begins goes on into the next day."""
    minute = now.hour * 60 + now.minute
    if window.begin < window.end:
        return _day(now) in window.days and window.begin <= minute < window.end
    is_evening = _day(now) in window.days and minute >= window.begin
    return is_evening or (_day(now - timedelta(days=1)) in window.days and minute < window.end)


def _day(now: datetime) -> str:
    return DAYS[now.weekday()]


def _clock(minute: int) -> str:
    hour, rest = divmod(minute % DAY_MINUTES if minute != DAY_MINUTES else DAY_MINUTES, 60)
    return f"{hour:02}:{rest:02}"

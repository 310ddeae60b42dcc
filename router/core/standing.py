"""How an endpoint stands in one worker, by what this worker's own requests met there. A table; pure.

Active checks and drains are control's and come with the snapshot; they are no states here. What is not WELL or WARMING
gets no requests while a sibling can take them.
"""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import Final


class Standing(StrEnum):
    """The value is the word that people read."""

    WELL = "up"
    UNREACHABLE = "unreachable"
    """A connection could not be made; a background connection, not a user, finds out when that is over."""
    EJECTED = "ejected"
    """It answered badly; left alone for a time that grows."""
    WARMING = "slow start"
    """It came back, and grows into its full share."""


class Event(Enum):
    """What happens to an endpoint."""

    CONNECT_FAILED = "connect failed"
    CONNECTED = "connected"
    OUTLIER = "outlier"
    TIME_OVER = "time over"
    RECOVERED = "recovered"
    """Active checks pass again, or a drain is over."""


TRANSITIONS: Final[dict[tuple[Standing, Event], Standing]] = {
    (Standing.WELL, Event.CONNECT_FAILED): Standing.UNREACHABLE,
    (Standing.WELL, Event.CONNECTED): Standing.WELL,
    (Standing.WELL, Event.OUTLIER): Standing.EJECTED,
    (Standing.WELL, Event.TIME_OVER): Standing.WELL,
    (Standing.UNREACHABLE, Event.CONNECT_FAILED): Standing.UNREACHABLE,
    (Standing.UNREACHABLE, Event.CONNECTED): Standing.WARMING,
    (Standing.UNREACHABLE, Event.OUTLIER): Standing.UNREACHABLE,
    (Standing.UNREACHABLE, Event.TIME_OVER): Standing.UNREACHABLE,
    (Standing.EJECTED, Event.CONNECT_FAILED): Standing.UNREACHABLE,
    (Standing.EJECTED, Event.CONNECTED): Standing.EJECTED,
    (Standing.EJECTED, Event.OUTLIER): Standing.EJECTED,
    (Standing.EJECTED, Event.TIME_OVER): Standing.WARMING,
    (Standing.WARMING, Event.CONNECT_FAILED): Standing.UNREACHABLE,
    (Standing.WARMING, Event.CONNECTED): Standing.WARMING,
    (Standing.WARMING, Event.OUTLIER): Standing.EJECTED,
    (Standing.WARMING, Event.TIME_OVER): Standing.WELL,
    (Standing.WELL, Event.RECOVERED): Standing.WARMING,
    (Standing.UNREACHABLE, Event.RECOVERED): Standing.UNREACHABLE,
    (Standing.EJECTED, Event.RECOVERED): Standing.EJECTED,
    (Standing.WARMING, Event.RECOVERED): Standing.WARMING,
}
"""Total: a test proves it."""

USABLE: Final = frozenset({Standing.WELL, Standing.WARMING})

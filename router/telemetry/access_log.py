"""The access log: one line per request, made in batches and handed to a sink, never in the request's way.

A line is some thirteen references to bytes that exist already: what a millisecond, a client, a request line, a decision
and an endpoint add, and numbers out of tables. The event loop notes them, and joins a batch at a time.
"""

from __future__ import annotations

import time
from hashlib import blake2b
from random import Random
from typing import Final

from router.core.records import AccessLogSpec
from router.telemetry.log_forms import Asked, Decided, form_of, quoted
from router.telemetry.log_sink import Sink

BATCH_LINES: Final = 64
"""Lines that are joined and handed over at once."""
FLUSH_SECONDS: Final = 0.2
"""How long a line that no batch takes along waits."""
IDENTITY_BYTES: Final = 8
KNOWN_USERS: Final = 4096
LONGEST_KNOWN: Final = 128
"""Bytes of a key: keys come from strangers."""

_THREE: Final = [b"%03d" % number for number in range(1000)]
_SMALL: Final = [b"%d" % number for number in range(10_000)]
"""What most numbers of a line look like: a look-up takes a fifth of the time of printing one."""
_USUAL: Final = b',"request_bytes":0,"duration":0.'
"""What JSON says of a request without a body that took less than a second."""
_NOBODY: Final = b" - -"


class AccessLog:
    """``add`` and ``flush`` belong to the event loop, which calls ``flush`` every ``FLUSH_SECONDS``.

    Which lines are written is drawn by status class; a 2xx or 3xx that was broken off counts as 5xx.
    """

    __slots__ = (
        "_at", "_chance", "_due", "_end", "_form", "_hash", "_is_json", "_is_picky", "_known", "_lines", "_offset",
        "_parts", "_rates", "_stamp", "_status", "_takes_usual", "_who", "sink", "spec",
    )  # fmt: skip

    def __init__(self, spec: AccessLogSpec, sink: Sink) -> None:
        self.spec = spec
        self.sink = sink
        self._form = form_of(spec.format)
        self._is_json = self._form.is_json
        self._takes_usual = spec.format == "json"
        self._status = self._form.status
        self._end = self._form.end
        self._who = _NOBODY
        self._rates = [1.0, *(spec.rates or (1.0,) * 5)]
        self._chance = Random().random
        self._hash = blake2b(key=spec.identity_key, digest_size=IDENTITY_BYTES) if spec.identity_key else None
        self._known: dict[bytes, bytes] = {}
        """User → hash."""
        self._is_picky = bool(spec.rates or spec.identity_key)
        self._offset = time.time() - time.monotonic()
        self._at = 0
        self._due = 0.0
        self._stamp = b""
        self._parts: list[bytes] = []
        self._lines = 0

    def add(
        self, now: float, client: bytes, start: Asked, status: int, sent: int, received: int, duration: float,
        lane: Decided, address: bytes, request_id: bytes, flags: bytes, key: bytes | None,
    ) -> None:  # fmt: skip
        """Note a request that ended ``now``, on the monotonic clock; called on the request's way.

        ``address`` is the endpoint's. ``flags`` say how it ended, empty where that was as it should. ``key`` is its
        user's, if there is one.
        """
        end = self._end
        if flags or self._is_picky:
            end = self._last(status, flags, key)
            if not end:
                return
        millis = int(1000.0 * (now + self._offset))
        if millis != self._at:
            self._turn(now, millis)
        form = self._form
        asked = start.logged if start.logged_as is form else start.render(form)
        decided = lane.logged if lane.logged_as is form else lane.render(form)
        bytes_sent = _SMALL[sent] if sent < 10_000 else b"%d" % sent
        if self._is_json:
            if not request_id.isalnum():
                request_id = quoted(request_id)[1:-1]
            micros = int(duration * 1e6)
            if not received and micros < 1_000_000 and self._takes_usual:
                self._parts += (
                    self._stamp, client, asked, self._status[status], bytes_sent, _USUAL,
                    _THREE[micros // 1000], _THREE[micros % 1000], decided, address, b'","request_id":"',
                    request_id, end,
                )  # fmt: skip
            else:
                named = b'","request_id":"' if self._takes_usual else b'","http.request.id":"'
                self._parts += (
                    self._stamp, client, asked, self._status[status], bytes_sent, form.middle(received, micros),
                    decided, address, named, request_id, end,
                )  # fmt: skip
        else:
            self._parts += (client, self._who, self._stamp, asked, self._status[status], bytes_sent, decided, end)
        self._lines += 1
        if self._lines >= BATCH_LINES:
            self._hand_over()

    def _last(self, status: int, flags: bytes, key: bytes | None) -> bytes:
        """The end of a line; empty if none is to be written."""
        rate = self._rates[5 if flags and status < 400 else status // 100]
        if rate < 1.0 and self._chance() >= rate:
            return b""
        if not flags and rate == 1.0 and self._hash is None:
            return self._end
        identity = b""
        if self._hash is not None:
            self._who = _NOBODY
            if key is not None:
                identity = self._known.get(key, b"") or self._identity(key)
                self._who = b" - " + identity
        return self._form.last(flags or b"-", rate, identity)

    def _identity(self, key: bytes) -> bytes:
        """A user's hash, which is kept: users come again."""
        if self._hash is None:
            return b""
        hashed = self._hash.copy()
        hashed.update(key)
        found = hashed.hexdigest().encode()
        if len(key) <= LONGEST_KNOWN:
            if len(self._known) >= KNOWN_USERS:
                self._known.clear()
            self._known[key] = found
        return found

    def _turn(self, now: float, millis: int) -> None:
        """What all lines of a millisecond share. Once in a second the clock on the wall is looked at."""
        if now >= self._due:
            self._due = now + 1.0
            self._offset = time.time() - time.monotonic()
        self._at = millis
        self._stamp = self._form.time(millis)

    def _hand_over(self) -> None:
        if self._lines:
            self.sink.offer(self._parts, self._lines)
            self._parts.clear()
            self._lines = 0

    def flush(self) -> None:
        """Have everything written that was noted."""
        self._hand_over()
        self.sink.push()

    def close(self) -> None:
        """No further lines; those noted so far are written."""
        self.flush()
        self.sink.close()

    def stop(self) -> None:
        """Close, and wait until they are written, or cannot be. Not on a loop that serves."""
        self.flush()
        self.sink.stop()

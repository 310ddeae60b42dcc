"""What may go wrong with a request to the API: one code each, one status each, one shape for all (RFC 9457)."""

from __future__ import annotations

from typing import Any, Final, Literal

Code = Literal[
    "malformed", "refused", "no_token", "bad_token", "wrong_role", "csrf", "origin", "not_found", "method", "stale",
    "not_now", "too_slow", "too_large", "not_json", "wrong_host", "too_many_failures", "redis_away", "busy",
    "not_available",
]  # fmt: skip

CODES: Final[dict[Code, tuple[int, str]]] = {
    "malformed": (400, "This cannot be understood"),
    "refused": (400, "This change is refused"),
    "no_token": (401, "A token is needed"),
    "bad_token": (401, "This is nobody's token"),
    "wrong_role": (403, "This role may not do that"),
    "csrf": (403, "The CSRF token is missing or wrong"),
    "origin": (403, "This comes from another site"),
    "not_found": (404, "There is no such thing"),
    "method": (405, "Another method"),
    "too_slow": (408, "The body did not come"),
    "stale": (409, "Somebody was faster"),
    "not_now": (409, "This cannot be done now"),
    "too_large": (413, "The body is too large"),
    "not_json": (415, "The body is not JSON"),
    "wrong_host": (421, "This host is not served here"),
    "too_many_failures": (429, "Too many failed attempts"),
    "redis_away": (503, "Redis is away"),
    "busy": (503, "Too many are listening"),
    "not_available": (503, "This is not there"),
}
"""Code → status and title."""


class Trouble(Exception):
    """A request that is not answered as it was meant. ``detail`` is a sentence with the remedy.

    ``current`` goes with ``stale`` and ``not_now``; ``retry_after`` in seconds.
    """

    def __init__(
        self, code: Code, detail: str, *, current: dict[str, Any] | None = None, retry_after: int | None = None
    ) -> None:
        super().__init__(detail)
        self.code: Code = code
        self.detail = detail
        self.current = current
        self.retry_after = retry_after

    @property
    def status(self) -> int:
        return CODES[self.code][0]

    def body(self) -> dict[str, Any]:
        """``application/problem+json``."""
        status, title = CODES[self.code]
        said: dict[str, Any] = {"status": status, "title": title, "detail": self.detail, "code": self.code}
        return said if self.current is None else {**said, "current": self.current}

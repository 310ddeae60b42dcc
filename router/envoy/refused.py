"""What is said where Envoy cannot do as the router does."""

from __future__ import annotations

from typing import NamedTuple


class Refusal(NamedTuple):
    """``place`` is that in the config: ``services.shop.rings.canary``."""

    place: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}; {self.remedy}"


class CannotSayError(ValueError):
    """A condition that no Envoy route can ask for: the reason, and what to do instead."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(f"{reason}; {remedy}")
        self.reason = reason
        self.remedy = remedy

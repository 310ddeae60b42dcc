"""Who is told what a rollout does: webhooks, as JSON (in the manner of Flagger's) or as a text for Slack.

Each address has a queue of its own and gets its events in order; one that does not answer is asked again for five
minutes, then its event is dropped. Whoever says something never waits. What is dropped is counted, and logged once,
until something arrives again. It must never log more of an address than its host: the rest may be a secret.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import structlog

from router.control.check import words
from router.rollout.plan import Notify, Plan
from router.rollout.progress import Event
from router.telemetry.tasks import end, spawn

MOST_WAITING: Final = 100
"""Events for one address."""
GIVE_UP_SECONDS: Final = 300.0
RETRY_SECONDS: Final = 1.0
RETRY_CAP_SECONDS: Final = 60.0
SEND_SECONDS: Final = 5.0
FAREWELL_SECONDS: Final = 1.0
_MAY_BE_BETTER: Final = (408, 425, 429)
"""Statuses below 500 after which the same may be taken later."""
_WARNINGS: Final = ("paused", "rolling_back", "rolled_back", "rollback_stalled", "superseded", "aborted")
_NO_TIMEOUT: Final = aiohttp.ClientTimeout(total=None)


def as_json(plan: Plan, event: Event) -> dict[str, Any]:
    """An event for machines. ``timestamp`` is Unix time in milliseconds."""
    return {
        "service": plan.service,
        "phase": event.after,
        "eventType": "Warning" if event.after in _WARNINGS else "Normal",
        "eventMessage": event.sentence,
        "timestamp": round(event.at * 1000),
        "metadata": {
            "candidate": plan.candidate,
            "stable": plan.stable,
            "mode": plan.mode,
            "kind": event.kind,
            "before": event.before,
            "tick": event.tick,
            "actor": event.actor,
            "reason": event.reason,
        },
    }


def as_slack(plan: Plan, event: Event) -> dict[str, Any]:
    """An event for people in a channel; ``&``, ``<`` and ``>`` are Slack's own (its "Formatting text")."""
    said = f"{plan.service} {plan.candidate}: {event.sentence}"
    by = ": ".join(part for part in (event.actor, event.reason) if part)
    text = f"{said} ({by})" if by else said
    return {"text": text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")}


@dataclass(slots=True, eq=False)
class _Address:
    """One webhook: what waits for it, each with the loop's time at which it was said."""

    url: str
    waiting: deque[tuple[float, dict[str, Any]]] = field(default_factory=deque)
    has_some: asyncio.Event = field(default_factory=asyncio.Event)
    is_empty: asyncio.Event = field(default_factory=asyncio.Event)
    is_said: bool = False
    """Whether it is in the log that events are dropped."""
    task: asyncio.Task[None] | None = None

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or "?"


class Notifier:
    """``say`` at any time, ``start`` and ``stop`` once. The seconds are for those who cannot wait."""

    def __init__(
        self, *, retry_seconds: float = RETRY_SECONDS, give_up_seconds: float = GIVE_UP_SECONDS, log: Any = None
    ) -> None:
        self._retry_seconds = retry_seconds
        self._give_up_seconds = give_up_seconds
        self._log = structlog.get_logger(__name__) if log is None else log
        self._addresses: dict[str, _Address] = {}
        self._session: aiohttp.ClientSession | None = None
        self.sent = 0
        self.dropped = 0

    def __repr__(self) -> str:
        return f"<Notifier {len(self._addresses)} addresses, {self.sent} sent, {self.dropped} dropped>"

    async def start(self) -> None:
        """Send what has been said, and what will be."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=aiohttp.ThreadedResolver()),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=_NO_TIMEOUT,
        )
        for address in self._addresses.values():
            self._follow(address)

    async def stop(self, within: float = FAREWELL_SECONDS) -> None:
        """End; what waits has so many seconds to leave."""
        addresses = list(self._addresses.values())
        if self._session is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(within):
                    for address in addresses:
                        await address.is_empty.wait()
        await end(*(one.task for one in addresses if one.task is not None))
        self._addresses.clear()
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def say(self, plan: Plan, event: Event) -> None:
        """Tell those of the plan who want to know. Never waits, never raises."""
        for notify in plan.notify:
            if event.kind in notify.events:
                self._put(notify, as_slack(plan, event) if notify.form == "slack" else as_json(plan, event))

    def _put(self, notify: Notify, body: dict[str, Any]) -> None:
        address = self._addresses.get(notify.url)
        if address is None:
            address = self._addresses[notify.url] = _Address(notify.url)
            if self._session is not None:
                self._follow(address)
        if len(address.waiting) >= MOST_WAITING:
            self._drop(address, f"{MOST_WAITING} events wait for it")
            return
        address.waiting.append((asyncio.get_running_loop().time(), body))
        address.is_empty.clear()
        address.has_some.set()

    def _follow(self, address: _Address) -> None:
        address.task = spawn(self._send_all(address), name=f"notices to {address.host}")

    async def _send_all(self, address: _Address) -> None:
        while True:
            if not address.waiting:
                address.has_some.clear()
                address.is_empty.set()
                await address.has_some.wait()
            said_at, body = address.waiting[0]
            trouble = await self._deliver(address, body, said_at + self._give_up_seconds)
            address.waiting.popleft()
            if trouble:
                self._drop(address, trouble)
            else:
                self.sent += 1
                if address.is_said:
                    address.is_said = False
                    self._log.info(f"notices arrive at {address.host} again")

    async def _deliver(self, address: _Address, body: dict[str, Any], until: float) -> str:
        """Why it did not arrive, after all; empty when it did."""
        clock = asyncio.get_running_loop().time
        wait = self._retry_seconds
        while True:
            trouble, is_final = await self._post(address, body)
            if not trouble or is_final or clock() + wait > until:
                return trouble
            await asyncio.sleep(wait)
            wait = min(2 * wait, RETRY_CAP_SECONDS)

    async def _post(self, address: _Address, body: dict[str, Any]) -> tuple[str, bool]:
        """What went wrong, if something did, and whether it would again."""
        assert self._session is not None
        try:
            async with (
                asyncio.timeout(SEND_SECONDS),
                self._session.post(address.url, json=body, allow_redirects=False) as answer,
            ):
                if 200 <= answer.status < 300:
                    return "", True
                return f"it answers {answer.status}", answer.status < 500 and answer.status not in _MAY_BE_BETTER
        except TimeoutError:
            return f"no answer within {SEND_SECONDS:g} s", False
        except (OSError, aiohttp.ClientError, ValueError) as error:
            return words(error), False

    def _drop(self, address: _Address, why: str) -> None:
        self.dropped += 1
        if not address.is_said:
            address.is_said = True
            self._log.warning(f"a notice for {address.host} was dropped ({why}); others may follow, and are counted")

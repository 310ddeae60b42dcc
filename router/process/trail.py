"""The audit trail of all services, for those who look: from Redis, and where that is away, what was seen before."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from router.admin.shapes import AuditEntry, Trail
from router.control.audit import AuditEntry as Recorded
from router.control.audit import history
from router.control.weights import Unreachable, open_redis

REMEMBERED: Final = 200
FOLLOWED: Final = 50
"""Entries that one look for news takes, per service: more in a second is a script, and ``/audit`` has them all."""


class AuditTrail:
    """``names`` are the services there are now; ``url`` None: there is no Redis, and nothing is ever recorded."""

    def __init__(self, url: str | None, names: Callable[[], list[str]]) -> None:
        self._url = url
        self._names = names
        self._seen: deque[AuditEntry] = deque(maxlen=REMEMBERED)
        self._newest: dict[str, str] = {}
        """Service → id of the newest entry that was told of."""

    async def read(self, services: list[str], count: int, before: str) -> Trail:
        """Newest first; of all services where none is named."""
        names = services or self._names()
        found: list[AuditEntry] = []
        more: dict[str, str] = {}
        if self._url is None:
            return Trail([], False)
        try:
            async with open_redis(self._url) as client:
                for name in names:
                    page = await history(client, name, count, before)
                    found += _shown(name, page, is_newest=not before)
                    if len(page) == count:
                        more[name] = page[-1].id
        except Unreachable:
            seen = [entry for entry in self._seen if entry.service in names and not before]
            return Trail(seen[::-1][:count], False)
        found.sort(key=lambda entry: (entry.at, entry.id), reverse=True)
        return Trail(found, True, more)

    async def news(self) -> list[AuditEntry]:
        """What was recorded since the last call, oldest first; the first call finds none."""
        if self._url is None:
            return []
        fresh: list[AuditEntry] = []
        try:
            async with open_redis(self._url) as client:
                for name in self._names():
                    fresh += await self._news_of(client, name)
        except Unreachable:
            return []
        self._seen.extend(fresh)
        return fresh

    async def _news_of(self, client: Any, name: str) -> list[AuditEntry]:
        known = self._newest.get(name)
        page = await history(client, name, FOLLOWED if known is not None else 1)
        if page:
            self._newest[name] = page[0].id
        elif known is None:
            self._newest[name] = "0-0"
        if known is None:
            return []
        new = [entry for entry in _shown(name, page, is_newest=True) if _order(entry.id) > _order(known)]
        return new[::-1]


def _order(id_: str) -> tuple[int, int]:
    """Of a stream's id, which is two numbers."""
    at, _, number = id_.partition("-")
    return int(at), int(number or 0)


def _shown(service: str, page: list[Recorded], *, is_newest: bool) -> list[AuditEntry]:
    undoable = next((entry.id for entry in page if entry.can_be_undone), "") if is_newest else ""
    return [
        AuditEntry(
            id=one.id, service=service, at=one.at, actor=one.actor, host=one.host, source=one.source or "cli",
            action=one.action, fields=list(one.fields), before=list(one.before), after=list(one.after),
            reason=one.reason, rev=one.revision, sentence=one.steps, can_undo=one.id == undoable,
        )
        for one in page
    ]  # fmt: skip

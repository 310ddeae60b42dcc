"""The audit trail: who changed what, when and why, in one stream per service.

An entry is written in the same transaction as the change it tells of, so that there is neither without the other.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from redis.asyncio import Redis

from router.control.authors import Author, at_the_prompt
from router.control.keys import key_of

AUDIT_LENGTH: Final = 10_000
UNSET: Final = "-"
"""The field was (or is) not in the hash; the config file's value counts."""
_INVERTIBLE: Final = ("set", "undo", "reset")


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One change, as the audit stream has it. ``before`` and ``after`` go with ``fields``, one each."""

    id: str
    at: float
    actor: str
    host: str
    action: str
    fields: tuple[str, ...]
    before: tuple[str, ...]
    after: tuple[str, ...]
    reason: str
    revision: str
    source: str = ""
    """cli, api, rollout; empty in what an older router wrote."""

    @property
    def steps(self) -> str:
        """``canary 5 → 10, early 20 → 25``"""
        return ", ".join(f"{f} {b} → {a}" for f, b, a in zip(self.fields, self.before, self.after, strict=False))

    @property
    def can_be_undone(self) -> bool:
        """Whether ``undo`` knows how to take such a change back."""
        return self.action in _INVERTIBLE

    def __str__(self) -> str:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.at))
        reason = f"  ({self.reason})" if self.reason else ""
        return f"{when}  rev {self.revision or UNSET}  {self.actor}  {self.action}  {self.steps}{reason}"


def note(
    pipe: Redis,
    service: str,
    action: str,
    changes: Mapping[str, tuple[str, str]],
    reason: str,
    revision: str = "",
    *,
    by: Author | None = None,
) -> Any:
    """Add one entry: field → what it was and what it is. A pipeline queues it; a client has to be awaited."""
    author = by or at_the_prompt()
    # Several fields stand in one value with spaces between: a value with a space of its own goes in as one word.
    before, after = ([_word(pair[side]) for pair in changes.values()] for side in (0, 1))
    entry = {
        "actor": author.name, "host": author.host, "source": author.source, "action": action,
        "field": " ".join(changes), "from": " ".join(before), "to": " ".join(after), "reason": reason, "rev": revision,
        "at": f"{time.time():.3f}",
    }  # fmt: skip
    return pipe.xadd(key_of(service, "audit"), cast("Any", entry), maxlen=AUDIT_LENGTH, approximate=True)


async def history(client: Redis, service: str, count: int, before: str = "") -> list[AuditEntry]:
    """The audit trail, newest first; ``before``: only what is older than the entry of this id."""
    newest = f"({before}" if before else "+"
    entries: Any = await client.xrevrange(key_of(service, "audit"), max=newest, count=count)
    return [_entry(_text(id_), {_text(k): _text(v) for k, v in fields.items()}) for id_, fields in entries]


def _entry(id_: str, fields: Mapping[str, str]) -> AuditEntry:
    try:
        at = float(fields.get("at", ""))
    except ValueError:
        at = int(id_.partition("-")[0]) / 1000
    return AuditEntry(
        id=id_, at=at, actor=fields.get("actor", "?"), host=fields.get("host", ""), action=fields.get("action", "?"),
        fields=tuple(fields.get("field", "").split()), before=tuple(fields.get("from", "").split()),
        after=tuple(fields.get("to", "").split()), reason=fields.get("reason", ""), revision=fields.get("rev", ""),
        source=fields.get("source", ""),
    )  # fmt: skip


def _word(value: str) -> str:
    return value.replace(" ", "_") or "_"


def _text(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)

"""The hash ``revoked``: passes that count no more. Pure and total, like ``parse``, but judged field by field.

A revocation only ever takes rights away, so the safe side is to revoke too much. A bad field does not keep the others
from counting, and what is not in the hash any more stays revoked: only a time that is over gives a pass back, its own
or one that somebody has written. Else a typing error would keep a leaked pass alive, and a flushed Redis, or one that
failed over to an older copy, would give back whatever the next revocation does not name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from router.control.keys import MAX_FIELDS, REVISION_FIELD, key_of
from router.control.refusal import REPORTED, Refusal, show
from router.core.live import Live

MOST: Final = 2 * MAX_FIELDS["revoked"]
"""Of what is in the hash and what is held besides: somebody who writes others again and again must not fill a disk."""
_FIELD: Final = re.compile(rb"(?:pass|key):[A-Za-z0-9._~+/=:@-]{1,128}")
_UNTIL: Final = re.compile(rb"([0-9]{1,11})(?:\s+(.*))?", re.DOTALL)
"""Seconds, then optionally a reason. Eleven digits are the year 5138; milliseconds have thirteen by now."""


def until_and_reason(value: bytes) -> tuple[int | None, bytes]:
    """Of one field: Unix time until which it matters (0: for ever; None: it says none), and what is said besides."""
    found = _UNTIL.fullmatch(value)
    return (None, value) if found is None else (int(found[1]), found[2] or b"")


@dataclass(frozen=True, slots=True)
class Revoked:
    """What is revoked from now on, sorted; ``until`` is Unix time, of those that end."""

    fields: tuple[str, ...]
    until: Mapping[str, int]
    problems: tuple[Refusal, ...]


def revoked_of(fields: Mapping[bytes, bytes], service: str, held: Live, now: float) -> Revoked:
    """What is revoked after a read; ``held`` is what was before, ``now`` Unix time.

    A field is ``pass:<id>`` or ``key:<id>``; its value is the Unix time until which it matters (a pass that has expired
    needs no revocation), 0 for ever, and a reason for people.
    """
    key = key_of(service, "revoked")
    bad: list[Refusal] = []
    said: dict[str, int] = {}
    for name, value in sorted(fields.items()):
        if name == REVISION_FIELD.encode():
            continue
        if _FIELD.fullmatch(name) is None:
            message = (
                f"{key} knows pass:<id> and key:<id>, with an id of at most 128 letters, digits and ._~+/=:@-, not "
                f"{show(name)}: HDEL {key} {show(name)}"
            )
            bad.append(Refusal(key, show(name), show(value), "unknown_field", message))
            continue
        field, (until, _) = name.decode(), until_and_reason(value)
        if until is None:
            message = (
                f"{field} is revoked for ever: {show(value)} does not begin with a Unix time in seconds, or 0: "
                f"HSET {key} {field} '0 REASON'"
            )
            bad.append(Refusal(key, field, show(value), "not_a_time", message))
        said[field] = until or 0
    before = {field: held.revoked_until.get(field, 0) for field in held.revoked}
    stays = {field: until for field, until in before.items() if field not in said and _matters(until, now)}
    if stays:
        bad.append(_gone(key, sorted(stays)))
    counts = {field: until for field, until in said.items() if _matters(until, now)}
    if len(stays) + len(counts) > MOST:
        new = [field for field in sorted(counts) if field not in before]
        for field in new[max(0, MOST - len(stays) - len(counts) + len(new)) :]:
            del counts[field]
        message = (
            f"more than {MOST} are revoked, with those that are not in {key} any more: the last ones do not count. "
            f"Replace the key that signed them, and revoke that."
        )
        bad.insert(0, Refusal(key, "", "", "too_many_fields", message))
    now_revoked = {**stays, **counts}
    ends = {field: until for field, until in now_revoked.items() if until}
    return Revoked(tuple(sorted(now_revoked)), ends, tuple(bad[:REPORTED]))


def _matters(until: int, now: float) -> bool:
    return until == 0 or until > now


def _gone(key: str, fields: list[str]) -> Refusal:
    few = ", ".join(fields[:3]) + (f" and {len(fields) - 3} more" if len(fields) > 3 else "")
    message = (
        f"revoked missing: {few} stays revoked, though {key} does not say so any more; HSET {key} {fields[0]} 1, a "
        f"time that is over, gives it back, and 0 says it again."
    )
    return Refusal(key, "", few, "held_missing", message)

"""The hash ``revoked``: passes that count no more. Pure and total, like ``parse``, but for one thing.

A revocation only ever takes rights away, so the safe side is to revoke too much. What a hash with a bad field says well
is revoked nevertheless, beside everything that was revoked before; nothing is given back until the hash is whole again.
Refusing all of it, as for weights, would keep a leaked pass alive because of somebody else's typing error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from router.control.keys import MAX_FIELDS, REVISION_FIELD, key_of
from router.control.refusal import REPORTED, Refusal, show

_FIELD: Final = re.compile(rb"(?:pass|key):[A-Za-z0-9._~+/=:@-]{1,128}")
"""Ids are short, so that what is kept on disk has a bound."""
_UNTIL: Final = re.compile(rb"([0-9]{1,11})(?:\s.*)?", re.DOTALL)
"""Seconds, then optionally a reason. Eleven digits are the year 5138; milliseconds have thirteen by now."""


def revoked_of(
    fields: Mapping[bytes, bytes], service: str, held: tuple[str, ...], now: float
) -> tuple[tuple[str, ...], list[Refusal]]:
    """What is revoked by a hash that is there, sorted, and what is wrong with it.

    A field is ``pass:<id>`` or ``key:<id>``; its value is the Unix time until which it matters (a pass that has expired
    needs no revocation), 0 for ever, and a reason for people. ``held`` is what was revoked before, ``now`` Unix time.
    """
    key = key_of(service, "revoked")
    bad: list[Refusal] = []
    found: set[str] = set()
    for name, value in sorted(fields.items()):
        if name == REVISION_FIELD.encode():
            continue
        if _FIELD.fullmatch(name) is None:
            message = (
                f"{key} knows pass:<id> and key:<id>, with an id of at most 128 letters, digits and ._~+/=:@-, not "
                f"{show(name)}: HDEL {key} {show(name)}. What was revoked before stays so."
            )
            bad.append(Refusal(key, show(name), show(value), "unknown_field", message))
            continue
        field, until = name.decode(), _UNTIL.fullmatch(value)
        if until is None:
            message = (
                f"{field} is revoked for ever: {show(value)} does not begin with a Unix time in seconds, or 0: "
                f"HSET {key} {field} '0 REASON'"
            )
            bad.append(Refusal(key, field, show(value), "not_a_time", message))
        if until is None or int(until[1]) == 0 or int(until[1]) > now:
            found.add(field)
    if bad:
        together = found.union(held)
        # Whoever writes other junk again and again must not make it grow for ever.
        found = together if len(together) <= MAX_FIELDS["revoked"] else set(held)
    return tuple(sorted(found)), bad[:REPORTED]

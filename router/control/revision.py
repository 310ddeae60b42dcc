"""One short word for what a service's keys hold, for writes that must not overwrite what they have not seen.

It is made of the content, because people at redis-cli write no revision: whatever they change changes it. The same on
every instance, since all of them read the same keys. Pure.
"""

from __future__ import annotations

from typing import Final

from xxhash import xxh32_hexdigest

from router.control.keys import REVISION_FIELD, HashName, RawFault, RawService

_COVERED: Final[tuple[HashName, ...]] = ("weights", "versions", "control")
"""What the levers of an operator write."""


def rev_of(raw: RawService) -> str:
    """``42.9f3ac1d0``: the weights' own ``rev`` field, if it is a plain number, and a digest of what is covered."""
    parts: list[bytes] = []
    for name in _COVERED:
        fields = getattr(raw, name)
        if isinstance(fields, RawFault):
            parts.append(f"{name}!{fields.reason}".encode())
            continue
        parts.append(name.encode())
        for field, value in sorted(fields.items()):
            # Lengths in front, so that no two contents run together to the same bytes.
            parts.append(b"%d:%b%d:%b" % (len(field), field, len(value), value))
    digest = xxh32_hexdigest(b"|".join(parts))
    weights = raw.weights
    said = b"" if isinstance(weights, RawFault) else weights.get(REVISION_FIELD.encode(), b"")
    return f"{said.decode()}.{digest}" if said.isdigit() and len(said) <= 20 else digest

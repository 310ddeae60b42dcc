"""What is said of rings whose version has no healthy endpoint. Widening one is allowed: its users fall outward anyway.

Pure: two snapshots in, sentences out; who logs and shows them is the caller's affair.
"""

from __future__ import annotations

from router.control.rules import percent
from router.core.health import is_version_up
from router.core.spec import RingSpec, ServiceSpec


def warnings_of(service: ServiceSpec) -> tuple[str, ...]:
    """A sentence for each ring whose version has no healthy endpoint; killed ones have nobody to worry about."""
    return tuple(
        f"ring {ring.name}: version {ring.version} has no healthy endpoint, {_consequence(service, i)}"
        for i, ring in enumerate(service.rings)
        if ring.name not in service.killed and ring.version not in _up(service)
    )


def widened(before: ServiceSpec, after: ServiceSpec) -> tuple[str, ...]:
    """A sentence for each ring that has become wider, or begun to run another version, with no healthy endpoint."""
    known = {ring.name: ring for ring in before.rings}
    said = []
    for i, ring in enumerate(after.rings):
        was = known.get(ring.name)
        if was is None or ring.name in after.killed or ring.version in _up(after):
            continue
        what = _change(was, ring, is_default=i == len(after.rings) - 1, is_back=ring.name in before.killed)
        if what:
            sick = f"version {ring.version} has no healthy endpoint"
            said.append(f"ring {ring.name} {what}, but {sick}: {_consequence(after, i)}")
    return tuple(said)


def _change(was: RingSpec, now: RingSpec, *, is_default: bool, is_back: bool) -> str:
    if was.version != now.version:
        return f"runs {now.version} instead of {was.version}"
    if is_back:
        return "is not killed any more"
    # The default ring takes what the others leave: nobody has widened it.
    if now.basis_points > was.basis_points and not is_default:
        return f"was widened from {percent(was.basis_points)} to {percent(now.basis_points)} percent"
    return ""


def _consequence(service: ServiceSpec, i: int) -> str:
    if not service.rings[i].falls_outward:
        return "its users get 503"
    up = _up(service)
    for ring in service.rings[i + 1 :]:
        if ring.version in up and ring.name not in service.killed:
            return f"its users get {ring.version} of the ring {ring.name}"
    return "and no ring outward has one"


def _up(service: ServiceSpec) -> frozenset[str]:
    return frozenset(version.name for version in service.versions if is_version_up(version))

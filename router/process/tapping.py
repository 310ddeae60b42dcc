"""Who wants to see live requests, as the admin side asks for it and control answers."""

from __future__ import annotations

from router.admin.trouble import Trouble
from router.control.taps import Listener, Taps, TooManyListeners, UnknownPlace, check_place
from router.core.spec import SnapshotSpec


def listen(taps: Taps, spec: SnapshotSpec | None, service: str, ring: str, rate: int) -> Listener:
    """Somebody listens from now on. Raises ``Trouble``: not_found, busy."""
    try:
        check_place(() if spec is None else spec.services, service, ring)
        return taps.open(service, ring, rate)
    except UnknownPlace as unknown:
        raise Trouble("not_found", f"{str(unknown)[:1].upper()}{str(unknown)[1:]}.") from None
    except TooManyListeners as many:
        raise Trouble("busy", f"{many}.", retry_after=5) from None

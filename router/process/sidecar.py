"""The application that a sidecar runs beside, asked whether it is still there."""

from __future__ import annotations

import socket
from typing import Final

from router.config.values import Address

PROBE_SECONDS: Final = 0.2
"""On one machine a connection is made at once; one that is slow is there, with a full queue."""


def is_there(app: Address) -> bool:
    """Whether somebody listens on the application's address."""
    family = socket.AF_UNIX if app.path else socket.AF_INET6 if ":" in app.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(PROBE_SECONDS)
        try:
            probe.connect(app.path or (app.host, app.port))
        except TimeoutError:
            return True
        except OSError:
            return False
    return True

"""Who makes a change, as the audit trail has it."""

from __future__ import annotations

import getpass
import socket
from dataclasses import dataclass
from typing import Literal

Source = Literal["cli", "api", "rollout"]


@dataclass(frozen=True, slots=True)
class Author:
    """``name`` is ``ada@laptop`` at a command line, the token's name over the API; ``host`` the machine that wrote."""

    name: str
    host: str
    source: Source = "cli"


def at_the_prompt() -> Author:
    """Who types this, and on which machine."""
    host = socket.gethostname()
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run as a user without a name
        user = "unknown"
    return Author(f"{user}@{host}", host)

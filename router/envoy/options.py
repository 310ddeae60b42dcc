"""What the translation needs to know beside the snapshot. Plain data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EnvoyOptions:
    """``directory`` is where the files are, as Envoy sees it: absolute.

    ``listen`` are addresses ``host:port`` in the place of the snapshot's own. ``watched`` are the services whose
    users are told to the bridge, where requests are counted for it (``is_counted``, ``access_log``);
    their lines say ``generation``, the snapshot's.
    """

    directory: str
    listen: tuple[str, ...] = ()
    watched: frozenset[str] = frozenset()
    is_counted: bool = False
    generation: int = 0

"""Figures as people read them, the same wherever a rollout is told of."""

from __future__ import annotations


def span(seconds: float) -> str:
    """``0.4 s``, ``45 s``, ``12 min``, ``5 h``, ``1 h 30 min``, ``2 d 4 h``: two units at the most."""
    whole = round(seconds)
    if seconds < 10 and seconds != whole:
        return f"{seconds:.1f} s"
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        minutes, rest = divmod(whole, 60)
        return f"{minutes} min {rest} s" if rest and minutes < 10 else f"{minutes} min"
    large, name, small, other = (86_400, "d", 3600, "h") if whole >= 86_400 else (3600, "h", 60, "min")
    count, rest = divmod(whole, large)
    return f"{count} {name} {rest // small} {other}" if rest >= small else f"{count} {name}"

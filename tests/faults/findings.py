"""What an experiment found: figures with their limits. The verdict follows from them and from nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Findings:
    """``counted`` figures are judged always, ``timed`` ones only in the long form, where nothing else runs beside."""

    is_short: bool
    figures: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def counted(self, what: str, value: float, *, most: float | None = None, least: float | None = None) -> None:
        self._add(what, value, "", most, least, is_judged=True)

    def none(self, what: str, bad: Sequence[object]) -> None:
        """There are none of these; the first ones are shown if there are."""
        self.counted(what, len(bad), most=0)
        self.broken += [f"  {one}" for one in bad[:3]]

    def timed(
        self, what: str, value: float, *, most: float | None = None, least: float | None = None, unit: str = "ms"
    ) -> None:
        self._add(what, value, f" {unit}", most, least, is_judged=not self.is_short)

    def near_limit(self, limit: float, took: Sequence[float], *, most: float) -> None:
        """How far from the limit (seconds) these ended, in ms. None of them is no figure, and said."""
        if took:
            self.timed(
                f"furthest from the limit of {limit:g} s", 1000 * max(abs(one - limit) for one in took), most=most
            )
        else:
            self.note(f"nothing to be timed against the limit of {limit:g} s")

    def size(self, what: str, mib: float, *, most: float | None = None) -> None:
        """Memory, MiB; judged in the long form."""
        self._add(what, mib, " MiB", most, None, is_judged=not self.is_short)

    def share(self, what: str, part: int, whole: int, *, least: float) -> None:
        """A part of a whole, at least so many percent of it; a whole of nothing is broken."""
        percent = 100 * part / whole if whole else 0.0
        self.counted(f"{what} ({part} of {whole}), %", percent, least=least)

    def holds(self, what: str, is_so: bool) -> None:
        """A figure that is only yes or no."""
        self.figures.append(f"{what}: {'yes' if is_so else 'NO'}")
        if not is_so:
            self.broken.append(f"{what}: no")

    def note(self, words: str) -> None:
        """Shown, not judged."""
        self.figures.append(words)

    def breaks(self, words: str) -> None:
        """An invariant that did not hold."""
        self.broken.append(words)

    def _add(
        self, what: str, value: float, unit: str, most: float | None, least: float | None, *, is_judged: bool
    ) -> None:
        is_kept = (most is None or value <= most) and (least is None or value >= least)
        shown = f"{what} {_number(value)}{unit}"
        self.figures.append(shown)
        if is_judged and not is_kept:
            bounds = [f"{word} {_number(bound)}" for word, bound in (("at most", most), ("at least", least))
                      if bound is not None]  # fmt: skip
            self.broken.append(f"{shown} ({', '.join(bounds)})")


def _number(value: float) -> str:
    return f"{value:g}" if value == round(value) else f"{value:.3g}" if abs(value) < 99 else f"{value:.1f}"

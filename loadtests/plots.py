"""Draws results/*.json into results/plots/*.svg, and writes results/SUMMARY.md. It measures nothing.

The same JSON gives the same bytes. What is missing is skipped, and said; without matplotlib there is the table only.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from loadtests import contestants, report, summary
from loadtests.latency import SHOWN
from loadtests.rig import ROOT
from loadtests.summary import OURS, Document

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PLOTS: Final = report.RESULTS / "plots"
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#A6A6A6"
"""Of Okabe and Ito's palette, which colour-blind readers can tell apart; what is ours is blue."""
INK, PALE = "#333333", "#DDDDDD"
SETTINGS: Final[dict[str, Any]] = {
    "svg.hashsalt": "ring-router",
    "svg.fonttype": "none",  # text stays text: a tenth of the bytes, and it can be searched
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": PALE,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
WIDTH_INCHES: Final = 8.0
ROOM_OF_PANEL: Final = 0.55
"""What the figures need of the width of a third of the sheet."""

Spread = dict[str, float]


@dataclass(frozen=True, slots=True)
class Bar:
    """A median with its range."""

    name: str
    value: Spread
    is_ours: bool


def bars(axes: Axes, rows: Sequence[Bar], digits: int, room: float = 0.3) -> None:
    """Horizontal bars with their figures beside them; ``room`` is the part of the width that the figures need."""
    for place, row in enumerate(rows):
        value = row.value
        axes.barh(place, value["median"], height=0.6, color=BLUE if row.is_ours else GREY)
        span(axes, place, value, INK)
        figure(axes, place, max(value["max"], 0.0), words(value, digits))
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.set_ylim(max(len(rows), 1) - 0.5, -0.5)
    axes.set_xlim(*limits([row.value for row in rows], room))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=PALE, linewidth=0.6)
    axes.spines["left"].set_visible(False)
    axes.axvline(0, color=INK, linewidth=0.8)


def span(axes: Axes, place: float, value: Spread, colour: str) -> None:
    away = [[value["median"] - value["min"]], [value["max"] - value["median"]]]
    axes.errorbar([value["median"]], [place], xerr=away, fmt="none", ecolor=colour, elinewidth=1.2, capsize=3)


def words(value: Spread, digits: int) -> str:
    """Median and range; only the median where there is no range."""
    said = report.shown(value, digits)
    return said if value["min"] < value["max"] else said.partition(" ")[0]


def figure(axes: Axes, place: float, right: float, said: str) -> None:
    axes.annotate(said, (right, place), (7, 0), textcoords="offset points", va="center", fontsize=9)


def limits(values: Sequence[Spread], room: float) -> tuple[float, float]:
    """Of an axis that holds them and 0, and has this part of its width free at the right."""
    low, high = min([0.0, *(one["min"] for one in values)]), max([0.0, *(one["max"] for one in values)])
    return 1.05 * low, low + ((high - low) or 1.0) / (1 - room)


# -- the plots ---------------------------------------------------------------------------------------------------------


def per_request(sheet: Figure, document: Document) -> None:
    found = document["summary"]
    names = sorted(found, key=lambda name: found[name]["cpu_us"]["median"])
    axes = sheet.subplots()
    bars(axes, [Bar(name, found[name]["cpu_us"], name in (OURS, contestants.INTERPRETED)) for name in names], 1)
    of = "connection, with its one request" if document["name"] == "connections" else "request"
    axes.set_xlabel(f"CPU µs per {of}; all processes of the proxy")


def latency(sheet: Figure, document: Document) -> None:
    """A row for each load and a column for each percentile; a column has one scale."""
    loads = document["loads"]
    grid = sheet.subplots(len(loads), len(SHOWN), sharex="col", sharey="row", squeeze=False)
    for column, percentile in enumerate(SHOWN):
        seen: list[Spread] = []
        for row, (load, one) in enumerate(loads.items()):
            axes = grid[row][column]
            added = {
                name: found["added_us"][percentile] for name, found in one["summary"].items() if "added_us" in found
            }
            seen += added.values()
            bars(axes, [Bar(name, value, name == OURS) for name, value in added.items()], 0, room=ROOM_OF_PANEL)
            axes.set_title(f"{percentile} at {load}, {one['rate']:,.0f} requests/s", loc="left", fontsize=9)
        grid[-1][column].set_xlim(*limits(seen, ROOM_OF_PANEL))
        grid[-1][column].locator_params(axis="x", nbins=3)
        grid[-1][column].set_xlabel("µs above direct")


def growth(sheet: Figure, document: Document) -> None:
    axes = sheet.subplots()
    grown = {name: one for name, one in document["summary"].items() if name != one["beside"]}
    for place, (name, one) in enumerate(grown.items()):
        colour = INK if name.startswith("nginx") else BLUE
        axes.plot(one["ratio"]["median"], place, "o", color=colour, markersize=8)
        span(axes, place, one["ratio"], colour)
        figure(axes, place, one["ratio"]["max"], words(one["ratio"], 2))
    axes.axvline(1, color=INK, linewidth=1, linestyle="--")
    axes.annotate("flat", (1, -0.62), (4, 0), textcoords="offset points", va="center", fontsize=9)
    axes.set_yticks(range(len(grown)), [f"{one['beside']} → {name}" for name, one in grown.items()])
    axes.set_ylim(len(grown) - 0.5, -0.8)
    axes.set_xlim(0, limits([one["ratio"] for one in grown.values()], 0.25)[1])
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=PALE, linewidth=0.6)
    axes.set_xlabel("CPU per request ÷ that of the smaller set-up")


def idle(sheet: Figure, document: Document) -> None:
    found = document["summary"]
    names = sorted(found, key=lambda name: found[name]["bytes_each"]["median"])
    axes = sheet.subplots()
    bars(axes, [Bar(name, found[name]["bytes_each"], name == OURS) for name in names], 0)
    axes.set_xlabel(f"bytes of RSS per connection, of {document['connections']:,}; the kernel's buffers not counted")


def bodies(sheet: Figure, document: Document) -> None:
    found = document["summary"]
    rows = [
        Bar(f"{name}, {way}", found[name][way]["cpu_s_per_gib"], name == OURS)
        for way in next(iter(found.values()))
        for name in found
    ]
    axes = sheet.subplots()
    bars(axes, rows, 2)
    axes.set_xlabel(f"CPU seconds per GiB, bodies of {document['options']['mib']} MiB, one connection")


def propagation(sheet: Figure, document: Document) -> None:
    found = document["summary"]
    axes = sheet.subplots()
    for key, colour in (("max_ms", GREY), ("p99_ms", ORANGE), ("p50_ms", BLUE)):
        axes.plot([one[key] for one in found.values()], "o-", color=colour)
    last = list(found.values())[-1]
    top = max(one["max_ms"] for one in found.values())
    labels: list[list[str]] = []
    for key in ("p50_ms", "p99_ms", "max_ms"):
        if not labels or last[key] - last[labels[-1][-1]] > 0.08 * top:
            labels.append([])
        labels[-1].append(key)
    for keys in labels:  # those too close to stand apart share a line
        said = ", ".join(f"{key.removesuffix('_ms')} {last[key]:.1f}" for key in keys)
        figure(axes, sum(last[key] for key in keys) / len(keys), len(found) - 1, f"{said} ms")
    axes.set_xticks(range(len(found)), list(found))
    axes.set_xlim(-0.3, len(found) - 0.3)
    axes.set_ylim(0, top * 1.1)
    axes.grid(axis="y", color=PALE, linewidth=0.6)
    axes.set_xlabel("workers, on the cores of this one machine")
    axes.set_ylabel("ms, from HSET to the last of them")


def disruption(sheet: Figure, document: Document) -> None:
    found = document["summary"]
    axes = sheet.subplots()
    for place, one in enumerate(found.values()):
        for part, colour, shift in (("quiet", GREY, 0.17), ("event", ORANGE, -0.17)):
            worst, failed = one[part]["worst_ms"], one[part]["failed"]
            axes.plot(worst["median"], place + shift, "o", color=colour, markersize=7)
            span(axes, place + shift, worst, colour)
            said = f"{words(worst, 1)} ms, {words(failed, 0)} failed"
            figure(axes, place + shift, worst["max"], said if part == "event" else f"undisturbed {said}")
    axes.set_xscale("log")
    values = [one[part]["worst_ms"] for one in found.values() for part in ("quiet", "event")]
    low, high = min(one["min"] for one in values), max(one["max"] for one in values)
    axes.set_xlim(low / 1.5, high * (high / low) ** 0.75)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_yticks(range(len(found)), list(found))
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=PALE, linewidth=0.6)
    asked = document["options"]
    axes.set_xlabel(
        f"longest latency, ms (log scale), of those due in {asked['window']:g} s at {asked['rate']:g} requests/s"
    )


@dataclass(frozen=True, slots=True)
class Plot:
    """A question, the result that answers it, and how that is drawn."""

    name: str
    result: str
    question: str
    height_inches: float
    draw: Callable[[Figure, Document], None]


ALL: Final = (
    Plot("cpu", "compare", "What CPU does a request cost?", 3.2, per_request),
    Plot("connections", "connections", "What CPU does a new connection cost?", 3.0, per_request),
    Plot("latency", "latency", "How much latency does a proxy add?", 3.8, latency),
    Plot("growth", "growth", "Does a request cost more in a larger set-up?", 3.4, growth),
    Plot("idle", "idle", "How much memory does an idle connection hold?", 2.4, idle),
    Plot("bodies", "bodies", "What CPU does a large body cost?", 2.7, bodies),
    Plot("propagation", "propagation", "How soon does every worker route by a new weight?", 3.6, propagation),
    Plot("disruption", "disruption", "Does a change or a dead worker stall or fail requests?", 3.8, disruption),
)


def draw(plot: Plot, document: Document) -> None:
    import matplotlib
    from matplotlib.figure import Figure

    rounds = document["options"].get("rounds")
    note = f"median and range of {rounds} rounds; " if (rounds or 1) > 1 else ""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        sheet = Figure((WIDTH_INCHES, plot.height_inches), layout="constrained")
        sheet.suptitle(plot.question, x=0.01, ha="left", fontsize=13, fontweight="bold")
        plot.draw(sheet, document)
        sheet.supxlabel(note + summary.origin(document), x=0.99, ha="right", fontsize=8, color="#666666")
        sheet.savefig(PLOTS / f"{plot.name}.svg", metadata={"Date": None, "Creator": None})


def main() -> None:
    documents = summary.read()
    if not documents:
        sys.exit("no results: run `make bench` first")
    print(f"Written: {summary.write(documents).relative_to(ROOT)}")
    if importlib.util.find_spec("matplotlib") is None:
        print("No plots: matplotlib is not here; it comes with the extra [bench].")
        return
    PLOTS.mkdir(exist_ok=True)
    for plot in ALL:
        document = documents.get(plot.result)
        if document is None:
            print(f"skipped: {plot.name}: no results/{plot.result}.json; python -m loadtests.{plot.result}")
        elif not any(summary.FIGURES[plot.result](document)):
            print(f"skipped: {plot.name}: no figures in results/{plot.result}.json; every turn was refused")
        else:
            draw(plot, document)
            print(f"Written: {(PLOTS / plot.name).relative_to(ROOT)}.svg")


if __name__ == "__main__":
    report.run(main)

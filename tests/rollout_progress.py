"""Rollouts of a shop that never was, as their leader would have stored them: under way, paused, rolled back."""

from __future__ import annotations

import math
import time
from dataclasses import replace

from router.rollout.progress import (
    Event,
    Gauge,
    Point,
    Progress,
    Proof,
    Rollback,
    Side,
    Standing,
    StepProgress,
)

HOSTILE = "<img src=x onerror=alert(1)>"
HOUR = 3600.0
POINTS = 200


def under_way(now: float | None = None) -> Progress:
    """In its third step of five: errors are proven, p99 is not yet."""
    now = time.time() if now is None else now
    begin = now - 6 * HOUR
    return Progress(
        id=f"shop-{int(begin)}", service="shop", stable="v2", candidate="v3", mode="enforce", phase="proving", why="",
        judged="inconclusive",
        headline="holding early at 20 %: p99 not yet proven (ln E 1.9 of 3.0, about 2,400 more users)",
        next="Everyone gets v3 when p99 is proven, 1,000 users were seen on each side and ada or grace has said yes; "
        "it goes back at once if harm is proven.",
        step=2, steps=steps(now), gauges=gauges(),
        notes=("http_4xx is uncalibrated: 3 of 64 slices of v2 cried wolf, so it may only pause",),
        events=events(now), started_at=begin, started_by="ada", reason="release 2026.11", at=now, tick=176406120,
        leader="edge-01:8080", live=3, applied=3,
        curves={
            "errors": curve(begin, now, 0.0001, 0.012), "p99": curve(begin, now, 0.004, 0.05),
            "p50": curve(begin, now, -0.002, 0.04), "http_4xx": curve(begin, now, 0.0021, 0.02),
        },
        markers=(
            (begin, "canary runs v3 at 1 %"), (now - 4.5 * HOUR, "canary runs v3 at 5 %"),
            (now - 2.5 * HOUR, "early runs v3 at 20 %"),
        ),
    )  # fmt: skip


def paused(why: str = "override", now: float | None = None) -> Progress:
    one = under_way(now)
    return replace(
        one, phase="paused", why=why, headline="paused: early has 25 % and not 20 % as the plan says (redis-cli)",
        next="It goes on when somebody resumes it: from the weights as they are, or with the plan's put back.",
    )  # fmt: skip


def waiting_for_approval() -> Progress:
    one = under_way()
    return replace(
        one, phase="approval", judged="successful", headline="early at 20 % is proven: waits for one more yes"
    )


def just_entered() -> Progress:
    """Its step has just begun, so that every band is as wide as the world."""
    one = under_way()
    wide = Point(one.at, 0.2, -0.6, 0.9)
    fresh = replace(one.gauges[0], standing="collecting", difference=(wide.estimate, wide.low, wide.high))
    return replace(
        one, phase="baking", gauges=(fresh, *one.gauges[1:]),
        curves={**one.curves, "errors": (*one.curves["errors"], wide)},
    )  # fmt: skip


def rolled_back(now: float | None = None) -> Progress:
    """One guardrail was breached in the third step."""
    one = under_way(now)
    broken = replace(
        gauge("errors", "breached", 0.0061, 0.0006, harm=9.4, proof=-6.1), difference=(0.0055, 0.0031, 0.0084),
        sentence="errors 0.61 % against 0.06 %: worse than tolerated (ln E 9.4 of 6.2)",
    )  # fmt: skip
    return replace(
        one, phase="rolled_back", judged="failed", headline="v3 was rolled back from early", next="",
        gauges=(broken, *one.gauges[1:]), ended_at=one.at,
        curves={**one.curves, "errors": curve(one.started_at, one.at, 0.0055, 0.008)},
        rollback=Rollback("errors: worse than tolerated (ln E 9.4 of 6.2)", 412.0, 37, 118, 0.6),
    )  # fmt: skip


def steps(now: float) -> tuple[StepProgress, ...]:
    return (
        StepProgress(
            "canary", True, 1.0, None, 1800.0, 1000, 24 * HOUR, 0, "done", now - 6 * HOUR, now - 4.5 * HOUR, 1800.0,
            1204, (), "canary runs v3 at 1 %",
        ),
        StepProgress(
            "canary", False, 5.0, None, 3600.0, 1000, None, 0, "done", now - 4.5 * HOUR, now - 2.5 * HOUR, 3600.0,
            4811, (), "canary runs v3 at 5 %",
        ),
        StepProgress(
            "early", True, 20.0, 50.0, 2 * HOUR, 1000, 48 * HOUR, 2, "current", now - 2.5 * HOUR, None, 1.4 * HOUR,
            412, ("grace",), "early runs v3 at 20 %",
        ),
        StepProgress("early", False, 25.0, 0.0, 4 * HOUR, 1000, None, 1, "ahead", sentence="early runs v3 at 25 %"),
        StepProgress("everyone", True, None, None, 24 * HOUR, 0, None, 0, "ahead", sentence="everyone runs v3"),
    )  # fmt: skip


def gauge(name: str, standing: Standing, ring: float, control: float, *, harm: float, proof: float) -> Gauge:
    """``ring`` and ``control`` are rates, ``harm`` and ``proof`` ln E."""
    said = "proven" if standing == "within" else "not yet proven"
    return Gauge(
        name=name, kind="outcome", title=f"{name}: at most 1.25 × the control's + 0.1 points", on_harm="rollback",
        is_required=True, standing=standing, harm=Proof(harm, 6.2, max(harm, 0.4), harm >= 6.2),
        proof=Proof(proof, 3.0, max(proof, 0.0), proof >= 3.0, None if proof >= 3.0 else 2400),
        ring=Side(41_230, 41_230 * ring), control=Side(820_400, 820_400 * control),
        difference=(ring - control, ring - control - 0.0006, ring - control + 0.0008), limit=0.00115,
        sentence=f"{name} {said} (ln E {proof} of 3.0)",
    )  # fmt: skip


def gauges() -> tuple[Gauge, ...]:
    slow = replace(
        gauge("p99", "collecting", 0.0152, 0.0112, harm=0.9, proof=1.9), kind="latency", limit=0.011,
        title="p99: at most 1.09 × the control's", difference=(0.004, -0.003, 0.0105),
        sentence="p99 not yet proven (ln E 1.9 of 3.0, about 2,400 more users)",
    )  # fmt: skip
    median = replace(
        gauge("p50", "within", 0.498, 0.5, harm=-4.1, proof=7.7), kind="latency", on_harm="pause", is_required=False,
        title="p50: at most 1.09 × the control's", difference=(-0.002, -0.012, 0.008), limit=0.04,
    )  # fmt: skip
    odd = replace(
        gauge("http_4xx", "uncalibrated", 0.0161, 0.014, harm=2.2, proof=-0.4), on_harm="pause", is_required=False,
        alarms=3, limit=0.0085, difference=(0.0021, -0.001, 0.005),
        sentence="http_4xx cries wolf between users of v2 alone (3 of 64 slices)",
    )  # fmt: skip
    orders = replace(
        gauge("orders", "no_data", 0, 0, harm=0.0, proof=0.0), proof=Proof(0.0, 3.0, 0.0, False), kind="source",
        on_harm="pause", is_required=False,
        title="orders: at least 0.9 × the control's", ring=Side(0, 0), control=Side(0, 0), difference=None, limit=None,
        sentence="https://kpi.example/orders did not answer within 2 s",
    )  # fmt: skip
    return gauge("errors", "within", 0.0007, 0.0006, harm=-3.3, proof=3.8), slow, median, odd, orders


def events(now: float) -> tuple[Event, ...]:
    def at(hours: float, kind: str, sentence: str, actor: str = "", reason: str = "") -> Event:
        when = now - hours * HOUR
        return Event(when, int(when // 10), kind, "", "", sentence, actor, reason)  # type: ignore[arg-type]

    return (
        at(6, "command", "started v2 → v3", "ada", "release 2026.11"),
        at(5.9, "transition", "shifting → baking: all 3 instances route by it"),
        at(4.5, "verdict", "canary at 1 %: errors, p99 and p50 within their margins (1,204 users)"),
        at(4.5, "transition", "canary runs v3 at 5 %"),
        at(3.8, "command", "paused", "grace", "the database is being moved"),
        at(3.5, "command", "resumed", "grace", HOSTILE),
        at(3.1, "leader", "edge-01:8080 leads, after edge-02:8080"),
        at(2.5, "transition", "early runs v3 at 20 %"),
        at(0.4, "command", "approved", "grace", "looks good from here"),
    )


def curve(begin: float, end: float, value: float, reach: float) -> tuple[Point, ...]:
    """A difference that comes to ``value``, within a band of ``reach`` that narrows with the square root of time."""
    points = []
    for i in range(POINTS):
        width = reach / math.sqrt(1 + i)
        estimate = value + 0.4 * width * (math.sin(i / 6) + 0.5 * math.sin(i / 2.3))
        points.append(Point(begin + (end - begin) * i / (POINTS - 1), estimate, estimate - width, estimate + width))
    return tuple(points)

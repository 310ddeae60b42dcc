"""Figures, endpoints and changes of a shop that never was: for the stage, and always the same."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from router.admin.shapes import (
    AuditEntry,
    Backends,
    BackendState,
    CheckState,
    ConfigChange,
    ConfigProblem,
    ConfigState,
    ConfigValue,
    Tapped,
)
from router.telemetry.picture import (
    POINTS,
    Difference,
    Estimate,
    Fleet,
    Instance,
    RingFigures,
    ServiceFigures,
    Spark,
    Split,
    Verdict,
    VersionFigures,
)

BASELINE = "everyone/v2"
BASE_ERRORS, BASE_P95 = 0.06, 18.2


def newest(service: ServiceFigures, points: int) -> ServiceFigures:
    """The same with so many points in each sparkline."""
    replace = msgspec.structs.replace

    def cut(one: VersionFigures) -> VersionFigures:
        spark = one.spark
        return replace(one, spark=Spark(spark.rps[-points:], spark.success[-points:], spark.p95[-points:]))

    rings = [replace(ring, versions=[cut(one) for one in ring.versions]) for ring in service.rings]
    return replace(service, rings=rings)


def wave(middle: float, reach: float, phase: float) -> list[float]:
    """A minute of a figure that goes up and down."""
    swings = (math.sin(i / 5 + phase) + 0.5 * math.sin(i / 1.7 + 2 * phase) for i in range(POINTS))
    return [round(middle + reach * swing, 2) for swing in swings]


def errors(value: float, low: float, high: float, limit: float, verdict: Verdict) -> Difference:
    """In percentage points beside the baseline."""
    fewer = f"between {-low:.2f} points fewer and" if low < 0 else f"between {low:.2f} and"
    words = f"errors {BASE_ERRORS + value:.2f} % against {BASE_ERRORS:.2f} %: {fewer} {high:.2f} more"
    return Difference("errors", verdict, words, Estimate(value, low, high), limit)


def p95(value: float, low: float, high: float, verdict: Verdict) -> Difference:
    """In milliseconds beside the baseline; 5 ms are tolerated."""
    words = f"p95 {BASE_P95 + value:.1f} ms against {BASE_P95} ms: between {low:.1f} and {high:.1f} ms more"
    return Difference("p95", verdict, words, Estimate(value, low, high), 5.0)


def version(
    name: str,
    rps: float,
    verdict: Verdict,
    differences: Sequence[Difference] = (),
    *,
    is_target: bool = True,
    share: float = 100.0,
    success: float = 99.9,
    p95: float = BASE_P95,
    reasons: dict[str, int],
) -> VersionFigures:
    """One version's figures around these."""
    requests = int(60 * rps)
    failed = round(requests * (100 - success) / 100)
    rates: list[float | None] = [min(100.0, one) for one in wave(success, (100 - success) / 2, rps)]
    return VersionFigures(
        version=name, is_target=is_target, requests=requests, rps=rps, share=share,
        codes={"200": requests - failed, "503": failed}, reasons=reasons,
        success=Estimate(success, success - 0.15, min(100.0, success + 0.06)),
        p50=round(p95 / 4, 1), p95=p95, p99=round(p95 * 2.4, 1), in_flight=1,
        compared_with=BASELINE if differences else None, differences=list(differences), verdict=verdict,
        spark=Spark(wave(rps, rps / 9, rps), rates, list(wave(p95, p95 / 8, rps))),
    )  # fmt: skip


def shop() -> ServiceFigures:
    """A version that holds in canary, one that does not in beta, and a ring of which a part fell outward."""
    canary = version(
        "v3", 20.6, "within", [errors(0.01, -0.05, 0.09, 0.3, "within"), p95(-0.8, -2.1, 0.6, "within")],
        success=99.93, p95=17.4, reasons={"rule": 98, "member": 41, "hash": 1097},
    )  # fmt: skip
    beta = version(
        "v4", 8.2, "breached", [errors(2.54, 1.31, 3.9, 1.0, "breached"), p95(27.8, 19.5, 36.0, "breached")],
        success=97.4, p95=46.0, reasons={"propagated": 60, "hash": 432},
    )  # fmt: skip
    early = version(
        "v3", 49.8, "collecting", [errors(0.13, -0.06, 0.34, 0.3, "collecting"), p95(3.0, 1.4, 4.4, "within")],
        share=61.4, success=99.81, p95=21.2, reasons={"hash": 2890, "rule": 98},
    )  # fmt: skip
    fell = version("v2", 31.3, "no_data", is_target=False, share=38.6, success=99.95, reasons={"fallback": 1878})
    everyone = version("v2", 302.6, "no_data", success=99.94, reasons={"default": 12_540, "hash": 5_616})

    def ring(name: str, target: float, actual: float, verdict: Verdict, *versions: VersionFigures) -> RingFigures:
        return RingFigures(
            ring=name, version=versions[0].version, is_default=name == "everyone", is_killed=False, target=target,
            actual=Estimate(actual, round(actual - 0.4, 2), round(actual + 0.4, 2)), by_hash=actual,
            members=12 if name == "canary" else 0, rps=sum(one.rps for one in versions), versions=list(versions),
            verdict=verdict,
        )  # fmt: skip

    return ServiceFigures(
        service="shop", rev="42.9f3ac1d0", source="redis", freeze="", rps=412.5, verdict="breached",
        split=Split("within", 0.41, "the shares are what the weights say"), weights_rev="42",
        rings=[
            ring("canary", 5.0, 5.0, "within", canary),
            ring("beta", 2.0, 2.0, "breached", beta),
            ring("early", 20.0, 19.6, "collecting", early, fell),
            ring("everyone", 73.0, 73.4, "no_data", everyone),
        ],
    )  # fmt: skip


def fleet() -> Fleet:
    """Eighteen, one of them behind."""
    instances = [
        Instance(
            instance=f"edge-{number:02}:8080", is_self=number == 1, is_fresh=True, at=time.time() - 4,
            generation=number, rev={"shop": "41" if number == 7 else "42"}, source={"shop": "redis"}, refused=[],
            warnings=[], is_current=number != 7,
        )
        for number in range(1, 19)
    ]  # fmt: skip
    return Fleet(True, instances, 17, 18, "17 of 18 instances route by rev 42")


def endpoint(version: str, address: str, state: str, **more: Any) -> BackendState:
    fields: dict[str, Any] = {
        "service": "shop", "version": version, "endpoint": address, "name": f"{version}.shop.internal", "weight": 100,
        "state": state, "is_well": state in ("up", "slow start"), "workers": {"up": 2}, "active": 3, "idle": 14,
        "failures": {}, "ejections": {}, "check": CheckState("up", time.time() - 8100, "", 1620, 0),
    }  # fmt: skip
    return BackendState(**{**fields, **more})


def backends() -> Backends:
    """One of each kind of trouble."""
    down = CheckState("down", time.time() - 95, "connection refused", 1620, 19)
    failing: dict[str, Any] = {
        "workers": {"up": 1, "ejected": 1}, "failures": {"reset": 31, "timeout": 4}, "ejections": {"outlier": 3},
    }  # fmt: skip
    return Backends(
        time.time(), "edge-01:8080",
        [
            endpoint("v2", "10.0.4.11:8080", "up", active=11),
            endpoint("v2", "10.0.4.12:8080", "up", active=9, failures={"connect": 2}),
            endpoint("v2", "10.0.4.13:8080", "drained", active=1, idle=0),
            endpoint("v3", "10.0.5.21:8080", "up"),
            endpoint("v3", "10.0.5.22:8080", "slow start", idle=2),
            endpoint("v4", "10.0.6.31:8080", "ejected", **failing),
            endpoint("v4", "10.0.6.32:8080", "down by checks", active=0, idle=0, check=down, failures={"connect": 118}),
        ],
    )  # fmt: skip


def config(problems: Sequence[ConfigProblem] = ()) -> ConfigState:
    """With ``problems`` the file is refused."""
    live = "rings:{shop}:weights"
    return ConfigState(
        revision=7, loaded_at=time.time() - 190, path="/etc/ring-router/router.yaml",
        error=f"{len(problems)} problem" if problems else "", problems=list(problems), needs_restart=[],
        values=[
            ConfigValue("listen", "0.0.0.0:8080", "file", "router.yaml:2:1"),
            ConfigValue("workers", 2, "file", "router.yaml:4:10"),
            ConfigValue("redis", "rediss://ring:***@redis:6379/0", "environment", "REDIS_URL at router.yaml:6:8"),
            ConfigValue("timeouts.connect", 1.0, "default", ""),
            ConfigValue("timeouts.first_byte", 30.0, "file", "router.yaml:11:15"),
            ConfigValue("services.shop.rings.canary.weight", 5.0, "redis", live, 1.0),
            ConfigValue("services.shop.rings.canary.version", "v3", "file", "router.yaml:31:18"),
            ConfigValue("services.shop.rings.early.weight", 20.0, "redis", live, 10.0),
            ConfigValue("services.shop.affinity", None, "default", ""),
        ],
        changed=[
            ConfigChange("timeouts.first_byte", 15.0, 30.0),
            ConfigChange("services.shop.versions.v4.endpoints.0", None, "10.0.6.31:8080"),
        ],
        reloads={"success": 6, "failure": 1, "unchanged": 2},
    )  # fmt: skip


def refused() -> ConfigState:
    problem = ConfigProblem(
        "router.yaml", 31, 17, "weights of shop sum to 105 percent",
        "The rings before the default one have 100 at the most.", "        weight: 85   # was 80",
    )  # fmt: skip
    return config([problem])


def entry(rev: int, age: float, by: str, action: str, sentence: str, reason: str) -> AuditEntry:
    """``by``: who, and from where."""
    actor, _, source = by.partition("/")
    return AuditEntry(
        id=f"17640440001{rev}-0", service="shop", at=time.time() - age, actor=actor, host="laptop" if actor else "",
        source=source, action=action, fields=[], before=[], after=[], reason=reason, rev=str(rev), sentence=sentence,
        can_undo=rev == 42,
    )  # fmt: skip


def trail() -> list[AuditEntry]:
    return [
        entry(42, 130, "ada/api", "set", "early 15 → 20", "v3 holds in canary since noon"),
        entry(41, 2700, "grace/cli", "set", "canary 2 → 5", "ticket 4711"),
        entry(40, 6100, "/external", "set", "canary 1 → 2", ""),
        entry(39, 9400, "grace/cli", "versions", "canary v2 → v3", "release 2026.11"),
        entry(38, 90_000, "ada/api", "freeze", "freeze on → off", "the holidays are over"),
    ]


def tapped(number: int) -> Tapped:
    """One of a few requests."""
    kinds = [
        ("GET", "/cart", "everyone", "v2", "default", 200, 0.012),
        ("GET", "/product/4711", "early", "v3", "hash", 200, 0.021),
        ("POST", "/order", "canary", "v3", "rule", 201, 0.048),
        ("GET", "/search", "everyone", "v2", "hash", 200, 0.009),
        ("GET", "/assets/app.js", "early", "v2", "fallback", 200, 0.003),
        ("GET", "/checkout", "beta", "v4", "propagated", 503, 0.311),
    ]
    return Tapped(time.time(), "shop", *kinds[number % len(kinds)], f"{(number + 1) * 2_654_435_761 % 2**32:08x}")


EXPLAINED: dict[str, Any] = {
    "service": "shop", "key": "alice", "mints": None, "member_of": None, "killed": [],
    "identity": [
        {"kind": "header", "name": "X-User-Id", "value": "alice", "chosen": True},
        {"kind": "cookie", "name": "uid", "value": None, "chosen": False},
    ],
    "rules": [
        {
            "ring": "canary", "killed": False, "decided": False, "text": "header X-Ring equals 'canary'",
            "holds": False, "found": None,
        },
    ],
    "hash": {
        "bucket": 1412, "ring": "early", "lands_in": "early", "interval": [700, 2700], "leaves_below_percent": 14.13,
        "distance_outward_percent": 12.87, "distance_inward_percent": 7.13,
    },
    "decision": {"ring": "early", "version": "v3", "reason": "hash"},
}  # fmt: skip

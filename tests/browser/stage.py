"""A stage for the dashboard: an admin side whose view is set up as a story needs it, without a router behind it.

For what a real router cannot be brought to within a second: every verdict at once, a fleet of eighteen, a config file
with errors. The figures are invented, and always the same.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from router.admin.app import ADMIN, create_app
from router.admin.bodies import Asked, Change, Done, Reload
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
    Trail,
)
from router.config.admin import AdminSettings
from router.telemetry.picture import (
    Difference,
    Estimate,
    Fleet,
    Instance,
    Metric,
    Picture,
    RingFigures,
    Scope,
    Series,
    ServiceFigures,
    Spark,
    Split,
    Verdict,
    VersionFigures,
)

POINTS = 60


def wave(middle: float, reach: float, phase: float) -> list[float]:
    """A minute of a figure that goes up and down."""
    return [
        round(middle + reach * (math.sin(i / 5 + phase) + 0.5 * math.sin(i / 1.7 + 2 * phase)), 2)
        for i in range(POINTS)
    ]


def version(
    name: str,
    rps: float,
    verdict: Verdict,
    *,
    is_target: bool = True,
    share: float | None = 100.0,
    success: float = 99.9,
    p95: float = 18.0,
    beside: str | None = None,
    differences: Sequence[Difference] = (),
    reasons: dict[str, int] | None = None,
) -> VersionFigures:
    """One version's figures around these."""
    requests = int(60 * rps)
    failed = round(requests * (100 - success) / 100)
    rates = [min(100.0, one) for one in wave(success, (100 - success) / 2, rps)]
    return VersionFigures(
        version=name, is_target=is_target, requests=requests, rps=rps, share=share if requests else None,
        codes={"200": requests - failed, "503": failed}, reasons=reasons or {"hash": requests},
        success=Estimate(success, success - 0.15, min(100.0, success + 0.06)) if requests else None,
        p50=round(p95 / 4, 1) if requests else None, p95=p95 if requests else None,
        p99=round(p95 * 2.4, 1) if requests else None, in_flight=1 if requests else 0, compared_with=beside,
        differences=list(differences), verdict=verdict,
        spark=Spark(wave(rps, rps / 9, rps), list(rates), list(wave(p95, p95 / 8, rps)))
        if requests else Spark([0.0] * POINTS, [None] * POINTS, [None] * POINTS),
    )  # fmt: skip


def difference(
    metric: Any, verdict: Verdict, value: float, low: float, high: float, limit: float, words: str
) -> Difference:
    return Difference(metric, verdict, words, Estimate(value, low, high), limit)


def shop() -> ServiceFigures:
    """A rollout that goes well inside, and has news of trouble further out."""
    canary = version(
        "v3", 20.6, "within", success=99.93, p95=17.4, beside="everyone/v2", reasons={"rule": 98, "member": 41, "hash": 1097},
        differences=[
            difference("errors", "within", 0.01, -0.05, 0.09, 0.3, "errors 0.07 % against 0.06 %: between 0.05 points fewer and 0.09 more"),
            difference("p95", "within", -0.8, -2.1, 0.6, 5.0, "p95 17.4 ms against 18.2 ms: between 2.1 ms faster and 0.6 slower"),
        ],
    )  # fmt: skip
    early = version(
        "v3", 49.8, "collecting", share=61.4, success=99.81, p95=21.2, beside="everyone/v2", reasons={"hash": 2890, "rule": 98},
        differences=[
            difference("errors", "collecting", 0.13, -0.06, 0.34, 0.3, "errors 0.19 % against 0.06 %: between 0.06 points fewer and 0.34 more"),
            difference("p95", "within", 3.0, 1.4, 4.4, 5.0, "p95 21.2 ms against 18.2 ms: between 1.4 and 4.4 ms slower"),
        ],
    )  # fmt: skip
    stayed = version(
        "v2", 31.3, "no_data", is_target=False, share=38.6, success=99.95, p95=18.4, reasons={"fallback": 1878}
    )
    beta = version(
        "v4", 8.2, "breached", success=97.4, p95=46.0, beside="everyone/v2", reasons={"propagated": 60, "hash": 432},
        differences=[
            difference("errors", "breached", 2.54, 1.31, 3.9, 1.0, "errors 2.60 % against 0.06 %: between 1.31 and 3.90 points more"),
            difference("p95", "breached", 27.8, 19.5, 36.0, 5.0, "p95 46 ms against 18.2 ms: between 19.5 and 36 ms slower"),
        ],
    )  # fmt: skip
    everyone = version("v2", 302.6, "no_data", success=99.94, p95=18.2, reasons={"default": 12_540, "hash": 5_616})
    rings = [
        RingFigures("canary", "v3", False, False, 5.0, Estimate(5.0, 4.7, 5.3), 4.96, 12, 20.6, [canary], "within"),
        RingFigures("beta", "v4", False, False, 2.0, Estimate(2.0, 1.8, 2.2), 2.03, 0, 8.2, [beta], "breached"),
        RingFigures("early", "v3", False, False, 20.0, Estimate(19.6, 19.1, 20.2), 19.8, 0, 81.1, [early, stayed], "collecting"),
        RingFigures("everyone", "v2", True, False, 73.0, Estimate(73.4, 72.8, 73.9), 73.2, 0, 302.6, [everyone], "no_data"),
    ]  # fmt: skip
    return ServiceFigures(
        service="shop", rev="42.9f3ac1d0", source="redis", freeze="", rps=412.5, verdict="breached",
        split=Split("within", 0.41, "the shares are what the weights say"), rings=rings, weights_rev="42",
    )  # fmt: skip


def instance(number: int, *, is_current: bool = True, age: float = 4.0) -> Instance:
    rev = {"shop": "42" if is_current else "41"}
    return Instance(
        instance=f"edge-{number:02}:8080", is_self=number == 1, is_fresh=age < 60, at=time.time() - age, generation=number,
        rev=rev, source={"shop": "redis"}, refused=[], warnings=[], is_current=is_current,
    )  # fmt: skip


def fleet() -> Fleet:
    """Eighteen, one of them behind."""
    instances = [instance(number, is_current=number != 7, age=41.0 if number == 7 else 4.0) for number in range(1, 19)]
    return Fleet(True, instances, 17, 18, "17 of 18 instances route by rev 42")


def endpoint(version: str, address: str, state: str, **more: Any) -> BackendState:
    fields: dict[str, Any] = {
        "service": "shop", "version": version, "endpoint": address, "name": f"{version}.shop.internal", "weight": 100,
        "state": state, "is_well": state in ("up", "slow start"), "workers": {"up": 2}, "active": 3, "idle": 14,
        "failures": {}, "ejections": {}, "check": CheckState("up", time.time() - 8100, "", 1620, 0),
    }  # fmt: skip
    return BackendState(**{**fields, **more})


def backends() -> Backends:
    down = CheckState("down", time.time() - 95, "connection refused", 1620, 19)
    return Backends(
        time.time(), "edge-01:8080",
        [
            endpoint("v2", "10.0.4.11:8080", "up", active=11),
            endpoint("v2", "10.0.4.12:8080", "up", active=9, failures={"connect": 2}),
            endpoint("v2", "10.0.4.13:8080", "drained", active=1, idle=0),
            endpoint("v3", "10.0.5.21:8080", "up"),
            endpoint("v3", "10.0.5.22:8080", "slow start", idle=2),
            endpoint("v4", "10.0.6.31:8080", "ejected", workers={"up": 1, "ejected": 1}, failures={"reset": 31, "timeout": 4}, ejections={"outlier": 3}),
            endpoint("v4", "10.0.6.32:8080", "down by checks", active=0, idle=0, check=down, failures={"connect": 118}),
        ],
    )  # fmt: skip


def config() -> ConfigState:
    def value(path: str, said: Any, origin: Any = "file", place: str = "", file_value: Any = None) -> ConfigValue:
        return ConfigValue(path, said, origin, place, file_value)

    return ConfigState(
        revision=7, loaded_at=time.time() - 190, path="/etc/ring-router/router.yaml", error="", problems=[],
        needs_restart=[],
        values=[
            value("listen", "0.0.0.0:8080", place="router.yaml:2:1"),
            value("workers", 2, place="router.yaml:4:10"),
            value("redis", "rediss://ring:***@redis.internal:6379/0", "environment", "REDIS_URL at router.yaml:6:8"),
            value("timeouts.connect", 1.0, "default"),
            value("timeouts.first_byte", 30.0, place="router.yaml:11:15"),
            value("services.shop.rings.canary.weight", 5.0, "redis", "rings:{shop}:weights", 1.0),
            value("services.shop.rings.canary.version", "v3", place="router.yaml:31:18"),
            value("services.shop.rings.early.weight", 20.0, "redis", "rings:{shop}:weights", 20.0),
            value("services.shop.affinity", None, "default"),
        ],
        changed=[ConfigChange("timeouts.first_byte", 15.0, 30.0), ConfigChange("services.shop.versions.v4", None, "10.0.6.31:8080")],
        reloads={"success": 6, "failure": 1, "unchanged": 2},
    )  # fmt: skip


def refused() -> ConfigState:
    """The same, with a file that nobody can use."""
    whole = config()
    problem = ConfigProblem(
        "router.yaml", 31, 17, "weights of shop sum to 105 percent", "The rings before the default one have 100 at the most.",
        "        weight: 85   # was 80",
    )  # fmt: skip
    return ConfigState(
        **{**{f: getattr(whole, f) for f in whole.__struct_fields__}, "error": "1 problem", "problems": [problem]}
    )


def entry(
    number: int, age: float, actor: str, source: str, action: str, sentence: str, reason: str, **more: Any
) -> AuditEntry:
    fields: dict[str, Any] = {"fields": [], "before": [], "after": [], "rev": str(number), "can_undo": False, **more}
    return AuditEntry(
        id=f"17640440001{number}-0", service="shop", at=time.time() - age, actor=actor, host="laptop", source=source,
        action=action, sentence=sentence, reason=reason, **fields,
    )  # fmt: skip


def trail() -> list[AuditEntry]:
    return [
        entry(42, 130, "ada", "api", "set", "early 15 → 20", "v3 holds in canary since noon", can_undo=True),
        entry(41, 2700, "grace", "cli", "set", "canary 2 → 5", "ticket 4711"),
        entry(40, 6100, "", "external", "set", "canary 1 → 2", ""),
        entry(39, 9400, "grace", "cli", "versions", "canary v2 → v3", "release 2026.11"),
        entry(38, 90_000, "ada", "api", "unfreeze", "freeze off", "the holidays are over"),
    ]


def tapped(number: int) -> Tapped:
    kinds = [
        ("GET", "/cart", "everyone", "v2", "default", 200, 0.012), ("GET", "/product/4711", "early", "v3", "hash", 200, 0.021),
        ("POST", "/order", "canary", "v3", "rule", 201, 0.048), ("GET", "/search", "everyone", "v2", "hash", 200, 0.009),
        ("GET", "/assets/app.js", "early", "v2", "fallback", 200, 0.003), ("GET", "/checkout", "beta", "v4", "propagated", 503, 0.311),
    ]  # fmt: skip
    method, path, ring, version_, reason, status, duration = kinds[number % len(kinds)]
    identity = f"{(number * 2654435761) % 0xFFFFFFFF:08x}"
    return Tapped(time.time(), "shop", method, path, ring, version_, reason, status, duration, identity)


EXPLAINED: dict[str, Any] = {
    "service": "shop",
    "identity": [
        {"kind": "header", "name": "X-User-Id", "value": "alice", "chosen": True},
        {"kind": "cookie", "name": "uid", "value": None, "chosen": False},
    ],
    "key": "alice", "mints": None, "member_of": None,
    "rules": [
        {"ring": "canary", "killed": False, "decided": False, "text": "header X-Ring equals 'canary'", "holds": False, "found": None},
    ],
    "hash": {
        "bucket": 1412, "ring": "early", "lands_in": "early", "interval": [700, 2700], "leaves_below_percent": 14.13,
        "distance_outward_percent": 12.87, "distance_inward_percent": 7.13,
    },
    "killed": [], "decision": {"ring": "early", "version": "v3", "reason": "hash"},
}  # fmt: skip


class Line:
    """A tap that has a few requests to tell, and then holds its tongue."""

    def __init__(self, seen: Sequence[Tapped]) -> None:
        self._seen = seen

    async def batches(self) -> AsyncIterator[tuple[Sequence[Any], int]]:
        yield list(self._seen), 0
        while True:
            await asyncio.sleep(10)
            yield [], 0

    def close(self) -> None:
        pass


@dataclass
class Stage:
    """A view (``router.admin.view.View``) of what is put on it."""

    service: ServiceFigures = field(default_factory=shop)
    store: Any = "live"
    instances: Fleet = field(default_factory=fleet)
    configured: ConfigState = field(default_factory=config)
    entries: list[AuditEntry] = field(default_factory=trail)
    requests: list[Tapped] = field(default_factory=lambda: [tapped(number) for number in range(14)])
    port: int = 0

    # -- Health

    def readiness(self) -> tuple[bool, str]:
        return True, "ready"

    def metrics(self) -> bytes:
        return b""

    # -- Figures

    def picture(self, _scope: Scope = "fleet") -> Picture:
        services = {self.service.service: self.service}
        return Picture(time.time(), "fleet", 60, self.instances.count, 42, 42, self.store, services)

    def series(self, service: str, ring: str, version: str | None, metric: Metric, begin: float, step: int) -> Series:
        raise KeyError(f"series of {service} {ring} {version} {metric} from {begin} by {step}")

    def fleet(self) -> Fleet:
        return self.instances

    # -- Looks

    def settings(self) -> AdminSettings:
        return AdminSettings.model_validate({"listen": f"127.0.0.1:{self.port}"})

    def state(self) -> dict[str, Any]:
        config = self.configured
        return {
            "instance": "edge-01:8080", "version": "1.0.0", "started_at": time.time() - 86_400, "listen": ["0.0.0.0:8080"],
            "config": {"revision": config.revision, "loaded_at": config.loaded_at, "error": config.error, "needs_restart": []},
            "store": {"state": self.store, "staleness_seconds": 0.0 if self.store != "down" else 14.0, "last_error": "connection refused"},
            "services": {self.service.service: self.service_state(self.service.service)},
        }  # fmt: skip

    def service_state(self, service: str) -> dict[str, Any] | None:
        if service != self.service.service:
            return None
        return {
            "rev": self.service.rev, "freeze": self.service.freeze, "drained": ["10.0.4.13:8080"], "refused": [],
            "warnings": [], "versions": {name: {"up": True} for name in ("v2", "v3", "v4")},
            "rings": [
                {"ring": one.ring, "version": one.version, "weight": one.target, "killed": one.is_killed, "requests": 0}
                for one in self.service.rings
            ],
        }  # fmt: skip

    def backends(self) -> Backends:
        return backends()

    def config(self) -> ConfigState:
        return self.configured

    def explain(self, asked: Asked) -> dict[str, Any]:
        return EXPLAINED

    async def trail(self, services: list[str], count: int, before: str) -> Trail:
        return Trail(self.entries[:count], True)

    async def newest(self) -> list[AuditEntry]:
        return []

    def tap(self, service: str, ring: str, rate: int) -> Line:
        return Line(self.requests)

    # -- Levers

    async def change(self, wanted: Change | Reload, actor: str) -> Done:
        return Done(
            wanted.dry_run, ["early 20 → 25 percent"], "42.9f3ac1d0", "HSET 'rings:{shop}:weights' early 25 rev 43"
        )


@asynccontextmanager
async def on_stage(stage: Stage) -> AsyncIterator[tuple[str, str]]:
    """The address of the admin side, and a one-time link's path that makes its visitor an operator."""
    app = create_app(stage)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    stage.port = runner.addresses[0][1]
    try:
        yield f"http://127.0.0.1:{stage.port}", app[ADMIN].make_link() or ""
    finally:
        await runner.cleanup()

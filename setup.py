"""The part of the build that TOML cannot say: the request's way as native code, when that is asked for.

``RING_ROUTER_COMPILE=1 pip wheel --no-build-isolation .`` (or ``make compiled``) compiles the modules below with mypyc,
which needs mypy, a C compiler and Python's headers. They are the same files that run interpreted without it: one
source, two speeds.
"""

import os

from setuptools import setup

COMPILED = [
    "router/core/addresses.py",
    "router/core/alike.py",
    "router/core/conditions.py",
    "router/core/decide.py",
    "router/core/globs.py",
    "router/core/hashing.py",
    "router/core/identity.py",
    "router/core/request.py",
    "router/core/rules.py",
    "router/core/semver.py",
    "router/core/shares.py",
    "router/core/signing.py",
    "router/core/snapshot.py",
    "router/core/table.py",
    "router/proxy/admit.py",
    "router/proxy/attempts.py",
    "router/proxy/breaker.py",
    "router/proxy/budget.py",
    "router/proxy/changes.py",
    "router/proxy/door.py",
    "router/proxy/downstream.py",
    "router/proxy/endpoint.py",
    "router/proxy/exchange.py",
    "router/proxy/forwarding.py",
    "router/proxy/framing.py",
    "router/proxy/grammar.py",
    "router/proxy/headcount.py",
    "router/proxy/heads.py",
    "router/proxy/lane.py",
    "router/proxy/lines.py",
    "router/proxy/mirror.py",
    "router/proxy/plane.py",
    "router/proxy/pool.py",
    "router/proxy/pools.py",
    "router/proxy/sightings.py",
    "router/proxy/tally.py",
    "router/proxy/tunnel.py",
    "router/proxy/upstream.py",
    "router/proxy/wheel.py",
    "router/proxy/witness.py",
    "router/telemetry/access_log.py",
    "router/telemetry/buckets.py",
    "router/telemetry/counts.py",
    "router/telemetry/history.py",
    "router/telemetry/journal.py",
    "router/telemetry/log_forms.py",
    "router/telemetry/meters.py",
    "router/telemetry/reports.py",
]


def extensions() -> list:
    if os.environ.get("RING_ROUTER_COMPILE", "0") in ("", "0"):
        return []
    from mypyc.build import mypycify

    return mypycify(COMPILED, opt_level="3", debug_level="0", group_name="ring_router")


setup(ext_modules=extensions())

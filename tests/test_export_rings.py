"""Who is in which ring behind an exported file: real nginx, real HAProxy, and the router's own decision beside them."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import replace
from math import sqrt
from pathlib import Path
from typing import Final

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings

from router.cli.main import main
from router.core.audience import ConditionSpec
from router.core.snapshot import Snapshot
from router.core.spec import RingSpec, ServiceSpec, SnapshotSpec
from router.export.reduced import Engine, reduced
from tests.core_services import COOKIES, NAMES, PARAMETERS, PATHS, WORDS, service_specs
from tests.exported import (
    Asking,
    ask,
    free_port,
    needs_haproxy,
    needs_nginx,
    on_port,
    ring_here,
    running,
    running_file,
    version,
)
from tests.house import shop
from tests.redis_fixture import CONTROL, WEIGHTS, Server
from tests.running import rings_of, running_router
from tests.waiting import until, until_said

BOTH: Final = [pytest.param("nginx", marks=needs_nginx), pytest.param("haproxy", marks=needs_haproxy)]
C = ConditionSpec
NASTY: Final = 'it\'s "$x" `}{;# \\'
RULES: Final = (
    C("header", "X-Team", "equals", ("blue",)),
    C("header", "X-Team", "equals", (NASTY,)),
    C("cookie", "beta", "glob", ("y?s*",)),
    C("query", "ring", "one_of", ("canary", "all")),
)
OTHER_RULES: Final = (
    C("all_of", children=(C("path", "", "prefix", ("/beta",)), C("method", "", "equals", ("POST",), inverted=True))),
    C("any_of", inverted=True, children=(C("header", "X-Old", inverted=True), C("host", "", "equals", ("SHOP",)))),
)


def wide(v1: int, v2: int, **changes: object) -> ServiceSpec:
    """Three rings with everything that both proxies can be told."""
    plain = shop((v1,), (v2,))
    denied = (C("header", "X-Deny", "present"),)
    rings = (
        replace(plain.rings[0], rules=RULES, members=("alice", NASTY), denied=denied),
        replace(plain.rings[1], rules=OTHER_RULES, members=("bob", "alice")),
        RingSpec("everyone", "v1", 7500),
    )
    return replace(plain, rings=rings, **changes)  # type: ignore[arg-type]


def requests(count: int, seed: int = 9) -> list[Asking]:
    """Users by header, by cookie or by nothing, with and without what rules look for."""
    chance = random.Random(seed)
    found = []
    for number in range(count):
        fields = []
        if chance.random() < 0.6:
            key = chance.choice(["alice", "bob", NASTY]) if chance.random() < 0.05 else f"user-{number}"
            fields.append(("X-User-Id", key))
        crumbs = [f"uid=cookie-{number}"] if chance.random() < 0.5 else []
        if chance.random() < 0.1:
            crumbs.insert(chance.randint(0, len(crumbs)), "beta=" + chance.choice(["yes", "yeast", "ys", "no", ""]))
        crumbs.insert(chance.randint(0, len(crumbs)), "xuid=nobody")
        fields.append(("Cookie", "; ".join(crumbs)))
        for name, values in (("X-Team", ["blue", "Blue", NASTY]), ("X-Old", ["1"]), ("X-Deny", ["1"])):
            if chance.random() < 0.06:
                fields.append((name, chance.choice(values)))
        target = chance.choice(["/", "/", "/beta", "/beta/x", "/Beta"])
        target += chance.choice(["", "", "", "?ring=canary", "?xring=canary&a=1", "?a=1&ring=all", "?ring=no&ring=all"])
        host, method = chance.choice(["shop", "SHOP:80", "other"]), chance.choice(["GET", "GET", "POST", "DELETE"])
        if method == "POST":
            fields.append(("Content-Length", "0"))
        found.append(Asking(target, tuple(fields), host, method))
    return found


@needs_haproxy
async def test_every_user_is_in_the_same_ring_behind_haproxy(tmp_path: Path) -> None:
    async with version("v1") as v1, version("v2") as v2:
        spec = on_port(wide(v1, v2))
        asked = requests(4000)
        async with running("haproxy", spec, tmp_path) as port:
            answers = await ask(port, asked)
    snapshot = Snapshot(spec)
    wrong = [
        (one, a.ring, ring_here(snapshot, one))
        for one, a in zip(asked, answers, strict=True)
        if a.ring != ring_here(snapshot, one)
    ]
    assert not wrong, f"{len(wrong)} of {len(asked)}: {wrong[:3]}"
    assert min(Counter(one.ring for one in answers).values()) > 200


def any_requests(count: int, hosts: int, chance: random.Random, *, may_be_empty: bool) -> list[Asking]:
    """Requests in the words of ``core_services``, for services with a host each."""
    words = WORDS if may_be_empty else WORDS[:-1]
    found = []
    for _ in range(count):
        fields = [(name, chance.choice(words)) for name in NAMES if chance.random() < 0.5]
        crumbs = [f"{name}={chance.choice(WORDS)}" for name in COOKIES if chance.random() < 0.4]
        pairs = [f"{chance.choice(PARAMETERS)}={chance.choice(WORDS)}" for _ in range(chance.randint(0, 2))]
        fields += [("Cookie", "; ".join(crumbs))] if crumbs else []
        target = chance.choice(PATHS) + ("?" + "&".join(pairs) if pairs else "")
        host, method = f"s{chance.randrange(hosts)}", chance.choice(["GET", "POST"])
        fields += [("Content-Length", "0")] if method == "POST" else []
        found.append(Asking(target, tuple(fields), host, method))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("engine", BOTH)
async def test_any_services_are_decided_there_as_here(tmp_path: Path, engine: Engine) -> None:
    """As far as they can be had: what is left of each is what both are held against. For nginx, all but the hash."""
    drawn: list[ServiceSpec] = []

    @settings(max_examples=120, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(service=service_specs())
    def draw(service: ServiceSpec) -> None:
        drawn.append(replace(service, name=f"s{len(drawn)}", hosts=(f"s{len(drawn)}",)))

    draw()
    async with version("v1") as v1, version("v2") as v2:
        versions = shop((v1,), (v2,)).versions
        whole = on_port(*(replace(one, versions=versions, login="user_wins") for one in drawn))
        spec = without_tables(reduced(whole, engine)[0])
        asked = any_requests(6000, len(drawn), random.Random(4), may_be_empty=engine == "haproxy")
        async with running(engine, spec, tmp_path) as port:
            answers = await ask(port, asked)
    snapshots = [Snapshot(spec)] if engine == "haproxy" else [Snapshot(_all_in(spec, place)) for place in (0, -1)]
    compared = 0
    for one, answer in zip(asked, answers, strict=True):
        wanted = {ring_here(snapshot, one) for snapshot in snapshots}
        if len(wanted) == 1:
            compared += 1
            assert {answer.ring} == wanted, (one, spec.services[int(one.host[1:])])
    assert compared > 3000


def without_tables(spec: SnapshotSpec) -> SnapshotSpec:
    def bare(service: ServiceSpec) -> ServiceSpec:
        return replace(service, rings=tuple(replace(ring, tables=(), holdback=0) for ring in service.rings))

    return replace(spec, services=tuple(map(bare, spec.services)))


@needs_haproxy
@pytest.mark.parametrize("changes", [{"salt": "summer"}, {"killed": ("canary",)}, {"killed": ("canary", "early")}])
async def test_salts_and_kills_are_the_same_behind_haproxy(tmp_path: Path, changes: dict[str, object]) -> None:
    async with version("v1") as v1, version("v2") as v2:
        spec = on_port(wide(v1, v2, **changes))
        asked = requests(800, seed=3)
        async with running("haproxy", spec, tmp_path) as port:
            answers = await ask(port, asked)
    snapshot = Snapshot(spec)
    assert [one.ring for one in answers] == [ring_here(snapshot, one) for one in asked]


@needs_nginx
@pytest.mark.parametrize("killed", [(), ("canary",)])
async def test_behind_nginx_rules_are_the_same_and_the_hash_gives_the_same_shares(
    tmp_path: Path, killed: tuple[str, ...]
) -> None:
    """Whom the router sorts by something else than the hash is in the same ring; the others come in its shares."""
    async with version("v1") as v1, version("v2") as v2:
        spec = on_port(wide(v1, v2, killed=killed))
        asked = requests(4000)
        async with running("nginx", spec, tmp_path) as port:
            answers = await ask(port, asked)
    snapshot = Snapshot(spec)
    # Where neither of two opposite hashes matters, something else decided.
    inner, outer = (Snapshot(_all_in(spec, place)) for place in (0, 2))
    hashed: Counter[str] = Counter()
    for one, answer in zip(asked, answers, strict=True):
        if ring_here(inner, one) == ring_here(outer, one):
            assert answer.ring == ring_here(snapshot, one), one
        elif not any(name == "X-Deny" for name, _ in one.fields):
            hashed[answer.ring] += 1
    total = hashed.total()
    assert total > 1000
    shares = {"early": 0.25, "everyone": 0.75} if killed else {"canary": 0.05, "early": 0.2, "everyone": 0.75}
    assert set(hashed) == set(shares)
    for ring, share in shares.items():
        # Four and a half standard deviations of a binomial count: one run in 100,000 would be outside.
        assert abs(hashed[ring] - total * share) < 4.5 * sqrt(total * share * (1 - share)), hashed


def _all_in(spec: SnapshotSpec, place: int) -> SnapshotSpec:
    """The same, with everybody's hash in one ring."""

    def one(service: ServiceSpec) -> ServiceSpec:
        at = place % len(service.rings)
        rings = [replace(ring, basis_points=10_000 * (number == at)) for number, ring in enumerate(service.rings)]
        return replace(service, rings=tuple(rings))

    return replace(spec, services=tuple(map(one, spec.services)))


@pytest.mark.parametrize("engine", BOTH)
async def test_no_ring_is_believed_but_the_router_s(tmp_path: Path, engine: Engine) -> None:
    forged = (("X-Ring", "early"), ("X-Ring-Version", "v9"), ("X_Ring", "early"), ("x-ring-override", "early"))
    async with version("v1") as v1, version("v2") as v2:
        plain = shop((v1,), (v2,))
        async with running(engine, on_port(plain), tmp_path) as port:
            (plainly, ruled) = await ask(port, [Asking(fields=forged), Asking(fields=(("X-Ring", "canary"),))])
    for answer, ring, runs in ((plainly, "everyone", "v1"), (ruled, "canary", "v2")):
        assert (answer.ring, answer.said["x-ring-version"], answer.said["served-by"]) == (ring, runs, runs)
        assert "forged" not in answer.said.values()
        assert "x-ring-reason" not in answer.said
        fields = [line.lower() for line in answer.asked.split("\r\n") if "ring" in line.lower()]
        assert sorted(fields) == [f"x-ring-version: {runs}", f"x-ring: {ring}"]


@pytest.mark.parametrize("engine", BOTH)
async def test_a_ring_without_a_backend_falls_outward_unless_it_is_closed(tmp_path: Path, engine: Engine) -> None:
    to_canary = Asking(fields=(("X-Ring", "canary"),))
    async with version("v1") as v1:
        for closed in (False, True):
            plain = shop((v1,), (free_port(),))
            spec = on_port(replace(plain, rings=(replace(plain.rings[0], falls_outward=not closed), *plain.rings[1:])))
            async with running(engine, spec, tmp_path) as port:

                async def settled(port: int = port, closed: bool = closed) -> bool:
                    status = (await ask(port, [to_canary]))[0].status
                    return status in (502, 503) if closed else status == 200

                await until(settled, within=10)
                (answer,) = await ask(port, [to_canary])
            if not closed:
                said = answer.said
                assert (answer.ring, said["x-ring-version"], said["x-ring-reason"]) == ("canary", "v1", "fallback")


@pytest.mark.parametrize("engine", BOTH)
async def test_services_are_found_by_host_and_path_as_here(tmp_path: Path, engine: Engine) -> None:
    async with version("v1") as v1:

        def one(name: str, hosts: tuple[str, ...], paths: tuple[str, ...] = ()) -> ServiceSpec:
            rings = (RingSpec(f"ring-of-{name}", "v1", 10_000),)
            return replace(shop((v1,), (v1,)), name=name, hosts=hosts, paths=paths, rings=rings)

        spec = on_port(
            one("exact", ("shop.example",), ("/api", "/it's$x")), one("deep", ("shop.example",), ("/api/v2/",)),
            one("wild", ("*.example",)), one("wilder", ("*.a.example",)), one("default", (), ("/any",)),
            one("a-b", ("a-b",)), one("a_b", ("a_b",)), one("the", ("the",)), one("http", ("http",)),
        )  # fmt: skip
        hosts = (
            "shop.example",
            "SHOP.example:80",
            "x.example",
            "x.y.a.example",
            "example",
            "else",
            "a-b",
            "a_b",
            "the",
            "http",
        )
        paths = ("/", "/api", "/api/", "/apix", "/api/v2", "/api/v2/x?y", "/any?x", "/anyway", "/it's$x/y", "/api?/v2")
        asked = [Asking(path, host=host) for host in hosts for path in paths]
        async with running(engine, spec, tmp_path) as port:
            answers = await ask(port, asked)
    snapshot = Snapshot(spec)
    for asking, answer in zip(asked, answers, strict=True):
        wanted = ring_here(snapshot, asking)
        assert (answer.status, answer.ring) == ((200, wanted) if wanted else (404, "")), asking


@needs_haproxy
async def test_what_is_in_force_now_is_what_is_exported(tmp_path: Path, redis_server: Server) -> None:
    """Weights and a kill that are in Redis alone; users of the router and of the exported file are in the same ring."""
    users = [f"user-{number}" for number in range(1000)]
    async with running_router(tmp_path, redis=redis_server.url, workers=1) as router:
        redis_server.redis_cli("HSET", WEIGHTS, "canary", "10", "early", "30")
        redis_server.redis_cli("HSET", CONTROL, "kill", "canary")
        await until_said(
            lambda: (
                router.state()["services"]["shop"]["rings"][0]["killed"]
                and router.weights() == {"canary": 10.0, "early": 30.0, "everyone": 60.0}
                and router.is_everywhere()
            )
        )
        admin = f"http://127.0.0.1:{router.admin}"
        words = ["export", "haproxy", "--live", "--admin", admin]
        done = await asyncio.to_thread(CliRunner().invoke, main, words)
        assert done.exit_code == 0, done.output
        port = free_port()
        text = done.stdout.replace(f"127.0.0.1:{router.port}'", f"127.0.0.1:{port}'")
        async with running_file("haproxy", text, port, tmp_path):
            answers = await ask(port, [Asking(fields=(("X-User-Id", user),)) for user in users])
        rings = await rings_of(router, users)
    assert [one.ring for one in answers] == [rings[user] for user in users]
    assert set(rings.values()) == {"early", "everyone"}

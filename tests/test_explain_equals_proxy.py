"""``explain`` and the proxy say the same of ten thousand requests to a hundred services: hypothesis makes both.

The requests go over real sockets. What is compared is the ring and the version of each answer, and, service by service,
how often the proxy counted each reason.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, replace
from urllib.parse import quote

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from router.core.audience import ConditionSpec, IdentitySpec
from router.core.explain import explain
from router.core.request import Request
from router.core.snapshot import Service, Snapshot
from router.core.spec import EndpointSpec, RingSpec, ServiceSpec, VersionSpec
from tests.core_services import COOKIES, NAMES, WORDS, conditions, holdbacks, weights
from tests.house import fixed, raw_backend, running_plane, snapshot

SERVICES, REQUESTS = 100, 100
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
PATHS = ("/", "/cart", "/cart/7", "/api/x")
METHODS = ("GET", "HEAD", "POST", "DELETE")
HOSTS = ("shop", "beta.shop")
VERSION_TEXTS = ("5.1", "5.2.0", "v6.0.1-rc.1", "")
_places = st.one_of(
    st.builds(
        lambda name, how, word: ConditionSpec("query", name, how, (word,)),
        st.sampled_from(COOKIES), st.sampled_from(["equals", "prefix", "suffix", "contains"]), st.sampled_from(WORDS),
    ),
    st.builds(
        lambda how, path: ConditionSpec("path", "", how, (path,)),
        st.sampled_from(["equals", "prefix", "suffix"]), st.sampled_from(PATHS),
    ),
    st.builds(
        lambda some: ConditionSpec("method", "", "one_of", tuple(some)),
        st.lists(st.sampled_from(METHODS), min_size=1),
    ),
    st.builds(lambda host: ConditionSpec("host", "", "equals", (host,)), st.sampled_from(HOSTS)),
    st.builds(
        lambda networks: ConditionSpec("client", "", "within", tuple(networks)),
        st.lists(st.sampled_from(["127.0.0.0/8", "10.0.0.0/8", "::1/128"]), min_size=1),
    ),
    st.builds(
        lambda how, word: ConditionSpec("user", "", how, (word,)),
        st.sampled_from(["equals", "prefix", "contains"]), st.sampled_from(WORDS),
    ),
    st.builds(
        lambda wanted: ConditionSpec("header", "X-App", "semver", (wanted,)), st.sampled_from([">=5.2", "<6", "=5.1"])
    ),
    st.builds(lambda glob: ConditionSpec("cookie", "ring", "glob", (glob,)), st.sampled_from(["c*y", "?", "*"])),
    st.builds(
        lambda window: ConditionSpec("time", "", "within", window),
        st.sampled_from([("2020-01-01T00:00:00Z", ""), ("", "2020-01-01T00:00:00Z"), ("2999-01-01T00:00:00Z", "")]),
    ),
)  # fmt: skip
_rules = st.builds(
    lambda parts, share, inverted: ConditionSpec("all_of", children=tuple(parts), share=share, inverted=inverted),
    st.lists(st.one_of(_places, conditions), min_size=1, max_size=2),
    st.sampled_from([10_000, 10_000, 5_000]),
    st.sampled_from([False, False, False, True]),
)
_identity = st.lists(
    st.one_of(
        st.builds(IdentitySpec, st.just("header"), st.sampled_from(NAMES)),
        st.builds(IdentitySpec, st.sampled_from(["cookie", "query"]), st.sampled_from(COOKIES)),
        st.builds(IdentitySpec, st.just("header"), st.just("X-Account"), st.just(True)),
        st.just(IdentitySpec("client", "")),
    ),
    max_size=3,
)


@dataclass(frozen=True)
class Asked:
    method: str
    host: str
    path: str
    query: tuple[tuple[str, str], ...]
    fields: tuple[tuple[str, str], ...]
    cookies: tuple[tuple[str, str], ...]

    @property
    def raw(self) -> bytes:
        target = self.path + ("?" + "&".join(f"{name}={value}" for name, value in self.query) if self.query else "")
        lines = [f"{self.method} {target} HTTP/1.1", f"Host: {self.host}"]
        lines += [f"{name}: {value}" for name, value in self.fields]
        if self.cookies:
            lines.append("Cookie: " + "; ".join(f"{name}={value}" for name, value in self.cookies))
        if self.method == "POST":
            lines.append("Content-Length: 0")
        return "\r\n".join([*lines, "", ""]).encode()

    def request(self, service: Service) -> Request:
        """The same as the decision gets to see it."""
        cookie = "; ".join(f"{name}={value}" for name, value in self.cookies)
        headers = {name.lower().encode(): value.encode() for name, value in self.fields}
        made = Request(self.host.encode(), self.path.encode(), headers, cookie.encode(), self.method.encode())
        made.query = "&".join(f"{name}={value}" for name, value in self.query).encode()
        made.client = b"127.0.0.1"
        made.now = time.time()
        wish = dict(self.fields).get("X-Ring-Override", "")
        if service.spec.override == "insecure" and wish in service.overrides:
            made.override = wish
        return made


@st.composite
def specs(draw: st.DrawFn) -> ServiceSpec:
    """Any service: identity, rules, members, deny lists, holdbacks, kills, login and overrides as they come."""
    points = draw(weights)
    rings = []
    for i, basis_points in enumerate(points):
        ring = RingSpec(f"r{i}", draw(st.sampled_from(["v1", "v2"])), basis_points)
        rings.append(
            replace(
                ring,
                rules=tuple(draw(st.lists(_rules, max_size=2))),
                denied=tuple(draw(st.lists(_rules, max_size=1))),
                members=tuple(draw(st.lists(st.sampled_from(WORDS[:-1]), max_size=2))),
                holdback=draw(holdbacks),
            )
        )
    rings.append(RingSpec("everyone", "v1", 10_000 - sum(points)))
    identity = draw(_identity)
    if draw(st.booleans()):
        identity.append(IdentitySpec("anonymous_cookie", "ring_uid"))
    return ServiceSpec(
        "shop",
        (),
        tuple(rings),
        salt=draw(st.sampled_from(["", "salt"])),
        identity=tuple(identity),
        killed=tuple(draw(st.lists(st.sampled_from([ring.name for ring in rings]), max_size=2))),
        login=draw(st.sampled_from(["anonymous_first", "user_wins", "outer_wins"])),
        override=draw(st.sampled_from(["passes", "insecure", "off"])),
    )


_asked = st.builds(
    Asked,
    st.sampled_from(METHODS),
    st.sampled_from(HOSTS),
    st.sampled_from(PATHS),
    st.lists(st.tuples(st.sampled_from(COOKIES), st.sampled_from(WORDS).map(quote)), max_size=2).map(tuple),
    st.dictionaries(
        st.sampled_from([*NAMES, "X-App", "X-Account", "X-Ring-Override"]),
        st.one_of(st.sampled_from(WORDS), st.sampled_from(VERSION_TEXTS), st.sampled_from(["r0", "r1", "everyone"])),
        max_size=4,
    ).map(lambda fields: tuple(fields.items())),
    st.lists(
        st.tuples(
            st.sampled_from([*COOKIES, "ring_uid"]),
            st.one_of(st.sampled_from(WORDS), st.integers(0, 999).map(str)),
        ),
        max_size=3, unique_by=lambda pair: pair[0],
    ).map(tuple),
)  # fmt: skip


async def differences(spec: ServiceSpec, asked: list[Asked]) -> list[str]:
    """What the proxy did otherwise than ``explain`` says."""
    wrong, foreseen = [], Counter[str]()
    async with raw_backend(fixed(OK)) as v1, raw_backend(fixed(OK)) as v2:
        versions = tuple(
            VersionSpec(name, (EndpointSpec("127.0.0.1", port),)) for name, port in (("v1", v1), ("v2", v2))
        )
        whole = snapshot(replace(spec, versions=versions))
        service = Snapshot(whole).services[0]
        async with running_plane(whole) as router:
            reader, writer = await router.connect()
            for one in asked:
                trace = explain(service, one.request(service))
                writer.write(one.raw)
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                found = tuple(
                    head.partition(f"\r\n{name}: ")[2].partition("\r\n")[0] for name in ("x-ring", "x-ring-version")
                )
                if trace.mints is not None:
                    foreseen["minted"] += 1  # a key that nobody can foresee
                    continue
                foreseen[trace.decision.reason.value] += 1
                if found != (trace.decision.ring, trace.decision.version):
                    wrong.append(f"{one}: {found}, not {trace.decision}")
            writer.close()
            counted = Counter[str]()
            for ring in router.plane.collect(whole=True).rings.values():
                counted.update(ring.reasons)
    if not foreseen["minted"] and counted != foreseen:
        wrong.append(f"reasons {dict(counted)}, not {dict(foreseen)}")
    return wrong


@settings(max_examples=SERVICES, deadline=None, suppress_health_check=list(HealthCheck))
@given(specs(), st.lists(_asked, min_size=REQUESTS, max_size=REQUESTS))
def test_explain_says_what_the_proxy_does(spec: ServiceSpec, asked: list[Asked]) -> None:
    assert asyncio.run(differences(spec, asked)) == []

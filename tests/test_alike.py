"""What services have alike is one thing in memory, and decides for each of them as if it were its own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from router.core.audience import ConditionSpec, IdentitySpec
from router.core.decide import decide, identify
from router.core.identity import described
from router.core.snapshot import Snapshot, compile_service
from router.core.spec import EndpointSpec, RingSpec, ServiceSpec, SnapshotSpec, VersionSpec

VERSIONS = tuple(VersionSpec(name, (EndpointSpec("127.0.0.1", 1),)) for name in ("v1", "v2"))
RULES = (
    ConditionSpec("header", "X-Ring", "equals", ("canary",)),
    ConditionSpec("cookie", "ring", "equals", ("canary",)),
    ConditionSpec("header", "X-Tenant", "prefix", ("a",), share=5000),
)


@st.composite
def services(draw: st.DrawFn) -> tuple[ServiceSpec, ...]:
    """Few values of each, so that many services have something alike and something of their own."""
    made = []
    for number in range(draw(st.integers(2, 6))):
        canary = RingSpec(
            "canary",
            draw(st.sampled_from(["v1", "v2"])),
            draw(st.sampled_from([0, 500, 5000])),
            draw(st.sampled_from([(), RULES[:1], RULES[:2], RULES])),
            members=draw(st.sampled_from([(), ("user-1",)])),
        )
        made.append(
            ServiceSpec(
                f"shop-{number}",
                VERSIONS,
                (canary, RingSpec("early", "v2", 2000), RingSpec("everyone", "v1")),
                hosts=(f"shop-{number}",),
                salt=draw(st.sampled_from(["", "pepper"])),
                identity=(IdentitySpec("header", draw(st.sampled_from(["X-User-Id", "X-Tenant"]))),),
                killed=draw(st.sampled_from([(), ("canary",)])),
            )
        )
    return tuple(made)


@given(services(), st.lists(st.integers(0, 3), min_size=3, max_size=3))
def test_services_decide_together_as_each_does_alone(specs: tuple[ServiceSpec, ...], asked: list[int]) -> None:
    user, ring, tenant = asked
    fields = [(b"X-User-Id", b"user-%d" % user)]
    fields += [(b"X-Ring", b"canary")] if ring == 1 else [(b"Cookie", b"ring=canary")] if ring == 2 else []
    fields += [(b"X-Tenant", b"ab"[tenant : tenant + 1] + b"cme")] if tenant < 2 else []
    for together, spec in zip(Snapshot(SnapshotSpec(1, specs)).services, specs, strict=True):
        said = []
        for service in (together, compile_service(spec)):
            request = described(spec.hosts[0].encode(), b"/", fields)
            said.append((decide(service, request, identify(service, request)), request.digest))
            assert service.decisions[said[-1][0].index] == said[-1][0]
        assert said[0] == said[1]


def test_equal_parts_are_one_and_others_are_not() -> None:
    rings = (RingSpec("canary", "v2", 500, RULES), RingSpec("everyone", "v1"))
    wider = (RingSpec("canary", "v2", 600, RULES), RingSpec("everyone", "v1"))
    identity = (IdentitySpec("header", "X-User-Id"),)
    specs = [
        ServiceSpec(f"shop-{number}", VERSIONS, some, identity=identity)
        for number, some in enumerate([rings, rings, wider])
    ]
    one, same, other = Snapshot(SnapshotSpec(1, tuple(specs))).services
    assert one.rules is same.rules is other.rules
    assert one.bounds is same.bounds
    assert one.bounds != other.bounds
    assert one.identity is other.identity

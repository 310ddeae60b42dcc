"""What is said of rings whose version has no healthy endpoint."""

from __future__ import annotations

from dataclasses import replace

from router.control.unhealthy import warnings_of, widened
from router.core.spec import ServiceSpec
from tests.house import shop

WELL = shop((9001,), (9002, 9003))


def sick(service: ServiceSpec, *versions: str) -> ServiceSpec:
    """All endpoints of these versions are down."""
    return replace(
        service,
        versions=tuple(
            replace(v, down=tuple(one.address for one in v.endpoints)) if v.name in versions else v
            for v in service.versions
        ),
    )


def closed(service: ServiceSpec, ring: str) -> ServiceSpec:
    return replace(
        service, rings=tuple(replace(r, falls_outward=False) if r.name == ring else r for r in service.rings)
    )


def test_nothing_is_said_while_every_version_has_an_endpoint_left() -> None:
    assert warnings_of(WELL) == ()
    v1, v2 = WELL.versions
    assert warnings_of(replace(WELL, versions=(v1, replace(v2, down=("127.0.0.1:9002",))))) == ()
    both = replace(v2, down=("127.0.0.1:9002",), drained=("127.0.0.1:9003",))
    assert len(warnings_of(replace(WELL, versions=(v1, both)))) == 2


def test_each_ring_says_what_becomes_of_its_users() -> None:
    assert warnings_of(closed(sick(WELL, "v2"), "early")) == (
        "ring canary: version v2 has no healthy endpoint, its users get v1 of the ring everyone",
        "ring early: version v2 has no healthy endpoint, its users get 503",
    )
    assert warnings_of(sick(WELL, "v1")) == (
        "ring everyone: version v1 has no healthy endpoint, and no ring outward has one",
    )
    assert warnings_of(replace(sick(WELL, "v2"), killed=("canary", "early"))) == ()


def test_widening_towards_a_sick_version_is_said_and_narrowing_is_not() -> None:
    narrow, wide = (sick(shop((9001,), (9002,), canary=points), "v2") for points in (500, 2000))
    assert widened(narrow, wide) == (
        "ring canary was widened from 5 to 20 percent, but version v2 has no healthy endpoint: "
        "its users get v1 of the ring everyone",
    )
    assert widened(wide, narrow) == ()
    assert widened(narrow, narrow) == ()
    assert widened(shop((9001,), (9002,), canary=500), shop((9001,), (9002,), canary=2000)) == ()
    everyone_sick = sick(wide, "v1", "v2")
    assert widened(everyone_sick, sick(narrow, "v1", "v2")) == ()  # the default ring only takes what is left


def test_a_kill_that_is_lifted_and_a_version_that_is_sick_already_count_as_widening() -> None:
    ill = sick(WELL, "v2")
    assert [s.partition(",")[0] for s in widened(replace(ill, killed=("canary",)), ill)] == [
        "ring canary is not killed any more"
    ]
    canary, *rest = ill.rings
    before = replace(ill, rings=(replace(canary, version="v1"), *rest))
    assert [s.partition(",")[0] for s in widened(before, ill)] == ["ring canary runs v2 instead of v1"]

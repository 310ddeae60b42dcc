"""What control knows of endpoints: all of them, though a report tells only of those that moved."""

from __future__ import annotations

from loadtests.rig import free_ports
from router.core.spec import ClientTlsSpec, EndpointSpec, VersionSpec
from router.core.standing import Event
from router.proxy.plane import DataPlane
from router.telemetry.counters import EndpointCounters, EndpointKey, WorkerCounters, fold
from router.telemetry.messages import pack_counters, unpack_counters
from router.telemetry.reports import apply_report
from tests.house import fixed, raw_backend, running_plane, shop, snapshot

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CANARY = b"GET / HTTP/1.1\r\nHost: shop\r\nX-Ring: canary\r\nConnection: close\r\n\r\n"
Seen = dict[EndpointKey, tuple[int, int, dict[str, int], dict[str, int], dict[str, int]]]


def truth(plane: DataPlane) -> Seen:
    """Of each endpoint: requests under way, idle connections, failures, ejections, and how it is."""
    return {
        key: (one.active, len(one.reserve.idle), *what_happened(one.counters), {one.standing.value: 1})
        for key, one in plane.pools.endpoints.items()
    }


def seen(known: WorkerCounters) -> Seen:
    total = WorkerCounters()
    fold(total, known, gauges=True)
    return {key: (one.active, one.idle, *what_happened(one), one.states) for key, one in total.endpoints.items()}


def what_happened(counters: EndpointCounters) -> tuple[dict[str, int], dict[str, int]]:
    return dict(counters.failures), dict(counters.ejections)


def report(plane: DataPlane, *, whole: bool = False) -> WorkerCounters:
    """As it arrives in control."""
    return unpack_counters(pack_counters(plane.collect(whole=whole)))


async def test_control_knows_every_endpoint_though_only_those_that_moved_are_told() -> None:
    (dead,) = free_ports(1)
    async with raw_backend(fixed(OK)) as well, raw_backend(fixed(OK)) as other:
        async with running_plane(snapshot(shop((well,), (other, dead)))) as router:
            known = apply_report(WorkerCounters(), report(router.plane, whole=True))
            assert seen(known) == truth(router.plane)

            # One that cannot be reached is told of; those whose connections come and rest are numbers in a row.
            for _ in range(20):
                assert (await router.ask(CANARY)).endswith(b"ok")
            came = report(router.plane)
            assert [address for _, _, address in came.endpoints] == [f"127.0.0.1:{dead}"]
            known = apply_report(known, came)
            assert seen(known) == truth(router.plane)
            assert known.endpoints["shop", "v2", f"127.0.0.1:{dead}"].failures["connect"]
            assert seen(known)["shop", "v2", f"127.0.0.1:{other}"][1] == 1

            # Ejected and well again between two reports: as it was, and yet counted.
            pool, now = router.plane.pools.versions["shop", "v1"], router.plane.now()
            (one,) = pool.endpoints
            for event in (Event.OUTLIER, Event.TIME_OVER, Event.TIME_OVER):
                pool.happened(one, event, now)
            assert one.standing is one.told
            known = apply_report(known, report(router.plane))
            assert seen(known) == truth(router.plane)
            assert known.endpoints["shop", "v1", f"127.0.0.1:{well}"].ejections == {"outlier": 1}

            # Nothing happened: nobody is told of.
            came = report(router.plane)
            assert not came.endpoints
            known = apply_report(known, came)
            assert seen(known) == truth(router.plane)

            # Others, in another order: the row of numbers is theirs from now on, and who is gone is gone.
            router.plane.install(snapshot(shop((well, other), (other,)), generation=2))
            known = apply_report(known, report(router.plane))
            assert seen(known) == truth(router.plane)
            assert len(known.endpoints) == 3

            # A control that comes new is told all.
            assert seen(apply_report(WorkerCounters(), report(router.plane, whole=True))) == truth(router.plane)


async def test_what_still_happens_to_one_that_is_spoken_to_in_another_way_now_is_told() -> None:
    (port,) = free_ports(1)
    plain, key = snapshot(shop((port,), (port,))), ("shop", "v1", f"127.0.0.1:{port}")
    named = VersionSpec("v1", (EndpointSpec("127.0.0.1", port, tls=ClientTlsSpec()),))
    async with running_plane(plain) as router:
        known = apply_report(WorkerCounters(), report(router.plane, whole=True))
        before = router.plane.pools.endpoints[key]
        secure = shop((port,), (port,), versions=(named, plain.services[0].versions[1]))
        router.plane.install(snapshot(secure, generation=2))
        known = apply_report(known, report(router.plane))
        assert router.plane.pools.endpoints[key] is not before

        before.failed("timeout")

        known = apply_report(known, report(router.plane))
        assert known.endpoints[key].failures == {"timeout": 1}


async def test_one_that_comes_back_is_told_of_as_a_new_one() -> None:
    dead, another = free_ports(2)
    with_dead, without = snapshot(shop((dead,), (dead,))), snapshot(shop((dead,), (another,)), generation=2)
    async with running_plane(with_dead) as router:
        known = apply_report(WorkerCounters(), report(router.plane, whole=True))
        assert b"502" in (await router.ask(CANARY))
        known = apply_report(known, report(router.plane))
        place = ("shop", "v2", f"127.0.0.1:{dead}")
        assert known.endpoints[place].failures

        # There and gone and there again between two reports: in the same order, and with nothing counted.
        router.plane.install(without)
        router.plane.install(snapshot(shop((dead,), (dead,)), generation=3))
        known = apply_report(known, report(router.plane))
        assert seen(known) == truth(router.plane)
        assert not known.endpoints[place].failures

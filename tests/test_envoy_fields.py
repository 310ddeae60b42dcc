"""No setting vanishes on its way to Envoy: each field of a snapshot changes what Envoy is told, is refused where it is
not as Envoy has it, is nothing that the data plane reads, or stands in docs/envoy.md as otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Final, get_args, get_type_hints

import pytest

from router.core.audience import ConditionSpec, CookieSpec, IdentitySpec, IssuerSpec, KeySpec
from router.core.records import TracingSpec
from router.core.spec import (
    CertificateSpec,
    ClientTlsSpec,
    EndpointSpec,
    ErrorPageSpec,
    ListenerSpec,
    MirrorSpec,
    RecycleSpec,
    RingSpec,
    ServerTlsSpec,
    ServiceSpec,
    SnapshotSpec,
    SocketSpec,
    VersionSpec,
)
from router.envoy.options import EnvoyOptions
from router.envoy.refusals import refusals
from router.envoy.resources import resources

TLS = ClientTlsSpec("/ca", "/certificate", "/key", digest="1")
IS_STAFF = ConditionSpec(
    "any_of", children=tuple(ConditionSpec("header", name, "equals", ("yes",)) for name in ("X-Staff", "X-Guest"))
)
BASE: Final = SnapshotSpec(
    1,
    (
        ServiceSpec(
            "shop",
            (
                VersionSpec("v1", (EndpointSpec("10.0.0.1", 1, tls=TLS, name="a.internal"),)),
                VersionSpec("v2", (EndpointSpec("10.0.0.2", 1, tls=TLS, name="a.internal"),)),
            ),
            (
                RingSpec("canary", "v2", 500, rules=(IS_STAFF,), members=("alice",)),
                RingSpec("everyone", "v1"),
            ),
            identity=(IdentitySpec("header", "X-User"),),
        ),
    ),
    ListenerSpec(
        sockets=(SocketSpec("10.0.0.9:80", ServerTlsSpec((CertificateSpec("/c", "/k", ("a",), "1"),), "/clients")),)
    ),
)
ADDRESSES = ("10.0.0.1:1", "10.0.0.2:1")
TRANSLATED: Final[dict[str, Any]] = {
    "ClientTlsSpec.ca": "/x", "ClientTlsSpec.certificate": "/x", "ClientTlsSpec.key": "/x", "ClientTlsSpec.name": "x",
    "ClientTlsSpec.verify": False, "ClientTlsSpec.digest": "2",
    "EndpointSpec.host": "10.0.0.3", "EndpointSpec.port": 2, "EndpointSpec.path": "/x", "EndpointSpec.weight": 2,
    "EndpointSpec.tls": None, "EndpointSpec.name": "x",
    "VersionSpec.endpoints": (), "VersionSpec.down": ADDRESSES,
    "VersionSpec.drained": ADDRESSES,
    "RingSpec.name": "x", "RingSpec.version": "v2", "RingSpec.basis_points": 9, "RingSpec.members": ("x",),
    "RingSpec.rules": (), "RingSpec.denied": (IS_STAFF,), "RingSpec.falls_outward": False,
    "ConditionSpec.name": "x", "ConditionSpec.compare": "prefix", "ConditionSpec.values": ("x",),
    "ConditionSpec.kind": "cookie", "ConditionSpec.inverted": True,
    "ConditionSpec.children": (ConditionSpec("method", "", "equals", ("PUT",)),),
    "IdentitySpec.kind": "cookie", "IdentitySpec.name": "x", "IdentitySpec.is_trusted_only": True,
    "BalanceSpec.kind": "round_robin", "BalanceSpec.slow_start": 5.0,
    "ConnectionsSpec.idle": 9.0, "ConnectionsSpec.max_age": 9.0,
    "OutlierSpec.consecutive_errors": 9, "OutlierSpec.ejection": 9.0, "OutlierSpec.max_ejection": 99.0,
    "OutlierSpec.max_ejected_basis_points": 900, "OutlierSpec.success_rate": False,
    "RetrySpec.attempts": 1, "RetrySpec.statuses": (503,), "RetrySpec.per_try": 9.0,
    "RetrySpec.budget_basis_points": 900, "RetrySpec.replay_bytes": 9,
    "TimeoutsSpec.connect": 9.0, "TimeoutsSpec.first_byte": 99.0, "TimeoutsSpec.between_bytes": 99.0,
    "ServiceSpec.name": "x", "ServiceSpec.hosts": ("x",), "ServiceSpec.paths": ("/x",), "ServiceSpec.salt": "x",
    "ServiceSpec.identity": (), "ServiceSpec.killed": ("canary",), "ServiceSpec.response_headers": False,
    "ServiceSpec.override": "insecure",
    "LimitsSpec.head_bytes": 9 * 1024, "LimitsSpec.fields": 9, "LimitsSpec.requests_per_connection": 9,
    "CertificateSpec.certificate": "/x", "CertificateSpec.key": "/x", "CertificateSpec.digest": "2",
    "ServerTlsSpec.client_ca": "/x", "ServerTlsSpec.client_certificate": "required",
    "ServerTlsSpec.client_ca_digest": "2", "ServerTlsSpec.min_version": "1.3", "ServerTlsSpec.hsts_seconds": 9,
    "SocketSpec.address": "10.0.0.9:81", "SocketSpec.tls": None, "SocketSpec.proxy_protocol": True,
    "SocketSpec.redirect_port": 443,
    "ListenerSpec.trusted_proxies": ("10.0.0.0/8",), "ListenerSpec.head_timeout": 9.0, "ListenerSpec.idle_timeout": 9.0,
    "ListenerSpec.body_timeout": 99.0, "ListenerSpec.request_timeout": 9.0, "ListenerSpec.tunnel_timeout": 9.0,
    "ListenerSpec.drain_timeout": 9.0, "ListenerSpec.via": "off", "ListenerSpec.serves_trace": True,
    "ListenerSpec.answers_expect": True, "ListenerSpec.sends_baggage": False,
    "AccessLogSpec.format": "off", "AccessLogSpec.path": "/x",
}  # fmt: skip
REFUSED: Final[dict[str, Any]] = {
    "ConditionSpec.share": 5000,
    "RingSpec.mirror": MirrorSpec("v1"), "RingSpec.tables": ("/x",), "RingSpec.on_change": "close",
    "RingSpec.holdback": 100,
    "ConnectionsSpec.idle_per_endpoint": 9,
    "OverloadSpec.in_flight": 9, "OverloadSpec.endpoint_in_flight": 9,
    "BreakerSpec.failed_basis_points": 900, "BreakerSpec.minimum": 9, "BreakerSpec.slices": 9, "BreakerSpec.window": 9,
    "BreakerSpec.open": 9.0,
    "ServiceSpec.server_timing": True, "ServiceSpec.body_bytes": 9, "ServiceSpec.return_after": 9.0,
    "ServiceSpec.error_pages": (ErrorPageSpec(503, "text/plain", b""),),
    "LimitsSpec.uri_bytes": 9, "LimitsSpec.body_bytes": 9, "LimitsSpec.body_rate": 9, "LimitsSpec.connections": 9,
    "LimitsSpec.connections_per_client": 9,
    "SocketSpec.is_outbound": True,
    "ListenerSpec.send_timeout": 9.0, "ListenerSpec.mode": "sidecar",
    "AccessLogSpec.rates": (1, 0.5, 1, 1, 1), "AccessLogSpec.identity_key": b"x",
    "TrustSpec.keys": (KeySpec("1", "0123456789abcdef"),),
    "SnapshotSpec.tracing": TracingSpec(0.5),
}  # fmt: skip
NOT_OF_THE_DATA_PLANE: Final[dict[str, str]] = {
    "VersionSpec.name": "by which rings name it, see RingSpec.version",
    "RingSpec.floor": "control judges by it", "RingSpec.ceiling": "control judges by it",
    "GuardSpec.max_step": "control judges by it", "GuardSpec.min_bake": "control judges by it",
    "RingSpec.change_drain": "of on_change, which is refused",
    "OverloadSpec.queue": "of limits that are refused", "OverloadSpec.queue_seconds": "of limits that are refused",
    "ServiceSpec.revoked": "of passes, which are refused", "TrustSpec.issuers": "of claims, which are refused",
    "ServiceSpec.login": "of the anonymous cookie, which is refused",
    "IdentitySpec.cookie": "of the anonymous cookie, which is refused",
    "IdentitySpec.prefix4": "of the client's address, which is refused",
    "IdentitySpec.prefix6": "of the client's address, which is refused",
    "SocketSpec.is_inbound": "of sidecars, which are refused",
    "CertificateSpec.names": "Envoy reads them in the certificate", "SnapshotSpec.generation": "the files' version",
}  # fmt: skip
DOCUMENTED: Final = {"ListenerSpec.recycle": "`recycle` means workers, and there are none"}
AS_A_WHOLE: Final = (MirrorSpec, ErrorPageSpec, TracingSpec, CookieSpec, KeySpec, IssuerSpec, RecycleSpec)
"""What has these is refused or documented, whatever is in them."""


def kinds(of: type = SnapshotSpec, seen: tuple[type, ...] = ()) -> tuple[type, ...]:
    """All dataclasses that a snapshot is made of."""
    if of in seen or of in AS_A_WHOLE:
        return seen
    seen = (*seen, of)
    for hint in get_type_hints(of).values():
        for one in parts(hint):
            seen = kinds(one, seen)
    return seen


def parts(hint: Any) -> Iterator[type]:
    if isinstance(hint, type) and is_dataclass(hint):
        yield hint
    for inner in get_args(hint):
        yield from parts(inner)


def changed(node: Any, kind: str, field: str, value: Any) -> Any:
    """The same tree, where everything of that kind has that value."""
    if isinstance(node, tuple):
        return tuple(changed(one, kind, field, value) for one in node)
    if not is_dataclass(node) or isinstance(node, type):
        return node
    inner = {one.name: changed(getattr(node, one.name), kind, field, value) for one in fields(node)}
    return replace(node, **(inner | ({field: value} if type(node).__name__ == kind else {})))


def told(spec: SnapshotSpec) -> object:
    return resources(spec, EnvoyOptions("/x"))


def test_every_field_has_its_place_in_one_of_these_tables() -> None:
    tables = (TRANSLATED, REFUSED, NOT_OF_THE_DATA_PLANE, DOCUMENTED)
    known = [name for table in tables for name in table]
    assert len(known) == len(set(known))
    walked = {
        f"{kind.__name__}.{name}"
        for kind in kinds()
        for name, hint in get_type_hints(kind).items()
        if any(one in kinds() for one in parts(hint))
    }  # what is in them is told field by field
    there = {f"{kind.__name__}.{one.name}" for kind in kinds() for one in fields(kind)}
    assert there - walked - set(known) == set()
    assert set(known) - there == set()


@pytest.mark.parametrize("name", TRANSLATED)
def test_envoy_is_told_of_it(name: str) -> None:
    kind, field = name.split(".")
    one = changed(BASE, kind, field, TRANSLATED[name])
    assert refusals(one) == ()
    assert told(one) != told(BASE)


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused(name: str) -> None:
    kind, field = name.split(".")
    assert refusals(BASE) == ()
    assert refusals(changed(BASE, kind, field, REFUSED[name])) != ()


def test_what_is_otherwise_is_documented() -> None:
    text = " ".join((Path(__file__).parent.parent / "docs/envoy.md").read_text().split())
    for words in DOCUMENTED.values():
        assert words in text

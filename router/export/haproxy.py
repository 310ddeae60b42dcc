"""A reduced snapshot as HAProxy's configuration. Pure.

HAProxy's ``xxh64`` is the router's hash with a sign, which two lines take off again: every user is in the same ring.
All conditions are ACLs with names of their own; a value of the config stands in single quotes behind ``--``, at the end
of its line, or as a regular expression of letters, digits and numbers of bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from math import ceil
from typing import Final

from router.core.hashing import BUCKETS
from router.core.snapshot import outward
from router.core.spec import EndpointSpec, HealthCheckSpec, ServiceSpec, SnapshotSpec, SocketSpec, VersionSpec
from router.export.conditions import Alternative, Asked, Test, literal, pattern
from router.export.lost import CannotSayError
from router.export.places import places
from router.export.reduced import rule_alternatives

Checks = Mapping[tuple[str, str], HealthCheckSpec]
"""(service, version) → how its endpoints are asked whether they are well."""
_MATCHES: Final = {
    "equals": "str", "one_of": "str", "prefix": "beg", "suffix": "end", "contains": "sub",
}  # fmt: skip
_LONGEST_VALUE: Final = 500
"""Longer ones are fine too, but no line of theirs would be."""
_CONNECTS: Final = HealthCheckSpec("tcp")
"""Where the config asks for no checks: without any, HAProxy would not know that nobody is left of a version."""
_SIGN_BUCKETS: Final = 2**63 % BUCKETS
_FORWARDED: Final = "^(?i:x[-_]forwarded[-_].*|forwarded|x[-_]real[-_]ip)$"
_FORGED: Final = r"^(?i:x[-_]ring([-_].*)?)$"
_SAID: Final = r"^(?i:x-ring(-version|-reason|-mirror)?)$"
_MOST_WEIGHT: Final = 256


def config(spec: SnapshotSpec, checks: Checks) -> str:
    """The whole file, without the comment at its top. ``spec`` is what ``reduced`` left. Raises ``CannotSayError``."""
    parts = [_defaults(spec), _frontend(spec)]
    for service in spec.services:
        parts += [
            _backend(service, version, checks.get((service.name, version.name), _CONNECTS))
            for version in service.versions
        ]
    return "\n".join(parts)


def _defaults(spec: SnapshotSpec) -> str:
    listener = spec.listener
    connect = max((one.timeouts.connect for one in spec.services), default=1.0)
    server = max((max(one.timeouts.first_byte, one.timeouts.between_bytes) for one in spec.services), default=30.0)
    return _block(
        "defaults",
        [
            "mode http",
            "retries 2",
            "option redispatch",
            f"timeout http-request {_ms(listener.head_timeout)}",
            f"timeout http-keep-alive {_ms(listener.idle_timeout)}",
            f"timeout client {_ms(listener.body_timeout)}",
            f"timeout connect {_ms(connect)}",
            f"timeout server {_ms(server)}",
            f"timeout tunnel {_ms(listener.tunnel_timeout)}",
        ],
    )


def _frontend(spec: SnapshotSpec) -> str:
    tests = _Tests()
    bodies = [_service_lines(service, tests) for service in spec.services]
    lines = [_bind(socket) for socket in spec.listener.sockets]
    trusted = [one for one in spec.listener.trusted_proxies if one != "unix:"]
    lines += ["", "# Who is believed about the client's address"]
    lines += [f"acl trusted src {network}" for network in trusted] or ["acl trusted always_false"]
    lines += [
        f"http-request del-header {_FORWARDED} -m reg unless trusted",
        "option forwardfor",
        "http-request set-header X-Forwarded-Proto http unless { req.hdr(X-Forwarded-Proto) -m found }",
        "http-request set-header X-Forwarded-Host %[req.hdr(host)] unless { req.hdr(X-Forwarded-Host) -m found }",
    ]
    lines += ["", "# The service: the first host and path that fits"]
    lines += [
        "acl has-service var(txn.service) -m found",
        "http-request set-var(txn.host) req.hdr(host),host_only,lower",
    ]
    for number, place in enumerate(places(spec.services)):
        wanted = "!has-service"
        if place.host:
            lines.append(
                f"acl at-host{number} var(txn.host) -m {'end' if place.host[0] == '.' else 'str'} -- {place.host}"
            )
            wanted += f" at-host{number}"
        if place.path:
            lines.append(f"acl at-path{number} path -m str -- {quoted(place.path)}")
            lines.append(f"acl at-path{number} path -m beg -- {quoted(place.path + '/')}")
            wanted += f" at-path{number}"
        lines.append(f"http-request set-var(txn.service) str({place.service}) if {wanted}")
    lines.append("http-request return status 404 unless has-service")
    lines += ["", "# What rules ask for, each said once", *tests.lines()]
    lines += ["", "acl has-key var(txn.key) -m len gt 0", "acl has-ring var(txn.ring) -m found"]
    for body in bodies:
        lines += ["", *body]
    lines += ["", "# Nobody but the router says who is in which ring"]
    lines += [f"http-request del-header {_FORGED} -m reg", "http-request set-header X-Ring %[var(txn.ring)]", ""]
    ways = [line for service in spec.services for line in _ways(service)]
    # HAProxy asks for backends last, wherever their lines stand, and wants them last.
    lines += sorted(ways, key=lambda line: line.startswith("use_backend"))
    return _block("frontend rings", lines)


def _bind(socket: SocketSpec) -> str:
    address = socket.address.replace("unix:", "unix@", 1)
    return f"bind {quoted(address)}{' accept-proxy' if socket.proxy_protocol else ''}"


class _Tests:
    """The tests of all rules, each an ACL with a name; fields are read once, since an ACL asks every one there is."""

    def __init__(self) -> None:
        self._names: dict[Test, str] = {}
        self._fields: dict[tuple[str, str], str] = {}

    def condition(self, alternative: Alternative) -> str:
        return " ".join(self._asked(one) for one in alternative)

    def _asked(self, asked: Asked) -> str:
        test = asked.test
        name = self._names.setdefault(test, f"{test.kind}{len(self._names)}")
        return f"!{name}" if asked.is_inverted else name

    def lines(self) -> Iterator[str]:
        for test, name in self._names.items():
            field = (test.kind, test.name)
            if test.kind in ("user", "host"):
                variable = {"user": "txn.key", "host": "txn.host"}[test.kind]
            elif field in self._fields:
                variable = self._fields[field]
            else:
                variable = self._fields[field] = f"txn.field{len(self._fields)}"
                yield f"http-request set-var({variable}) {_fetch(*field)}"
            for match in _matches(test):
                yield f"acl {name} var({variable}) {match}"


def _fetch(kind: str, name: str) -> str:
    match kind:
        case "header":
            return f"req.fhdr({name})"
        case "cookie" | "anonymous_cookie":
            return f"req.cook({name})"
        case "query":
            return f"url_param({name})"
        case _:
            return kind


def _matches(test: Test) -> list[str]:
    if test.compare == "present":
        return ["-m found"]
    if test.compare in _MATCHES and all(_is_plain(value) for value in test.values):
        return [f"-m {_MATCHES[test.compare]} -- {quoted(value)}" for value in test.values]
    return [rf"-m reg -- '\A{pattern(test)}\z'"]


def _is_plain(value: str) -> bool:
    return value.isascii() and value.isprintable() and 0 < len(value) <= _LONGEST_VALUE


def quoted(value: str) -> str:
    """A word of HAProxy's, where all between single quotes is what it is. Raises ``CannotSayError`` for other lines."""
    if any(one < " " or one == "\x7f" for one in value):
        raise CannotSayError(f"{value!r} is more than a line of HAProxy's can hold")
    return "'" + value.replace("'", r"'\''") + "'"


def _service_lines(service: ServiceSpec, tests: _Tests) -> list[str]:
    """Precedence as published: kill (left out) > deny > members > rules > hash > default."""
    name, default = service.name, service.rings[-1]
    is_it = f"is.{name}"
    lines = [f"# {name}: who, then which ring", f"acl {is_it} var(txn.service) -m str -- {name}"]
    lines += [
        f"http-request set-var(txn.key) {_fetch(source.kind, source.name)} if {is_it} !has-key"
        for source in service.identity
    ]
    salted = f"str({service.salt}),concat(,txn.key)" if service.salt else "var(txn.key)"
    lines += [
        f"http-request set-var(txn.hash) {salted},xxh64 if {is_it} has-key",
        f"http-request set-var(txn.bucket) var(txn.hash),and({2**63 - 1}),mod({BUCKETS}) if {is_it}",
        f"http-request set-var(txn.bucket) var(txn.bucket),add({_SIGN_BUCKETS}),mod({BUCKETS}) "
        f"if {is_it} {{ var(txn.hash) -m int lt 0 }}",
    ]
    bounds = list(accumulate(ring.basis_points for ring in service.rings))
    open_rings = [
        (place, ring) for place, ring in enumerate(service.rings) if ring is default or ring.name not in service.killed
    ]
    for place, ring in open_rings:
        lines.append(f"acl ring.{name}.{ring.name} var(txn.ring) -m str -- {ring.name}")
        if ring.denied and ring is not default:
            lines.append(f"acl denied.{name}.{ring.name} var(txn.denied{place}) -m found")
            for one in rule_alternatives(ring.denied):
                lines.append(f"http-request set-var(txn.denied{place}) bool(true) if {is_it} {tests.condition(one)}")

    def into(place: int, condition: str) -> str:
        ring = service.rings[place]
        allowed = f" !denied.{name}.{ring.name}" if ring.denied and ring is not default else ""
        return f"http-request set-var(txn.ring) str({ring.name}) if {is_it} !has-ring{allowed} {condition}".rstrip()

    for place, ring in open_rings:
        if ring.members:
            member = Asked(Test("user", "", "one_of", ring.members), False)
            lines.append(into(place, f"has-key {tests.condition((member,))}"))
    for place, ring in open_rings:
        lines += [into(place, tests.condition(one)) for one in rule_alternatives(ring.rules)]
    for place, ring in open_rings:
        if ring is default:
            lines.append(into(place, ""))
        elif bounds[place]:
            lines.append(into(place, f"has-key {{ var(txn.bucket) -m int lt {bounds[place]} }}"))
    return lines


def _ways(service: ServiceSpec) -> Iterator[str]:
    """Which backend a ring is served by: its version's, or where nobody is left there, the next one outward."""
    name = service.name
    for version in service.versions:
        yield f"acl up.{name}.{version.name} nbsrv({name}.{version.name}) gt 0"
    for ring in service.rings:
        if ring.name in service.killed and ring is not service.rings[-1]:
            continue
        is_in = f"is.{name} ring.{name}.{ring.name}"
        yield f"http-request set-var(txn.version) str({ring.version}) if {is_in}"
        further = outward(service, ring.name)
        if further:
            for one in (ring.version, *further):
                yield f"use_backend {name}.{one} if {is_in} up.{name}.{one}"
        yield f"use_backend {name}.{ring.version} if {is_in}"


def _backend(service: ServiceSpec, version: VersionSpec, check: HealthCheckSpec) -> str:
    lines = [
        "balance roundrobin" if service.balance.kind == "round_robin" else "balance leastconn",
        f"acl own var(txn.version) -m str -- {version.name}",
        f"http-request set-header X-Ring-Version {version.name}",
        "http-request set-header X-Ring-Reason fallback unless own",
        f"http-response del-header {_SAID} -m reg",
    ]
    if service.response_headers:
        lines += [
            "http-response set-header X-Ring %[var(txn.ring)]",
            f"http-response set-header X-Ring-Version {version.name}",
            "http-response set-header X-Ring-Reason fallback unless own",
        ]
    if check.kind == "http":
        statuses = ",".join(f"{low}-{high}" if high > low else f"{low}" for low, high in check.statuses)
        named = check.host or next((one.address for one in version.endpoints if not one.path), "localhost")
        host = quoted(named.replace("%", "%%"))
        lines += ["option httpchk", f"http-check send meth GET uri {quoted(check.path)} ver HTTP/1.1 hdr Host {host}"]
        # One condition is all that a check of HAProxy's has: the body's, where there is one.
        lines.append(
            f"http-check expect rstring {literal(check.body)}" if check.body else f"http-check expect status {statuses}"
        )
    lines.append(f"timeout check {_ms(check.timeout)}")
    heaviest = max((one.weight for one in version.endpoints), default=1)
    for number, endpoint in enumerate(version.endpoints):
        lines.append(f"server e{number} {_server(endpoint, version, heaviest, check)}")
    return _block(f"backend {service.name}.{version.name}", lines)


def _server(endpoint: EndpointSpec, version: VersionSpec, heaviest: int, check: HealthCheckSpec) -> str:
    address = f"unix@{endpoint.path}" if endpoint.path else f"{endpoint.name or endpoint.host}:{endpoint.port}"
    weight = 0 if endpoint.address in version.drained else endpoint.weight
    scaled = ceil(weight * _MOST_WEIGHT / heaviest) if heaviest > _MOST_WEIGHT else weight
    said = f"{quoted(address)} weight {scaled}"
    if not endpoint.path:
        said += " init-addr last,libc,none"
    return f"{said} check inter {_ms(check.interval)} fall {check.failures} rise {check.passes}"


def _ms(seconds: float) -> str:
    return f"{max(round(seconds * 1000), 1)}ms"


def _block(head: str, lines: Iterable[str]) -> str:
    return f"{head}\n" + "".join(f"  {line}".rstrip() + "\n" for line in lines)

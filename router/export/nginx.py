"""A reduced snapshot as nginx's configuration: a whole file, with one server for all services. Pure.

Rings are chosen by maps. Each test of a rule is a digit, 1 or 0; a service's ring is the first row of its table that
fits its digits and what ``split_clients`` says. Whatever the config holds stands in the file as a regular expression of
letters, digits and numbers of bytes, or is a name that needs no quotes. Names are compared by regular expressions too,
since nginx's other rows ignore case.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from math import ceil
from typing import Final

from router.core.audience import IdentitySpec
from router.core.snapshot import outward
from router.core.spec import EndpointSpec, RingSpec, ServiceSpec, SnapshotSpec
from router.export.conditions import Alternative, Asked, Test, literal, pattern
from router.export.lost import CannotSayError
from router.export.places import places
from router.export.reduced import rule_alternatives

_NOT_SENT: Final = ("X-Ring-Override", "X-Ring-Pass", "X-Ring-Reason", "X-Ring-Mirror")
_SAID: Final = ("X-Ring", "X-Ring-Version", "X-Ring-Reason", "X-Ring-Mirror")
_FORWARDED: Final = {
    "X-Forwarded-Proto": "http", "X-Forwarded-Host": "$http_host", "X-Real-IP": "''", "Forwarded": "''",
}  # fmt: skip
"""What trusted proxies say is kept; in its place, where nobody who is trusted says it."""
_FELL: Final = r'"~\A([^:]+):(?!\1\z)." fallback;'
"""The ring's version and that of the answer are not the same."""
_NOBODY: Final = "server 127.0.0.1:1 down;"
"""A version without endpoints: nginx wants one."""


def config(spec: SnapshotSpec) -> str:
    """The whole file, without the comment at its top. ``spec`` is what ``reduced`` left. Raises ``CannotSayError``."""
    lines = [*_settings(spec), *_service_map(spec)]
    names = variables(spec.services)
    for service in spec.services:
        lines += _service(service, names[service.name])
    for what in ("ring", "version", "said", "upstream"):
        rows = [f"{_exactly(one.name)} ${names[one.name]}_{what};" for one in spec.services]
        lines += _map("$ring_service", f"$the_{what}", ["default '';", *rows])
    quiet = [f"{_exactly(one.name)} '';" for one in spec.services if not one.response_headers]
    for what, source in (("ring", "$the_ring"), ("version", "$the_said")):
        lines += _map("$ring_service", f"$answered_{what}", [f"default {source};", *quiet])
    lines += _map('"$the_version:$answered_version"', "$answered_reason", ["default '';", _FELL])
    lines += _server(spec)
    body = "".join(f"  {line}".rstrip() + "\n" for line in lines)
    return f"events {{\n}}\n\nhttp {{\n{body}}}\n"


def variables(services: tuple[ServiceSpec, ...]) -> dict[str, str]:
    """Service → what its variables begin with: letters, digits and underscores, and nothing that is nginx's or ours."""
    return {one.name: f"s{number}_{one.name.replace('-', '_')}" for number, one in enumerate(services)}


def _map(source: str, target: str, rows: Iterable[str]) -> list[str]:
    return [f"map {source} {target} {{", *(f"  {row}" for row in rows), "}", ""]


def _exactly(name: str) -> str:
    return rf'"~\A{literal(name)}\z"'


def _settings(spec: SnapshotSpec) -> list[str]:
    listener = spec.listener
    return [
        "access_log off;",
        "merge_slashes off;",
        "map_hash_bucket_size 256;",
        "variables_hash_max_size 8192;",
        f"client_header_timeout {_ms(listener.head_timeout)};",
        f"client_body_timeout {_ms(listener.body_timeout)};",
        f"send_timeout {_ms(listener.send_timeout)};",
        f"keepalive_timeout {_ms(listener.idle_timeout)};",
        f"client_max_body_size {listener.limits.body_bytes};",
        "",
    ]


def _service_map(spec: SnapshotSpec) -> list[str]:
    """The first host and path that fits; the path is that of the request line, as the router sees it."""
    rows = []
    for place in places(spec.services):
        host = literal(place.host) if place.host and place.host[0] != "." else f"[^/]*{literal(place.host)}"
        path = f"{literal(place.path)}(?:[/?]|\\z)" if place.path else ""
        rows.append(rf'"~\A{host}{path or "/"}" {place.service};')
    return ["# The service: the first host and path that fits", *_map('"$host$request_uri"', "$ring_service", rows)]


def _service(service: ServiceSpec, name: str) -> Iterator[str]:
    yield f"# {service.name}"
    for number, source in enumerate(service.identity):
        yield from _source(source, f"{name}_key{number}")
    after = "''"
    for number in reversed(range(len(service.identity))):
        yield from _map(
            f"${name}_key{number}", f"${name}_from{number}", [f"default ${name}_key{number};", f"'' {after};"]
        )
        after = f"${name}_from{number}"
    yield from _map(after, f"${name}_key", ["default " + after + ";"] if service.identity else ["default '';"])
    yield from _by_hash(service, name)
    yield from _ring(service, name)
    yield from _versions(service, name)
    yield from _upstreams(service, name)


def _source(source: IdentitySpec, target: str) -> list[str]:
    if source.kind == "header":
        return _map(_header(source.name), f"${target}", [f"default {_header(source.name)};"])
    field, before, value, after = _within(source.kind, source.name)
    return _map(
        field, f"${target}", ["default '';", rf'"~{before}(?<{target}_found>{value}*?){after}" ${target}_found;']
    )


def _header(name: str) -> str:
    return "$http_" + name.lower().replace("-", "_")


def _within(kind: str, name: str) -> tuple[str, str, str, str]:
    """Where a field's value stands, what is before the first one of this name, a byte of it, and what is behind it."""
    if kind == "query":
        wanted = literal(name)
        return "$args", rf"\A(?:(?!{wanted}(?:[=&]|\z))[^&]*&)*{wanted}(?:=|(?=&|\z))", "[^&]", r"(?:&|\z)"
    wanted = literal(name)
    before = rf"\A(?:(?![ \t]*{wanted}=)[^;]*;)*[ \t]*{wanted}=[ \t]*(\x22?)"
    return "$http_cookie", before, "[^;]", r"\1[ \t]*(?:;|\z)"


def _by_hash(service: ServiceSpec, name: str) -> Iterator[str]:
    rows = [f"{ring.basis_points / 100:.2f}% {ring.name};" for ring in service.rings[:-1] if ring.basis_points]
    yield f'split_clients "{service.salt}${name}_key" ${name}_hash {{'
    yield from (f"  {row}" for row in [*rows, f"* {service.rings[-1].name};"])
    yield "}"
    yield ""


class _Digits:
    """The tests of one service, each a digit of one number."""

    def __init__(self) -> None:
        self._places: dict[Test, int] = {}

    def add(self, alternatives: Iterable[Alternative]) -> None:
        for one in alternatives:
            for asked in one:
                self._places.setdefault(asked.test, len(self._places))

    def row(self, alternative: Alternative) -> str | None:
        """The digits as a regular expression; None for what contradicts itself."""
        digits = ["."] * len(self._places)
        for asked in alternative:
            at, wanted = self._places[asked.test], "0" if asked.is_inverted else "1"
            if digits[at] not in (".", wanted):
                return None
            digits[at] = wanted
        return "".join(digits)

    def tests(self) -> list[Test]:
        return list(self._places)


def _open_rings(service: ServiceSpec) -> list[tuple[int, RingSpec]]:
    default = service.rings[-1]
    return [(at, ring) for at, ring in enumerate(service.rings) if ring is default or ring.name not in service.killed]


def _ring(service: ServiceSpec, name: str) -> Iterator[str]:
    """Precedence as published: kill (left out) > deny > members > rules > hash > default."""
    digits, default = _Digits(), service.rings[-1]
    rings = _open_rings(service)
    has_key = Asked(Test("user", "", "present", ()), False)
    members = {
        at: (has_key, Asked(Test("user", "", "one_of", ring.members), False)) for at, ring in rings if ring.members
    }
    rules = {at: rule_alternatives(ring.rules) for at, ring in rings}
    denied = {at: rule_alternatives(ring.denied) for at, ring in rings if ring.denied and ring is not default}
    digits.add([(has_key,), *members.values()])
    for alternatives in (*rules.values(), *denied.values()):
        digits.add(alternatives)
    for number, test in enumerate(digits.tests()):
        yield from _test(test, f"${name}_test{number}", f"${name}_key")
    said = "".join(f"${{{name}_test{number}}}" for number in range(len(digits.tests())))
    for at, alternatives in denied.items():
        patterns = [fits for one in alternatives if (fits := digits.row(one)) is not None]
        rows = [rf'"~\A{fits}\z" 1;' for fits in dict.fromkeys(patterns)]
        yield from _map(f'"{said}"', f"${name}_denied{at}", ["default 0;", *rows])
    flags = "".join(f"${{{name}_denied{at}}}" for at in denied)
    anything = "." * len(digits.tests())

    def row(at: int, tests: str | None, by_hash: str = "") -> Iterator[str]:
        if tests is not None:
            allowed = "".join("0" if one == at else "." for one in denied)
            yield rf'"~\A{allowed}:{tests}:{by_hash}" {service.rings[at].name};'

    rows = [line for at, one in members.items() for line in row(at, digits.row(one))]
    rows += [line for at, ones in rules.items() for one in ones for line in row(at, digits.row(one))]
    for at, _ in rings[:-1]:
        within = "|".join(literal(one.name) for one in service.rings[: at + 1] if one.basis_points)
        if within:
            rows += row(at, digits.row((has_key,)), f"(?:{within})\\z")
    rows += row(len(service.rings) - 1, anything)
    yield from _map(f'"{flags}:{said}:${{{name}_hash}}"', f"${name}_ring", ["default '';", *dict.fromkeys(rows)])


def _test(test: Test, target: str, key: str) -> list[str]:
    if test.kind in ("cookie", "query"):
        field, before, value, after = _within(test.kind, test.name)
        matched = f"{before}{pattern(test, value)}{after}"
        return _map(field, target, ["default 0;", f'"~{matched}" 1;'])
    if test.kind == "path":
        return _map("$request_uri", target, ["default 0;", rf'"~\A{pattern(test, "[^?]")}(?:\?|\z)" 1;'])
    field = {"method": "$request_method", "host": "$host", "user": key}.get(test.kind) or _header(test.name)
    return _map(field, target, ["default 0;", "'' 0;", rf'"~\A{pattern(test)}\z" 1;'])


def _versions(service: ServiceSpec, name: str) -> Iterator[str]:
    """The ring's version; an answer's goes by the address that gave it, where that is known by its number."""
    rows = [f"{_exactly(ring.name)} {ring.version};" for _, ring in _open_rings(service)]
    yield from _map(f"${name}_ring", f"${name}_version", rows)
    known: dict[str, str] = {}
    doubtful = set()
    for version in service.versions:
        for endpoint in version.endpoints:
            if known.setdefault(endpoint.address, version.name) != version.name or _is_name(endpoint):
                doubtful.add(endpoint.address)
    rows = [
        rf'"~(?:\A|[ ,]){literal(address)}\z" {version};'
        for address, version in known.items()
        if address not in doubtful
    ]
    yield from _map("$upstream_addr", f"${name}_said", [f"default ${name}_version;", *rows])
    rows = [f"{_exactly(ring.name)} {name}.ring{at};" for at, ring in _open_rings(service)]
    yield from _map(f"${name}_ring", f"${name}_upstream", rows)


def _is_name(endpoint: EndpointSpec) -> bool:
    return not endpoint.path and not re.fullmatch(r"[0-9.]+|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*", endpoint.host)


def _upstreams(service: ServiceSpec, name: str) -> Iterator[str]:
    endpoints = {version.name: version for version in service.versions}
    for at, ring in _open_rings(service):
        yield f"upstream {name}.ring{at} {{"
        if service.balance.kind != "round_robin":
            yield "  least_conn;"
        own = endpoints[ring.version]
        servers = [_line(one, service) for one in own.endpoints if one.weight and one.address not in own.drained]
        yield from (f"  {one};" for one in servers) if servers else (f"  {_NOBODY}",)
        for version in outward(service, ring.name)[:1]:
            further = endpoints[version]
            for one in further.endpoints:
                if one.weight and one.address not in further.drained:
                    yield f"  {_line(one, service)} backup;"
        yield f"  keepalive {max(16, 4 * len(own.endpoints))};"
        yield "}"
        yield ""


def _line(endpoint: EndpointSpec, service: ServiceSpec) -> str:
    """As many failures as an endpoint may have in a row, and for how long it is then left alone."""
    address = endpoint.address if not endpoint.name else f"{endpoint.name}:{endpoint.port}"
    outliers = service.outliers
    failures = outliers.consecutive_errors
    return (
        f"server {quoted(address)} weight={endpoint.weight} max_fails={failures} "
        f"fail_timeout={_seconds(outliers.ejection)}"
    )


def quoted(value: str) -> str:
    """A word of nginx's where no variable is looked for. Raises ``CannotSayError`` for control characters."""
    if any(one < " " or one == "\x7f" for one in value):
        raise CannotSayError(f"{value!r} is more than a line of nginx's can hold")
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _server(spec: SnapshotSpec) -> Iterator[str]:
    listener = spec.listener
    first_byte = max((max(one.timeouts.first_byte, one.timeouts.between_bytes) for one in spec.services), default=30.0)
    connect = max((one.timeouts.connect for one in spec.services), default=1.0)
    yield from _map("$http_upgrade", "$connection_said", ["default upgrade;", "'' '';"])
    trusted = [one for one in listener.trusted_proxies if one != "unix:"]
    yield "# Who is believed about the client's address"
    yield from _map("$proxy_protocol_addr", "$client", ["default $proxy_protocol_addr;", "'' $remote_addr;"])
    yield from ["geo $client $is_trusted {", "  default 0;", *(f"  {one} 1;" for one in trusted), "}", ""]
    yield from _map(
        '"$is_trusted:$http_x_forwarded_for"', "$forwarded_for",
        ["default $client;", '"~\\A1:(?<forwarded_found>.+)" "$forwarded_found, $client";'],
    )  # fmt: skip
    for field, stranger in _FORWARDED.items():
        name = field.lower().replace("-", "_")
        row = f'"~\\A1:(?<{name}_found>.+)" ${name}_found;'
        yield from _map(f'"$is_trusted:$http_{name}"', f"$said_{name}", [f"default {stranger};", row])
    yield "server {"
    for socket in listener.sockets:
        yield f"  listen {quoted(socket.address)}{' proxy_protocol' if socket.proxy_protocol else ''};"
    yield "  location / {"
    yield "    if ($ring_service = '') {"
    yield "      return 404;"
    yield "    }"
    yield "    proxy_pass http://$the_upstream;"
    yield "    proxy_http_version 1.1;"
    yield "    proxy_request_buffering off;"
    yield "    proxy_buffering off;"
    yield f"    proxy_connect_timeout {_ms(connect)};"
    yield f"    proxy_read_timeout {_ms(first_byte)};"
    yield f"    proxy_send_timeout {_ms(first_byte)};"
    yield "    proxy_set_header Host $http_host;"
    yield "    proxy_set_header Upgrade $http_upgrade;"
    yield "    proxy_set_header Connection $connection_said;"
    yield "    proxy_set_header X-Forwarded-For $forwarded_for;"
    yield from (f"    proxy_set_header {one} $said_{one.lower().replace('-', '_')};" for one in _FORWARDED)
    yield "    # Nobody but the router says who is in which ring"
    yield "    proxy_set_header X-Ring $the_ring;"
    yield "    proxy_set_header X-Ring-Version $the_version;"
    yield from (f"    proxy_set_header {name} '';" for name in _NOT_SENT)
    yield from (f"    proxy_hide_header {name};" for name in _SAID)
    yield "    add_header X-Ring $answered_ring always;"
    yield "    add_header X-Ring-Version $answered_version always;"
    yield "    add_header X-Ring-Reason $answered_reason always;"
    yield "  }"
    yield "}"


def _ms(seconds: float) -> str:
    return f"{max(round(seconds * 1000), 1)}ms"


def _seconds(seconds: float) -> str:
    return f"{ceil(seconds)}s"

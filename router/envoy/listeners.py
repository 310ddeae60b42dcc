"""Where Envoy listens, and what it does to every request before and after its route was found. Pure.

Whether a peer is a trusted proxy is a question of its address: each listener has a filter chain for those, and one for
everybody else, with routes of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network
from typing import Final

from router.core.spec import ListenerSpec, ServerTlsSpec, SnapshotSpec, SocketSpec
from router.envoy.access_log import loggers
from router.envoy.messages import Json, duration, extension, put, socket_address, typed, watched_file
from router.envoy.options import EnvoyOptions

STRANGERS: Final = "strangers"
TRUSTED: Final = "trusted"
"""Names of the two route configurations."""
UNIX: Final = "unix:"
_MANAGER: Final = "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_EARLY: Final = "extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation"
_MUTATION: Final = "extensions.filters.http.header_mutation.v3.HeaderMutation"
_PEER: Final = "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%"
"""Who connected to Envoy itself: the balancer, where that says in a PROXY header whose connection it is."""
_CLIENT: Final = "X-Ring-Client"
"""Keeps whom a PROXY header names, while that is known: later, Envoy's address of the client is the one that a trusted
proxy's X-Forwarded-For says. No backend sees it, see ``_of_requests``."""
_WITHOUT_RING: Final = """
function envoy_on_request(handle)
  local headers, others, forged = handle:headers(), {}, false
  for i = 0, headers:getNumValues("baggage") - 1 do
    for member in string.gmatch(headers:getAtIndex("baggage", i), "[^,]+") do
      if string.match(member, "^%s*ring%s*=") then forged = true else table.insert(others, member) end
    end
  end
  if forged then
    headers:remove("baggage")
    if #others > 0 then headers:add("baggage", table.concat(others, ",")) end
  end
end
"""
"""Takes the member ``ring`` off baggage (W3C), and leaves the others of the field as they are."""


def listeners(spec: SnapshotSpec, options: EnvoyOptions) -> Iterator[Json]:
    """One for each socket, at ``options.listen`` where that says another address."""
    for number, socket in enumerate(spec.listener.sockets):
        address = options.listen[number] if number < len(options.listen) else socket.address
        yield _listener(address, socket, spec, options)


def routes_file(name: str) -> str:
    """The file of a route configuration: Envoy takes one from each file."""
    return f"rds-{name}.json"


def routes_of(file: str) -> str:
    """The inverse of ``routes_file``."""
    return file.removeprefix("rds-").removesuffix(".json")


def has_trusted(listener: ListenerSpec) -> bool:
    """Whether anybody is a trusted proxy."""
    return bool(listener.trusted_proxies)


def _listener(address: str, socket: SocketSpec, spec: SnapshotSpec, options: EnvoyOptions) -> Json:
    if socket.proxy_protocol:
        filters = {
            "listener_filters": [
                extension(
                    "envoy.filters.listener.proxy_protocol",
                    "extensions.filters.listener.proxy_protocol.v3.ProxyProtocol",
                )
            ]
        }
    else:
        filters = {}
    return typed(
        "config.listener.v3.Listener",
        name=address,
        address=socket_address(address),
        filter_chains=list(_chains(address, socket, spec, options)),
        **filters,
    )


def _chains(address: str, socket: SocketSpec, spec: SnapshotSpec, options: EnvoyOptions) -> Iterator[Json]:
    if address.startswith(UNIX):
        yield _chain({}, socket, spec, options, is_trusted=UNIX in spec.listener.trusted_proxies)
        return
    networks = [ip_network(one, strict=False) for one in spec.listener.trusted_proxies if one != UNIX]
    if networks:
        ranges = [{"address_prefix": str(one.network_address), "prefix_len": one.prefixlen} for one in networks]
        yield _chain({"source_prefix_ranges": ranges}, socket, spec, options, is_trusted=True)
    yield _chain({}, socket, spec, options, is_trusted=False)


def _chain(match: Json, socket: SocketSpec, spec: SnapshotSpec, options: EnvoyOptions, *, is_trusted: bool) -> Json:
    manager = extension(
        "envoy.filters.network.http_connection_manager",
        _MANAGER,
        **_manager(socket, spec, options, is_trusted=is_trusted),
    )
    tls = socket.tls
    # The digest is in the name so that other files are another chain: Envoy reads them when it makes one.
    name = (TRUSTED if is_trusted else STRANGERS) + (f" {_digest(tls)}" if tls is not None else "")
    return {
        "name": name,
        **({"filter_chain_match": match} if match else {}),
        "filters": [manager],
        **({"transport_socket": _tls(tls)} if tls is not None else {}),
    }


def _manager(socket: SocketSpec, spec: SnapshotSpec, options: EnvoyOptions, *, is_trusted: bool) -> Json:
    listener, limits = spec.listener, spec.listener.limits
    if socket.redirect_port:
        routes: Json = {"route_config": _redirect(socket.redirect_port)}
    else:
        name = TRUSTED if is_trusted else STRANGERS
        routes = {
            "rds": {"route_config_name": name, "config_source": watched_file(options.directory, routes_file(name))}
        }
    if socket.proxy_protocol:
        early = put(_CLIENT, "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%")
        routes["early_header_mutation_extensions"] = [
            extension("envoy.http.early_header_mutation.header_mutation", _EARLY, mutations=[{"append": early}])
        ]
    return {
        "stat_prefix": "in",
        **routes,
        "codec_type": "HTTP1",
        "use_remote_address": True,
        "skip_xff_append": True,  # the filter below writes it: Envoy has its own mind about peers on loopback
        "xff_num_trusted_hops": 1 if is_trusted else 0,
        "preserve_external_request_id": True,
        "server_header_transformation": "PASS_THROUGH",
        "proxy_100_continue": not listener.answers_expect,
        "max_request_headers_kb": -(-limits.head_bytes // 1024),
        "common_http_protocol_options": {
            "idle_timeout": duration(listener.idle_timeout),
            "max_headers_count": limits.fields,
            **(
                {"max_requests_per_connection": limits.requests_per_connection}
                if limits.requests_per_connection
                else {}
            ),
        },
        "http_protocol_options": {"accept_http_10": True, "default_host_for_http_10": "localhost"},
        "request_headers_timeout": duration(listener.head_timeout),
        "stream_idle_timeout": duration(listener.body_timeout),
        "drain_timeout": duration(listener.drain_timeout),
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "access_log": list(_logs(spec, options)),
        "http_filters": list(_filters(socket, listener, is_trusted=is_trusted)),
    }


def _filters(socket: SocketSpec, listener: ListenerSpec, *, is_trusted: bool) -> Iterator[Json]:
    if listener.sends_baggage:
        source = {"inline_string": _WITHOUT_RING}
        yield extension(
            "envoy.filters.http.lua",
            "extensions.filters.http.lua.v3.Lua",
            default_source_code=source,
            clear_route_cache=False,  # or the route is looked for again when X-Ring is no longer there
        )
    mutations: Json = {"request_mutations": _of_requests(socket, listener, is_trusted=is_trusted)}
    answered = []
    if socket.tls is not None and socket.tls.hsts_seconds:
        age = f"max-age={socket.tls.hsts_seconds}"
        answered.append({"append": put("Strict-Transport-Security", age, "ADD_IF_ABSENT")})
    if listener.via == "both":
        answered.append({"append": put("Via", "1.1 ring-router", "APPEND_IF_EXISTS_OR_ADD")})
    if answered:
        mutations["response_mutations"] = answered
    yield extension("envoy.filters.http.header_mutation", _MUTATION, mutations=mutations)
    yield extension(
        "envoy.filters.http.router", "extensions.filters.http.router.v3.Router", suppress_envoy_headers=True
    )


def _of_requests(socket: SocketSpec, listener: ListenerSpec, *, is_trusted: bool) -> list[Json]:
    """What strangers say of others goes; then what is true is said, and what a client says of its ring goes."""
    keep = "ADD_IF_ABSENT" if is_trusted else "OVERWRITE_IF_EXISTS_OR_ADD"
    said = [
        put("X-Forwarded-For", f"%REQ({_CLIENT})%" if socket.proxy_protocol else _PEER, "APPEND_IF_EXISTS_OR_ADD"),
        put("X-Forwarded-Proto", "%REQ(:SCHEME)%", keep),
        put("X-Forwarded-Host", "%REQ(:AUTHORITY)%", keep),
    ]
    if listener.via != "off":
        said.append(put("Via", "1.1 ring-router", "APPEND_IF_EXISTS_OR_ADD"))
    return [
        *([] if is_trusted else [_without("x-forwarded-.*", "x-real-ip", "forwarded")]),
        *({"append": one} for one in said),
        _without(r"x[-_]ring([-_].*)?", "x-envoy-.*", "proxy-authorization", "proxy-connection"),
    ]


def _without(*names: str) -> Json:
    return {"remove_on_match": {"key_matcher": {"safe_regex": {"regex": "|".join(names)}}}}


def _logs(spec: SnapshotSpec, options: EnvoyOptions) -> Iterator[Json]:
    log = spec.access_log
    if log.format != "off":
        yield _log(
            log.path or "/dev/stdout",
            {
                "time": "%START_TIME%",
                **_WHAT,
                "method": "%REQ(:METHOD)%",
                "host": "%REQ(:AUTHORITY)%",
                "path": "%REQ(:PATH)%",
                "request_id": "%REQ(X-REQUEST-ID)%",
            },
        )
    if options.is_counted:
        yield from loggers(spec.services)


_WHAT: Final = {
    "service": "%METADATA(ROUTE:ring:service)%",
    "ring": "%REQ(X-RING)%",
    "version": "%UPSTREAM_METADATA(ring:version)%",
    "status": "%RESPONSE_CODE%",
    "milliseconds": "%DURATION%",
    "flags": "%RESPONSE_FLAGS%",
}


def _log(path: str, fields: Json) -> Json:
    return extension(
        "envoy.access_loggers.file",
        "extensions.access_loggers.file.v3.FileAccessLog",
        path=path,
        log_format={"json_format": fields},
    )


def _redirect(port: int) -> Json:
    redirect = {"https_redirect": True, "port_redirect": port, "response_code": "PERMANENT_REDIRECT"}
    route = {"match": {"prefix": "/"}, "redirect": redirect}
    return {"virtual_hosts": [{"name": "redirect", "domains": ["*"], "routes": [route]}]}


def _digest(tls: ServerTlsSpec) -> str:
    return "-".join(one.digest[:8] for one in tls.certificates) + tls.client_ca_digest[:8]


def _tls(tls: ServerTlsSpec) -> Json:
    common: Json = {
        "alpn_protocols": ["http/1.1"],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_" + tls.min_version[-1]},
        "tls_certificates": [
            {"certificate_chain": {"filename": one.certificate}, "private_key": {"filename": one.key}}
            for one in tls.certificates
        ],
    }
    if tls.client_ca:
        common["validation_context"] = {"trusted_ca": {"filename": tls.client_ca}}
    return extension(
        "envoy.transport_sockets.tls",
        "extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        common_tls_context=common,
        require_client_certificate=tls.client_certificate == "required",
    )

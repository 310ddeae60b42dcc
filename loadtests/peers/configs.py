"""The configuration files of the contestants: one job, said four times.

The job: ring canary by header X-Ring or cookie ring, else by hash of X-User-Id (canary 5 %, early 20 %, everyone the
rest); canary and early run v2, everyone v1; the backend gets X-Ring and X-Forwarded-For; no access log; one thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from loadtests.rig import HOST

BODY = "x" * 1024


def backend(directory: Path, name: str, groups: Sequence[Sequence[int]]) -> str:
    """nginx as the backend: group 0 of ports is v1, group 1 is v2. /check says what the request looked like."""
    servers = ""
    for number, ports in enumerate(groups, 1):
        listens = "".join(f"    listen {HOST}:{port} backlog=4096;\n" for port in ports)
        servers += f"""
  server {{
{listens}    location / {{ return 200 "{BODY}"; }}
    location = /check {{ return 200 "v{number} $http_x_ring $http_x_forwarded_for"; }}
  }}"""
    return f"""worker_processes 1;
daemon off;
pid {directory}/{name}.pid;
error_log {directory}/{name}.err;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  keepalive_timeout 300s;{servers}
}}
"""


def nginx(
    directory: Path,
    port: int,
    v1: Sequence[int],
    v2: Sequence[int],
    connections: int = 8192,
    workers: int = 1,
    hosts: Sequence[str] = ("",),
) -> str:
    """``hosts``: a service each, with versions (and their connections) of its own."""
    upstreams = servers = ""
    for number, host in enumerate(hosts):
        for version, ports in (("v1", v1), ("v2", v2)):
            members = " ".join(f"server {HOST}:{one};" for one in ports)
            keepalive = max(64, 4 * len(ports))
            upstreams += f"""
  upstream {version}-{number} {{
    random two least_conn; {members} keepalive {keepalive}; keepalive_requests 1000000000;
  }}"""
        servers += f"""
  server {{
    listen {HOST}:{port}{" backlog=4096" if number == 0 else ""};
    server_name "{host}";
    location / {{
      proxy_pass http://$version-{number};
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Ring $ring;
      proxy_request_buffering off;
      proxy_max_temp_file_size 0;
    }}
  }}"""
    return f"""worker_processes {workers};
daemon off;
pid {directory}/nginx.pid;
error_log {directory}/nginx.err;
events {{ worker_connections {connections}; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  keepalive_timeout 300s;
  server_names_hash_max_size 8192;
  client_max_body_size 0;
  client_body_temp_path {directory}/nginx-body;
  proxy_temp_path {directory}/nginx-proxy;
  split_clients "$http_x_user_id" $by_hash {{ 5% canary; 20% early; * everyone; }}
  map $cookie_ring $by_cookie {{ canary canary; default $by_hash; }}
  map $http_x_ring $ring {{ canary canary; default $by_cookie; }}
  map $ring $version {{ everyone v1; default v2; }}{upstreams}{servers}
}}
"""


def haproxy(port: int, v1: int, v2: int, connections: int = 8192) -> str:
    # xxh64 is signed there; without its sign bit mod() stays positive. Same shares, other users than ours.
    return f"""global
  nbthread 1
  no strict-limits
  maxconn {connections}
defaults
  mode http
  timeout connect 5s
  timeout client 300s
  timeout server 60s
  timeout http-keep-alive 300s
  http-reuse always
frontend in
  bind {HOST}:{port} backlog 4096
  option forwardfor
  acl by_header req.hdr(X-Ring) -m str canary
  acl by_cookie req.cook(ring) -m str canary
  http-request set-var(txn.bucket) req.hdr(X-User-Id),xxh64,and(9223372036854775807),mod(10000)
  http-request set-var(txn.ring) str(everyone)
  http-request set-var(txn.ring) str(early) if {{ var(txn.bucket) -m int lt 2500 }}
  http-request set-var(txn.ring) str(canary) if {{ var(txn.bucket) -m int lt 500 }} or by_header or by_cookie
  http-request set-header X-Ring %[var(txn.ring)]
  use_backend v1 if {{ var(txn.ring) -m str everyone }}
  default_backend v2
backend v1
  server one {HOST}:{v1} pool-max-conn -1
backend v2
  server one {HOST}:{v2} pool-max-conn -1
"""


def envoy(port: int, v1: int, v2: int) -> str:
    def to(ring: str) -> str:
        header = f"{{key: x-ring, value: {ring}}}"
        return f"[{{header: {header}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}}]"

    clusters = "".join(
        f"""
    - name: {name}
      type: STATIC
      connect_timeout: 5s
      load_assignment:
        cluster_name: {name}
        endpoints:
          - lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {HOST}, port_value: {number}}}}}}}}}]"""
        for name, number in (("v1", v1), ("v2", v2))
    )
    return f"""static_resources:
  listeners:
    - name: in
      address: {{socket_address: {{address: {HOST}, port_value: {port}}}}}
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: in
                use_remote_address: true
                http_filters:
                  - name: envoy.filters.http.router
                    typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
                route_config:
                  virtual_hosts:
                    - name: shop
                      domains: ["*"]
                      routes:
                        - match: {{prefix: /, headers: [{{name: x-ring, string_match: {{exact: canary}}}}]}}
                          request_headers_to_add: {to("canary")}
                          route: {{cluster: v2}}
                        - match: {{prefix: /, headers: [{{name: cookie, string_match: {{contains: ring=canary}}}}]}}
                          request_headers_to_add: {to("canary")}
                          route: {{cluster: v2}}
                        - match: {{prefix: /}}
                          route:
                            hash_policy: [{{header: {{header_name: x-user-id}}}}]
                            weighted_clusters:
                              use_hash_policy: true
                              clusters:
                                - {{name: v2, weight: 500, request_headers_to_add: {to("canary")}}}
                                - {{name: v2, weight: 2000, request_headers_to_add: {to("early")}}}
                                - {{name: v1, weight: 7500, request_headers_to_add: {to("everyone")}}}
  clusters:{clusters}
"""  # noqa: E501 -- one name is that long

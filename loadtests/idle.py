"""Memory of 10,000 idle keep-alive connections beside nginx and HAProxy. Each has sent one request."""

from __future__ import annotations

import argparse
import contextlib
import socket
import time
from typing import Any, Final

from loadtests import contestants, report
from loadtests.rig import HOST, Rig, RigError, raise_open_files, say_cores, turns

REQUEST: Final = b"GET / HTTP/1.1\r\nHost: shop.example.com\r\nX-User-Id: user-%d\r\n\r\n"
SPARE_FILES: Final = 1000
"""Open files a proxy needs besides its clients."""
PROXY_CONNECTIONS: Final = 1500
SETTLE_SECONDS: Final = 2.0


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=10_000)
    return parser.parse_args()


def one_request(client: socket.socket, user: int) -> None:
    """Send a request and read its answer to the last byte."""
    client.sendall(REQUEST % user)
    answer = b""
    while True:
        data = client.recv(65536)
        if not data:
            raise RigError(f"connection {user} was closed")
        answer += data
        head, end, body = answer.partition(b"\r\n\r\n")
        if end and len(body) >= 1024:
            if not head.startswith(b"HTTP/1.1 200"):
                raise RigError(f"connection {user}: {head[:60]!r}")
            return


def measure(contestant: contestants.Contestant, connections: int) -> dict[str, float]:
    child = contestant.child
    with contextlib.ExitStack() as clients:
        # The first hundred pay for what is there once: pools, arenas, tables.
        for user in range(100):
            with socket.create_connection((HOST, contestant.port), timeout=10) as first:
                one_request(first, user)
        time.sleep(SETTLE_SECONDS)
        child.settle()
        before = sum(child.rss_bytes().values())
        opened = []
        for user in range(connections):
            client = clients.enter_context(socket.create_connection((HOST, contestant.port), timeout=10))
            one_request(client, user)
            opened.append(client)
        time.sleep(SETTLE_SECONDS)
        after = sum(child.rss_bytes().values())
        one_request(opened[0], 0)
        one_request(opened[-1], 0)  # and they are still of use
    return {"before_mib": before / 2**20, "after_mib": after / 2**20, "bytes_each": (after - before) / connections}


def measure_all(asked: argparse.Namespace, connections: int) -> dict[str, Any]:
    """Every round starts its proxies anew: memory that was freed once is not given back to be counted again."""
    rounds: list[dict[str, dict[str, float]]] = []
    skipped: dict[str, str] = {}
    names = [contestants.ROUTER, "nginx", "haproxy"]
    for number, order in turns(names, asked.rounds):
        found = {}
        with Rig() as rig:
            backend = contestants.start_backend(rig)
            room = connections + PROXY_CONNECTIONS
            field = contestants.start_all(rig, backend, ("nginx", "haproxy"), connections=room)
            skipped |= field.skipped
            for name in order:
                if name in field.contestants:
                    found[name] = measure(field.contestants[name], connections)
        rounds.append(found)
        line = "  ".join(f"{name} {one['bytes_each']:,.0f}" for name, one in found.items())
        print(f"round {number + 1}/{asked.rounds}, bytes/connection:  {line}", flush=True)
    summary = {
        name: {key: report.spread(one[name][key] for one in rounds) for key in rounds[0][name]} for name in rounds[0]
    }
    return {"summary": summary, "skipped": skipped, "rounds": rounds}


def main() -> None:
    asked = options()
    say_cores()
    limit = raise_open_files()
    connections = min(asked.connections, (limit - SPARE_FILES) // 2)  # this router keeps half of them for backends
    if connections < asked.connections:
        print(f"Only {limit} open files are allowed here: {connections:,} connections, not {asked.connections:,}.")
    found = measure_all(asked, connections)
    rows = [
        [
            name,
            report.shown(one["bytes_each"], 0),
            *(f"{one[key]['median']:.1f}" for key in ("before_mib", "after_mib")),
        ]
        for name, one in found["summary"].items()
    ]
    print(f"\n{connections:,} idle connections, memory of all processes of the proxy (kernel's share not counted).\n")
    report.table(["proxy", "RSS bytes/connection", "MiB before", "MiB after"], rows)
    report.save("idle", asked, {"connections": connections, **found})


if __name__ == "__main__":
    report.run(main)

"""CPU seconds per GiB for 64 MiB bodies, down and up, beside nginx (which streams them too: no buffering on disk)."""

from __future__ import annotations

import argparse
import os
import socket
import time
from collections.abc import Callable
from typing import Any, Final

from loadtests import contestants, report
from loadtests.rig import (
    HOST,
    LOAD_CORE,
    TICK_MICROSECONDS,
    Rig,
    RigError,
    free_ports,
    python_module,
    say_cores,
    turns,
)

MIB: Final = 1 << 20
TIMEOUT_SECONDS: Final = 60.0
DIRECTIONS: Final = ("down", "up")
HEAD: Final = (
    "{method} /{mib} HTTP/1.1\r\nHost: shop.example.com\r\nX-User-Id: user-1\r\nContent-Length: {length}\r\n\r\n"
)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mib", type=int, default=64, help="size of a body")
    parser.add_argument("--bodies", type=int, default=16, help="bodies in a turn")
    return parser.parse_args()


def _head(client: socket.socket) -> bytes:
    """Read an answer's head; returns what came of the body with it."""
    answer = b""
    while b"\r\n\r\n" not in answer:
        data = client.recv(65536)
        if not data:
            raise RigError("connection closed")
        answer += data
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise RigError(f"answer: {head[:60]!r}")
    return body


def down(client: socket.socket, mib: int) -> None:
    client.sendall(HEAD.format(method="GET", mib=mib, length=0).encode())
    left = mib * MIB - len(_head(client))
    room = bytearray(MIB)
    while left:
        count = client.recv_into(room)
        if not count:
            raise RigError(f"{left} bytes are missing")
        left -= count


def up(client: socket.socket, mib: int) -> None:
    client.sendall(HEAD.format(method="PUT", mib=mib, length=mib * MIB).encode())
    piece = bytes(MIB)
    for _ in range(mib):
        client.sendall(piece)
    said = _head(client)
    wanted = str(mib * MIB).encode()
    while len(said) < len(wanted):
        data = client.recv(100)
        if not data:
            break
        said += data
    if said != wanted:
        raise RigError(f"{wanted.decode()} bytes were sent, the backend had {said!r}")


def measure(contestant: contestants.Contestant, direction: str, mib: int, bodies: int) -> dict[str, float]:
    transfer: Callable[[socket.socket, int], None] = down if direction == "down" else up
    with socket.create_connection((HOST, contestant.port), timeout=TIMEOUT_SECONDS) as client:
        transfer(client, mib)
        before, begun = contestant.child.cpu_ticks(), time.monotonic()
        for _ in range(bodies):
            transfer(client, mib)
        seconds, after = time.monotonic() - begun, contestant.child.cpu_ticks()
    gib = mib * bodies / 1024
    return {
        "cpu_s_per_gib": sum(after[pid] - before[pid] for pid in after) * TICK_MICROSECONDS / 1e6 / gib,
        "gib_per_s": gib / seconds,
        "rss_mib": sum(contestant.child.rss_bytes().values()) / MIB,
    }


def measure_all(asked: argparse.Namespace) -> dict[str, Any]:
    rounds: list[dict[str, dict[str, dict[str, float]]]] = []
    with Rig() as rig:
        (port,) = free_ports(1)
        rig.start("sink", python_module("loadtests.peers.sink", port), LOAD_CORE, f"http://{HOST}:{port}/0")
        field = {contestants.ROUTER: contestants.start_router(rig, {"shop": contestants.service([port], [port])})}
        skipped: dict[str, str] = {}
        try:
            field["nginx"] = contestants.start_nginx(rig, port, port)
        except RigError as error:
            skipped["nginx"] = str(error)
            print(f"nginx: skipped: {error}")
        os.sched_setaffinity(0, {LOAD_CORE})
        for number, names in turns(list(field), asked.rounds):
            found = {
                name: {way: measure(field[name], way, asked.mib, asked.bodies) for way in DIRECTIONS} for name in names
            }
            rounds.append(found)
            line = "  ".join(
                f"{name} {way} {found[name][way]['cpu_s_per_gib']:.2f}" for name in field for way in DIRECTIONS
            )
            print(f"round {number + 1}/{asked.rounds}, CPU s/GiB:  {line}", flush=True)
    summary: dict[str, Any] = {}
    for name in field:
        summary[name] = {}
        for way in DIRECTIONS:
            summary[name][way] = {
                key: report.spread(one[name][way][key] for one in rounds) for key in rounds[0][name][way]
            }
            if "nginx" in field:
                summary[name][way]["ratio_to_nginx"] = report.spread(
                    one[name][way]["cpu_s_per_gib"] / one["nginx"][way]["cpu_s_per_gib"] for one in rounds
                )
    return {"summary": summary, "skipped": skipped, "rounds": rounds}


def main() -> None:
    asked = options()
    say_cores()
    found = measure_all(asked)
    rows = [
        [
            f"{name} {way}",
            report.shown(one["cpu_s_per_gib"], 2),
            report.shown(one["ratio_to_nginx"], 2) if "ratio_to_nginx" in one else "",
            report.shown(one["gib_per_s"], 2),
            f"{one['rss_mib']['max']:.0f}",
        ]
        for name, ways in found["summary"].items()
        for way, one in ways.items()
    ]
    print(f"\nBodies of {asked.mib} MiB, one connection. Median (range).\n")
    report.table(["proxy", "CPU s/GiB", "CPU / nginx", "GiB/s", "RSS MiB (most)"], rows)
    report.save("bodies", asked, found)


if __name__ == "__main__":
    report.run(main)

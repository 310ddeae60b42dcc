"""New connections: CPU per connection and connections/s, each with one request, beside the peers of compare.

Nothing is kept alive between wrk and the proxy; between proxy and backend it is, as in compare. Whoever closes first
leaves its port in TIME_WAIT for a minute, so turns are short, and the kernel has to be willing to use such ports again.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from loadtests import compare, contestants, report
from loadtests.rig import RigError, lua, say_cores

OF: Final = "connection"
TW_REUSE: Final = Path("/proc/sys/net/ipv4/tcp_tw_reuse")


def options() -> argparse.Namespace:
    parser = report.parser("New connections, one request on each; interleaved round by round.", seconds=3)
    parser.add_argument("--connections", type=int, default=32, help="connections of wrk at a time")
    parser.add_argument("--warmup", type=float, default=2, help="seconds of load before the first round")
    parser.add_argument("--peers", nargs="*", default=contestants.PEERS, choices=contestants.PEERS)
    return parser.parse_args()


def main() -> None:
    asked = options()
    if TW_REUSE.read_text().strip() == "0":
        raise RigError(f"{TW_REUSE} is 0: the client's ports would run out; 2, Linux's default, is needed")
    say_cores()
    rounds, skipped = compare.measure_all(asked, lua(close=True), OF)
    found = compare.summary(rounds)
    compare.show(found, OF)
    for name, why in skipped.items():
        print(f"skipped: {name}: {why}")
    document = {"summary": found, "skipped": skipped, "rounds": rounds}
    report.save("connections", asked, document, contestants.find_envoy())


if __name__ == "__main__":
    report.run(main)

"""What ``ring-router healthcheck`` does, with the standard library alone: it runs often, in every container.

It asks the admin side and says what it heard; it decides nothing.
"""

from __future__ import annotations

import argparse
import http.client
import os
import sys


def main(words: list[str]) -> int:
    """Exit code 0 if the router is ready, 1 with a sentence on stderr if not."""
    parser = argparse.ArgumentParser(
        prog="ring-router healthcheck", description="Exit 0 if the router is ready, 1 with a sentence if not."
    )
    parser.add_argument(
        "--admin", metavar="URL", default=os.environ.get("RING_ROUTER_ADMIN", "http://127.0.0.1:9900"),
        help="admin address of the running router [default: $RING_ROUTER_ADMIN, else http://127.0.0.1:9900]",
    )  # fmt: skip
    parser.add_argument("--live", action="store_true", help="ask whether the process is there, not whether it is ready")
    parser.add_argument("--timeout", type=float, default=2.0, help="seconds [default: 2]")
    options = parser.parse_args(words)
    address = options.admin.partition("://")[2] or options.admin
    connection = http.client.HTTPConnection(address.strip("/"), timeout=options.timeout)
    try:
        connection.request("GET", "/live" if options.live else "/ready")
        response = connection.getresponse()
        text = response.read(4096).decode("utf-8", "replace").strip()
    except (OSError, http.client.HTTPException) as error:
        sys.stderr.write(f"Error: no answer from {options.admin}: {error}\n")
        return 1
    finally:
        connection.close()
    if response.status != 200:
        sys.stderr.write(f"Error: {text}\n")
        return 1
    sys.stdout.write(text + "\n")
    return 0

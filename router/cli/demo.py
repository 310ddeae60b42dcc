"""``ring-router demo``: Redis, two versions, the router and a little traffic on this machine, and what to try.

Everything listens on loopback and ends with this process, whatever ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Final

import click

from router.cli.options import load_or_exit

CONFIG: Final = Path(__file__).with_name("demo.yaml")
PORTS: Final = {
    "RING_ROUTER_DEMO_PORT": 8080,
    "RING_ROUTER_DEMO_ADMIN_PORT": 9900,
    "RING_ROUTER_DEMO_REDIS_PORT": 6399,
    "RING_ROUTER_DEMO_V1_PORT": 9001,
    "RING_ROUTER_DEMO_V2_PORT": 9002,
}
REQUESTS_PER_SECOND: Final = 40
USERS: Final = 2_000
LINE_SECONDS: Final = 5.0
START_SECONDS: Final = 15.0
STOP_SECONDS: Final = 40.0


@click.command()
@click.option("--seconds", type=float, default=None, help="Stop by itself after this long.")
@click.option("--quiet", is_flag=True, help="No line of figures every five seconds.")
def demo(seconds: float | None, quiet: bool) -> None:
    """Start everything on this machine: Redis, two versions, the router, a little traffic. Ctrl-C ends it all."""
    ports = {name: int(os.environ.get(name, default)) for name, default in PORTS.items()}
    for name, port in ports.items():
        _must_be_free(name, port)
    os.environ.update({name: str(port) for name, port in ports.items()})
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.ExitStack() as house:
        # A demo begins afresh: what an earlier one knew would be held against an empty Redis.
        state = Path(house.enter_context(tempfile.TemporaryDirectory(prefix="ring-router-demo-")))
        os.environ["RING_ROUTER_DEMO_STATE"] = str(state)
        load_or_exit(CONFIG)
        _start(house, ports, state)
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(_visit(ports, seconds, quiet))
        click.echo("\nstopping …")
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _must_be_free(name: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise click.ClickException(f"port {port} is in use; choose another one with {name}=<port>") from None


def _start(house: contextlib.ExitStack, ports: dict[str, int], state: Path) -> None:
    from router.control.redis_server import ServerNotFound, launch

    try:
        server = launch(ports["RING_ROUTER_DEMO_REDIS_PORT"], state)
    except ServerNotFound as error:
        click.echo(f"without Redis: {error}", err=True)
    else:
        house.callback(server.stop)
    for version in ("v1", "v2"):
        port = ports[f"RING_ROUTER_DEMO_{version.upper()}_PORT"]
        _child(house, ["router.process.demo_version", version, str(port), str(os.getpid())])
    _child(house, ["router.cli", "run", "-c", str(CONFIG)])


def _child(house: contextlib.ExitStack, module: list[str]) -> None:
    # A group of its own: Ctrl-C reaches this process alone, which then ends the others in order.
    process = subprocess.Popen([sys.executable, "-P", "-m", *module], process_group=0)

    def end() -> None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    house.callback(end)


TRY: Final = """
The router is on http://127.0.0.1:{port}, its admin side on http://127.0.0.1:{admin}.
The dashboard is on http://127.0.0.1:{admin}/ui/ to look at; with the link above, weights can be changed there.

Three things to try in another terminal:

  1. See a ring:      curl -i -H 'X-User-Id: alice' http://127.0.0.1:{port}/
                      curl -i -H 'X-Ring: canary'   http://127.0.0.1:{port}/
  2. Move people:     redis-cli -p {redis} HSET 'rings:{{shop}}:weights' canary 25 early 50
     no redis-cli?    {command} redis HSET 'rings:{{shop}}:weights' canary 25 early 50
     with a reason:   {command} weights set canary=25 early=50 --reason 'looks good'
  3. Ask why:         {command} explain --live --user alice

Ctrl-C ends it all.
"""


async def _visit(ports: dict[str, int], seconds: float | None, quiet: bool) -> None:
    """Wait for the router, say what to try, and be its first two thousand users."""
    port = ports["RING_ROUTER_DEMO_PORT"]
    loop = asyncio.get_running_loop()
    deadline = loop.time() + START_SECONDS
    while not await _ask(port, "user-0"):
        if loop.time() > deadline:
            raise click.ClickException("the router did not start; its messages are above")
        await asyncio.sleep(0.1)
    prefix = Path(sys.argv[0])
    command = str(prefix if prefix.is_absolute() is False else _relative(prefix))
    click.echo(
        TRY.format(
            port=port,
            admin=ports["RING_ROUTER_DEMO_ADMIN_PORT"],
            redis=ports["RING_ROUTER_DEMO_REDIS_PORT"],
            command=command,
        )
    )
    end = loop.time() + seconds if seconds else float("inf")
    seen: Counter[str] = Counter()
    next_line, user = loop.time() + LINE_SECONDS, 0
    while loop.time() < end:
        user = (user + 1) % USERS
        seen[await _ask(port, f"user-{user}") or "no answer"] += 1
        if loop.time() >= next_line:
            next_line += LINE_SECONDS
            if not quiet:
                click.echo(_line(seen))
            seen.clear()
        await asyncio.sleep(1 / REQUESTS_PER_SECOND)


def _relative(path: Path) -> Path:
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path


def _line(seen: Counter[str]) -> str:
    total = sum(seen.values())
    shares = "   ".join(f"{place} {100 * count / total:.0f} %" for place, count in sorted(seen.items()))
    return f"last {LINE_SECONDS:g} s, {total} requests:   {shares}"


async def _ask(port: int, user: str) -> str:
    """One request; "ring (version)" from the response, empty if there was none."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET / HTTP/1.1\r\nHost: shop.local\r\nX-User-Id: {user}\r\nConnection: close\r\n\r\n".encode())
        async with asyncio.timeout(5):
            head = (await reader.read()).decode("latin-1").lower()
        writer.close()
    except (OSError, TimeoutError):
        return ""
    fields = dict(line.split(": ", 1) for line in head.split("\r\n") if ": " in line)
    if "x-ring" not in fields:
        return ""
    return f"{fields['x-ring']} ({fields.get('x-ring-version', '?')})"

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
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click

from router.cli.demo_fault import fault
from router.cli.demo_visitors import Visitor, visit
from router.cli.options import load_or_exit

CONFIG: Final = Path(__file__).with_name("demo.yaml")
PLAN: Final = Path(__file__).with_name("demo-rollout.yaml")
PORTS: Final = {
    "RING_ROUTER_DEMO_PORT": 8080,
    "RING_ROUTER_DEMO_ADMIN_PORT": 9900,
    "RING_ROUTER_DEMO_REDIS_PORT": 6399,
    "RING_ROUTER_DEMO_V1_PORT": 9001,
    "RING_ROUTER_DEMO_V2_PORT": 9002,
}
LINE_SECONDS: Final = 5.0
START_SECONDS: Final = 15.0
STOP_SECONDS: Final = 40.0


@click.group(invoke_without_command=True)
@click.option("--seconds", type=float, default=None, help="Stop by itself after this long.")
@click.option("--quiet", is_flag=True, help="No line of figures every five seconds.")
@click.pass_context
def demo(context: click.Context, seconds: float | None, quiet: bool) -> None:
    """Start everything on this machine: Redis, two versions, the router, a little traffic. Ctrl-C ends it all."""
    if context.invoked_subcommand is not None:
        return
    ports = {name: int(os.environ.get(name, default)) for name, default in PORTS.items()}
    for name, port in ports.items():
        _must_be_free(name, port)
    os.environ.update({name: str(port) for name, port in ports.items()})
    _on_interrupt(_give_up)
    with contextlib.ExitStack() as house:
        # A demo begins afresh: what an earlier one knew would be held against an empty Redis.
        state = Path(house.enter_context(tempfile.TemporaryDirectory(prefix="ring-router-demo-")))
        os.environ["RING_ROUTER_DEMO_STATE"] = str(state)
        load_or_exit(CONFIG)
        _start(house, ports, state)
        with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
            asyncio.run(_visit(ports, seconds, quiet))
        _be_deaf()
        click.echo("\nstopping …")
    for number in (signal.SIGINT, signal.SIGTERM):  # what Python would give back on its way out
        signal.signal(number, signal.SIG_IGN)


demo.add_command(fault)


def _on_interrupt(act: Callable[[], object]) -> None:
    """Once: a second Ctrl-C would cut the stopping short, and leave processes behind."""

    def interrupted(*_: object) -> None:
        _be_deaf()
        act()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupted)


def _be_deaf() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # not SIG_IGN: Python complains when one of both was on its way
        signal.signal(number, lambda *_: None)


def _give_up() -> None:
    raise KeyboardInterrupt


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

Four things to try in another terminal:

  1. See a ring:      curl -i -H 'X-User-Id: alice' http://127.0.0.1:{port}/
                      curl -i -H 'X-Ring: canary'   http://127.0.0.1:{port}/
  2. Move people:     redis-cli -p {redis} HSET 'rings:{{shop}}:weights' canary 25 early 50
     no redis-cli?    {command} redis HSET 'rings:{{shop}}:weights' canary 25 early 50
     with a reason:   {command} weights set canary=25 early=50 --reason 'looks good'
  3. Ask why:         {command} explain --live --user alice

  4. Roll out v2, which proves itself or goes back, in a minute or two:
     first v1 alone:  {command} weights set canary=0 early=0 --reason 'v2 is built'
     then v2:         {command} rollout start {plan} --reason 'v2 is built'
     watch it:        {command} rollout status -w
     break v2:        {command} demo fault errors=5%     or latency=+200ms, hang=1%, none

Ctrl-C ends it all.
"""


async def _visit(ports: dict[str, int], seconds: float | None, quiet: bool) -> None:
    """Wait for the router, say what to try, and be its first users."""
    from router.telemetry.tasks import end as end_task
    from router.telemetry.tasks import spawn

    port = ports["RING_ROUTER_DEMO_PORT"]
    loop = asyncio.get_running_loop()
    me = asyncio.current_task()
    assert me is not None
    _on_interrupt(lambda: loop.call_soon_threadsafe(me.cancel))
    deadline = loop.time() + START_SECONDS
    first = Visitor(port)
    while not await first.ask("user-0"):
        if loop.time() > deadline:
            raise click.ClickException("the router did not start; its messages are above")
        await asyncio.sleep(0.1)
    first.close()
    prefix = Path(sys.argv[0])
    click.echo(
        TRY.format(
            port=port,
            admin=ports["RING_ROUTER_DEMO_ADMIN_PORT"],
            redis=ports["RING_ROUTER_DEMO_REDIS_PORT"],
            command=_relative(prefix) if prefix.is_absolute() else prefix,
            plan=_relative(PLAN),
        )
    )
    seen: Counter[str] = Counter()
    visitors = spawn(visit(port, seen), name="visitors of the demo")
    try:
        end = loop.time() + seconds if seconds else float("inf")
        while (left := end - loop.time()) > 0:
            await asyncio.sleep(min(LINE_SECONDS, left))
            if not quiet and left >= LINE_SECONDS:
                click.echo(_line(seen))
            seen.clear()
    finally:
        await end_task(visitors)


def _relative(path: Path) -> Path:
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path


def _line(seen: Counter[str]) -> str:
    total = sum(seen.values())
    shares = "   ".join(f"{place} {100 * count / total:.0f} %" for place, count in sorted(seen.items()))
    return f"last {LINE_SECONDS:g} s, {total} requests:   {shares}"

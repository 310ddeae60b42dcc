"""Real servers of every kind, on loopback: a primary with a replica and three Sentinels, and a Cluster of three owners.

``primary_and_sentinels`` and ``cluster`` give the URL and the processes, and end them all.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from redis.crc import key_slot
from redis.exceptions import RedisError

from loadtests.rig import HOST, RigError, free_ports
from router.control.link import make_client
from router.control.redis_server import EmbeddedRedis, find_server, launch
from tests.certificates import Authority

NAME: Final = "routing"
DOWN_AFTER_MS: Final = 1000
NODE_TIMEOUT_MS: Final = 1500
READY_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 0.05


async def command(port: int, *words: str | int | bytes) -> Any:
    """One command to one server. Raises what redis-py does."""
    client = make_client(f"redis://{HOST}:{port}")
    try:
        return await client.execute_command(*words)
    finally:
        await client.aclose()


async def reached(is_so: Callable[[], Awaitable[bool]], what: str, within: float = READY_SECONDS) -> float:
    """The moment (``time.monotonic``) when it was so. Raises RigError."""
    ends = time.monotonic() + within
    while time.monotonic() < ends:
        with contextlib.suppress(RedisError, OSError):
            if await is_so():
                return time.monotonic()
        await asyncio.sleep(_LOOK_SECONDS)
    raise RigError(f"{what}: not within {within:g} s")


@dataclass
class Watched:
    """A primary, its replica and three Sentinels."""

    url: str
    servers: dict[int, EmbeddedRedis]
    sentinels: dict[int, subprocess.Popen[bytes]]

    async def primary(self) -> int:
        """The port of the primary as the first sentinel that answers sees it."""
        for port in self.sentinels:
            with contextlib.suppress(RedisError, OSError):
                said = await command(port, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)
                return int(said[1])
        raise RigError("no sentinel answers")

    async def is_whole(self) -> bool:
        """Whether the sentinels know each other and a replica that follows: before that they agree on nothing."""
        for port in self.sentinels:
            said = await command(port, "SENTINEL", "MASTER", NAME)
            flat = said if isinstance(said, dict) else dict(zip(said[::2], said[1::2], strict=True))
            if int(flat[b"num-other-sentinels"]) != len(self.sentinels) - 1 or int(flat[b"num-slaves"]) < 1:
                return False
        replication = await command(await self.primary(), "INFO", "replication")
        return b"state=online" in (replication if isinstance(replication, bytes) else str(replication).encode()) or (
            isinstance(replication, dict) and replication.get("connected_slaves", 0) > 0
        )


@contextlib.asynccontextmanager
async def primary_and_sentinels(directory: Path) -> AsyncIterator[Watched]:
    first, second, *ports = free_ports(5)
    servers: dict[int, EmbeddedRedis] = {}
    sentinels: dict[int, subprocess.Popen[bytes]] = {}
    try:
        servers[first] = launch(first, directory / "first")
        servers[second] = launch(second, directory / "second", arguments=["--replicaof", HOST, str(first)])
        for port in ports:
            config = directory / f"sentinel-{port}.conf"
            config.write_text(
                f"port {port}\nbind {HOST}\ndir {directory}\nsentinel monitor {NAME} {HOST} {first} 2\n"
                f"sentinel down-after-milliseconds {NAME} {DOWN_AFTER_MS}\nsentinel failover-timeout {NAME} 4000\n"
            )
            with config.with_suffix(".out").open("wb") as out:
                sentinels[port] = subprocess.Popen(  # noqa: ASYNC220 - a fork, and nothing that is waited for
                    [str(find_server()), str(config), "--sentinel"], stdin=subprocess.DEVNULL, stdout=out, stderr=out
                )
        where = ",".join(f"{HOST}:{port}" for port in ports)
        found = Watched(f"redis+sentinel://{where}/{NAME}", servers, sentinels)
        await reached(found.is_whole, "the sentinels know each other")
        yield found
    finally:
        for process in sentinels.values():
            process.kill()
            process.wait()
        for server in servers.values():
            server.kill()


@dataclass
class Nodes:
    """Three owners, and a replica of whoever owns ``key``."""

    url: str
    key: str
    servers: dict[int, EmbeddedRedis]

    @property
    def slot(self) -> int:
        return key_slot(self.key.encode())

    async def owner(self) -> int:
        """The port of the owner of ``key``'s slot, as the nodes that run see it; asked of somebody else."""
        votes: dict[int, int] = {}
        for port, server in self.servers.items():
            if server.is_running:
                with contextlib.suppress(RedisError, OSError, TimeoutError):
                    async with asyncio.timeout(0.5):
                        for row in await command(port, "CLUSTER", "SLOTS"):
                            if row[0] <= self.slot <= row[1]:
                                votes[int(row[2][1])] = votes.get(int(row[2][1]), 0) + 1
        return max(votes, key=lambda port: votes[port])

    async def migrate(self, source: int, target: int) -> None:
        """Move ``key``'s slot as redis-cli --cluster reshard does."""
        ids = {port: (await command(port, "CLUSTER", "MYID")).decode() for port in (source, target)}
        await command(target, "CLUSTER", "SETSLOT", self.slot, "IMPORTING", ids[source])
        await command(source, "CLUSTER", "SETSLOT", self.slot, "MIGRATING", ids[target])
        while keys := await command(source, "CLUSTER", "GETKEYSINSLOT", self.slot, 100):
            await command(source, "MIGRATE", HOST, target, "", 0, 1000, "KEYS", *keys)
        for port in (target, source):
            await command(port, "CLUSTER", "SETSLOT", self.slot, "NODE", ids[target])


@contextlib.asynccontextmanager
async def cluster(directory: Path, key: str) -> AsyncIterator[Nodes]:
    ports = free_ports(8)
    ports, buses = ports[:4], ports[4:]
    servers: dict[int, EmbeddedRedis] = {}
    try:
        for port, bus in zip(ports, buses, strict=True):
            servers[port] = launch(port, directory / f"node-{port}", arguments=[
                "--cluster-enabled", "yes", "--cluster-node-timeout", str(NODE_TIMEOUT_MS),
                "--cluster-port", str(bus), "--cluster-require-full-coverage", "no",
            ])  # fmt: skip
        owners = ports[:3]
        borders = [0, 5461, 10923, 16384]
        for place, port in enumerate(owners):
            await command(port, "CLUSTER", "ADDSLOTSRANGE", borders[place], borders[place + 1] - 1)
            await command(port, "CLUSTER", "SET-CONFIG-EPOCH", place + 1)
        for port, bus in zip(ports[1:], buses[1:], strict=True):
            await command(ports[0], "CLUSTER", "MEET", HOST, port, bus)
        slot = key_slot(key.encode())
        owner = next(port for place, port in enumerate(owners) if borders[place] <= slot < borders[place + 1])
        identity = (await command(owner, "CLUSTER", "MYID")).decode()

        async def knows() -> bool:
            return all([len(await command(port, "CLUSTER", "SLOTS")) == 3 for port in ports])

        await reached(knows, "the nodes know each other")
        await command(ports[3], "CLUSTER", "REPLICATE", identity)

        async def follows() -> bool:
            rows = await command(ports[0], "CLUSTER", "SLOTS")
            said = await command(ports[3], "INFO", "replication")
            return any(len(row) > 3 and len(row[3]) > 1 for row in rows) and said["master_link_status"] == "up"

        await reached(follows, "the replica follows")
        where = ",".join(f"{HOST}:{port}" for port in owners)
        yield Nodes(f"redis+cluster://{where}", key, servers)
    finally:
        for server in servers.values():
            server.kill()


@dataclass
class Encrypted:
    """A server that speaks TLS alone to whoever shows a certificate: Redis's own TLS, or where it has none a front."""

    url: str
    restart: Callable[[], Awaitable[None]]
    signal: Callable[[int], None]
    is_front: bool


@contextlib.asynccontextmanager
async def tls_server(directory: Path, *, needs_front: bool = False) -> AsyncIterator[Encrypted]:
    authority = Authority(directory)
    server, client = authority.sign("127.0.0.1", file="redis"), authority.sign("router.example", file="client")
    plain, port = free_ports(2)
    query = f"ssl_ca_certs={authority.ca}&ssl_certfile={client.certificate}&ssl_keyfile={client.key}"
    binary = shutil.which("redis-server")
    arguments: list[str] = []
    async with contextlib.AsyncExitStack() as house:
        if binary and not needs_front:
            arguments = ["--tls-port", str(port), "--tls-cert-file", str(server.certificate), "--tls-key-file",
                         str(server.key), "--tls-ca-cert-file", str(authority.ca)]  # fmt: skip
        else:
            binary = None
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.ca))
            context.load_cert_chain(server.certificate, server.key)
            context.verify_mode = ssl.CERT_REQUIRED
            front = await asyncio.start_server(lambda r, w: _forward(r, w, plain), HOST, port, ssl=context)
            house.callback(front.close)

        def start() -> EmbeddedRedis:
            return launch(plain, directory / "tls", arguments=arguments, server=Path(binary) if binary else None)

        running = [start()]
        house.callback(lambda: running[-1].kill())

        async def restart() -> None:
            running[-1].kill()
            running.append(await asyncio.to_thread(start))

        yield Encrypted(
            f"rediss://{HOST}:{port}/0?{query}",
            restart,
            lambda number: running[-1].process.send_signal(number),
            binary is None,
        )


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    """Both ways until either side ends."""
    try:
        to_reader, to_writer = await asyncio.open_connection(HOST, port)
    except OSError:
        writer.close()
        return

    async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                target.write(data)
                await target.drain()
        target.close()

    await asyncio.gather(copy(reader, to_writer), copy(to_reader, writer))

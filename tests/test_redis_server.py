"""The embedded server: found, started, and never left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from router.control.redis_server import ServerFailed, ServerNotFound, find_server, free_port, launch
from tests.redis_fixture import Server
from tests.waiting import until


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_named_server_that_is_none_is_refused_with_the_variable(tmp_path: Path) -> None:
    with pytest.raises(ServerNotFound, match="RING_ROUTER_REDIS_SERVER"):
        find_server({"RING_ROUTER_REDIS_SERVER": str(tmp_path / "nothing"), "PATH": ""})


def test_a_named_server_wins(redis_server: Server) -> None:
    binary = find_server()
    assert find_server({"RING_ROUTER_REDIS_SERVER": str(binary), "PATH": ""}) == binary.resolve()


def test_a_port_that_answers_already_is_left_alone(redis_server: Server, tmp_path: Path) -> None:
    with pytest.raises(ServerFailed, match="choose another port"):
        launch(redis_server.port, tmp_path)


def test_a_server_that_cannot_start_says_why(redis_server: Server, tmp_path: Path) -> None:
    with pytest.raises(ServerFailed, match="no-such-option"):
        launch(free_port(), tmp_path, arguments=["--no-such-option", "1"])


def test_the_server_dies_with_the_process_that_started_it(redis_server: Server, tmp_path: Path) -> None:
    code = (
        "import sys, time, pathlib\n"
        "from router.control.redis_server import launch\n"
        "server = launch(int(sys.argv[1]), pathlib.Path(sys.argv[2]))\n"
        "sys.stdout.write(f'{server.pid}\\n'); sys.stdout.flush(); time.sleep(600)\n"
    )
    arguments = [sys.executable, "-c", code, str(free_port()), str(tmp_path)]
    parent = subprocess.Popen(arguments, stdout=subprocess.PIPE, cwd=Path(__file__).parent.parent)
    try:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
    finally:
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
        if parent.stdout is not None:
            parent.stdout.close()
    asyncio.run(until(lambda: not is_alive(pid), within=10))

"""deploy/systemd: systemd takes the units, and the router does what they say of it."""

from __future__ import annotations

import configparser
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from router.config.load import load_settings
from tests.running import free_ports, stop_router
from tests.test_edge_sockets import CONFIG
from tests.test_process_stop import heard, started_by_systemd, told
from tests.waiting import until

UNITS = Path(__file__).parent.parent / "deploy" / "systemd"
ANALYZE = shutil.which("systemd-analyze")


def unit(name: str) -> configparser.RawConfigParser:
    found = configparser.RawConfigParser(strict=False)
    found.read_string((UNITS / name).read_text("utf-8"))
    return found


@pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not there (Debian: systemd)")
def test_systemd_takes_the_units_and_finds_little_exposed(tmp_path: Path) -> None:
    assert ANALYZE is not None
    for path in UNITS.glob("ring-router.*"):
        text = path.read_text("utf-8").replace("/opt/ring-router/bin/ring-router", "/bin/true")
        (tmp_path / path.name).write_text(text)
    names = [str(path) for path in sorted(tmp_path.iterdir())]
    done = subprocess.run([ANALYZE, "verify", *names], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    judged = [ANALYZE, "security", "--offline=true", "--threshold=20", tmp_path / "ring-router.service"]
    done = subprocess.run(judged, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_units_and_the_config_agree() -> None:
    settings = load_settings(UNITS / "router.yaml")
    assert [str(one.address) for one in settings.listen] == [unit("ring-router.socket")["Socket"]["ListenStream"]]
    patience = int(unit("ring-router.service")["Service"]["TimeoutStopSec"].removesuffix("s"))
    assert settings.shutdown.delay + settings.timeouts.drain + 5 <= patience


async def test_a_router_of_systemd_gives_signs_of_life_until_it_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "300000")
    admin, config = free_ports(1)[0], tmp_path / "router.yaml"
    with told(tmp_path / "notify") as hearing, socket.create_server(("127.0.0.1", 0)) as passed:
        address = f"127.0.0.1:{passed.getsockname()[1]}"
        config.write_text(
            CONFIG.format(
                listen=address, admin=admin, workers=1, state=tmp_path / "state", more="", endpoint="http://127.0.0.1:1"
            )
        )
        router = started_by_systemd(config, admin, tmp_path / "router.log", [passed])
        try:
            await until(lambda: heard(hearing) == "READY=1", within=20)
            for _ in range(3):
                await until(lambda: heard(hearing) == "WATCHDOG=1", within=10)
        finally:
            await stop_router(router)
        said = []
        while word := heard(hearing):
            said.append(word)
        assert "STOPPING=1" in said

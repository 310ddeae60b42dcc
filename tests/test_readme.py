"""The README is true: its commands run against a real demo and print what it shows, its configs are valid."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from router.cli.demo import CONFIG, PORTS
from router.control.redis_server import ServerNotFound, find_server, free_port
from tests.certificates import Authority
from tests.test_plan_document import plan_of
from tests.waiting import until

ROOT: Final = Path(__file__).parent.parent
README: Final = (ROOT / "README.md").read_text("utf-8")
PYTHON: Final = (sys.executable, "-m", "router.cli")
READS: Final = ("curl ", "ring-router explain", "ring-router weights get", "redis-cli -p 6399 HGETALL")
"""Commands that may be asked again until a change has arrived; all others run exactly once."""


@dataclass
class Command:
    """A command line of the README and the output shown under it."""

    line: str
    shown: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        return self.line


def blocks(language: str) -> list[str]:
    """The contents of the README's fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def commands() -> list[Command]:
    """Every command of every console block, in the order of the README."""
    found: list[Command] = []
    for block in blocks("console"):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append(Command(line[2:]))
            else:
                found[-1].shown.append(line)
    return found


def shows(command: Command, output: str) -> bool:
    """Whether the lines shown are in the output, in this order; ``...`` stands for anything."""
    lines = iter(output.splitlines())
    patterns = [".*".join(map(re.escape, shown.split("..."))) for shown in command.shown if shown not in ("...", "")]
    return all(any(re.fullmatch(pattern, line) for line in lines) for pattern in patterns)


@dataclass
class Demo:
    """A running demo on ports of its own."""

    environment: Mapping[str, str]
    process: asyncio.subprocess.Process
    log: Path

    def words(self, line: str) -> list[str]:
        """The command with this demo's ports, and without redis-cli where there is none."""
        for name, port in PORTS.items():
            line = re.sub(rf"\b{port}\b", self.environment[name], line)
        words = shlex.split(line)
        if words[0] == "ring-router":
            return [*PYTHON, *words[1:]]
        if words[0] == "redis-cli" and shutil.which("redis-cli") is None:
            assert words[1] == "-p"
            return [*PYTHON, "redis", *words[3:]]
        return words

    async def run(self, line: str) -> str:
        """Run a command to its end; it has to succeed. Returns what it printed."""
        process = await asyncio.create_subprocess_exec(
            *self.words(line),
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        output, errors = await process.communicate()
        assert process.returncode == 0, f"{line}: exit code {process.returncode}\n{errors.decode()}"
        return output.decode()


@pytest.fixture
async def demo(tmp_path: Path) -> AsyncIterator[Demo]:
    try:
        find_server()
    except ServerNotFound as error:
        pytest.skip(str(error))
    ports: set[int] = set()
    while len(ports) < len(PORTS):
        ports.add(free_port())
    environment = {
        **os.environ,
        **{name: str(port) for name, port in zip(PORTS, sorted(ports), strict=True)},
        "RING_ROUTER_DEMO_STATE": str(tmp_path / "state"),
        "RING_ROUTER_CONFIG": str(CONFIG),
    }
    environment["RING_ROUTER_ADMIN"] = f"http://127.0.0.1:{environment['RING_ROUTER_DEMO_ADMIN_PORT']}"
    log = tmp_path / "demo.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *PYTHON, "demo", cwd=tmp_path, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        await until(lambda: process.returncode is not None or "Ctrl-C ends it all." in log.read_text("utf-8"), 60)
        assert process.returncode is None, log.read_text("utf-8")
        yield Demo(environment, process, log)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        await process.wait()


def arrives(demo: Demo, command: Command, last: list[str]) -> Callable[[], object]:
    """Whether the command shows by now what the README shows."""

    async def ask() -> bool:
        last[:] = [await demo.run(command.line)]
        return shows(command, last[0])

    return ask


async def test_every_command_of_the_readme_runs_and_prints_what_is_shown(demo: Demo) -> None:
    story = commands()
    assert len(story) > 10
    for command in story:
        assert command.line.startswith(("ring-router ", "curl ", "redis-cli ")), f"{command} is not tried by anybody"
        if command.line.startswith(READS):
            last = [""]
            try:
                await until(arrives(demo, command, last))
            except AssertionError:
                pytest.fail(f"$ {command}\nshown:\n{command.shown}\nprinted:\n{last[0]}")
        else:
            printed = await demo.run(command.line)
            assert shows(command, printed), f"$ {command}\nshown:\n{command.shown}\nprinted:\n{printed}"


def test_the_plan_of_the_readme_is_valid() -> None:
    (plan,) = [text for text in blocks("yaml") if text.startswith("rollouts:")]
    assert len(plan_of(plan).steps) == 4


def test_every_config_of_the_readme_is_valid(tmp_path: Path) -> None:
    configs = [text for text in blocks("yaml") if not text.startswith("rollouts:")]
    assert configs
    (tmp_path / "tls").mkdir()
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "sorry.html").write_text("<p>Sorry.")
    authority = Authority(tmp_path / "tls", "backends-ca")
    signed = authority.sign("shop.example.com", file="shop")
    signed.key.rename(tmp_path / "tls" / "shop.key")
    signed.certificate.rename(tmp_path / "tls" / "shop.pem")
    for number, text in enumerate(configs):
        path = tmp_path / f"readme-{number}.yaml"
        path.write_text(text, "utf-8")
        done = subprocess.run(
            [*PYTHON, "check", "-c", str(path)], cwd=ROOT, capture_output=True, text=True, timeout=20, check=False
        )
        assert done.returncode == 0, done.stderr


def test_every_command_line_word_has_a_place_in_the_readme() -> None:
    from router.cli.main import COMMANDS

    missing = [name for name in COMMANDS if f"`{name}`" not in README and f"`{name} " not in README]
    assert not missing


def test_every_file_the_readme_links_to_is_there() -> None:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", README)
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


async def test_ctrl_c_ends_it_all_however_often_it_is_pressed(demo: Demo) -> None:
    def has_ended_when_pressed_again() -> bool:
        for number in (signal.SIGINT, signal.SIGTERM):  # the terminal's, and of who started it
            with contextlib.suppress(ProcessLookupError):
                demo.process.send_signal(number)
        return demo.process.returncode is not None

    await until(has_ended_when_pressed_again, within=60)
    assert demo.process.returncode == 0
    printed = demo.log.read_text("utf-8")
    assert "stopping" in printed
    assert "Traceback" not in printed
    for name in PORTS:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", int(demo.environment[name])))

"""Parents that are replaced, killed and started by systemd, as stories: the listening sockets outlive them."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.error
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from router.process.orphans import started_at
from tests.house import fixed
from tests.running import Router, free_ports, running_router, some_more, steady_load, stop_router
from tests.test_edge_sockets import OK, ask_at, edge_router
from tests.waiting import until, until_said

NEW_CONNECTION = b"GET / HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n"


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A TMPDIR of its own, so that no other router's directories are looked at; short, for the sockets in it."""
    with tempfile.TemporaryDirectory(prefix="rr-") as directory:
        monkeypatch.setenv("TMPDIR", directory)
        yield Path(directory)


def left_in(directory: Path) -> list[Path]:
    return list(directory.iterdir())


def successor_of(router: Router, *more: str, log: str = "next.log") -> Router:
    """Another `ring-router run` with the same config."""
    path = router.log.with_name(log)
    with path.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "router.cli", "run", "-c", str(router.config), *more], stdout=out, stderr=out
        )
    return Router(process, router.config, router.port, router.admin, path)


@asynccontextmanager
async def newcomers(port: int) -> AsyncIterator[list[str]]:
    """Clients that open a connection for every request, one after the other, until the block ends; their failures."""
    failures: list[str] = []
    ends = asyncio.Event()

    async def one() -> None:
        while not ends.is_set():
            try:
                async with asyncio.timeout(10):
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.write(NEW_CONNECTION)
                    answer = await reader.read()
                    writer.close()
                if not answer.startswith(b"HTTP/1.1 200 "):
                    failures.append(repr(answer[:80]))
            except (OSError, TimeoutError) as error:
                failures.append(repr(error))

    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(one())
        try:
            yield failures
        finally:
            ends.set()


async def is_never_unready(router: Router, ends: asyncio.Event, seen: list[bytes]) -> None:
    """What /ready says, asked over and over."""
    while not ends.is_set():
        try:
            seen.append(await asyncio.to_thread(router.get, "/ready"))
        except urllib.error.HTTPError as refusal:
            seen.append(refusal.read())


async def test_a_router_is_taken_over_three_times_under_load_and_nobody_notices(
    tmp_path: Path, temporary: Path
) -> None:
    ready: list[bytes] = []
    async with running_router(tmp_path) as first:
        router, ends = first, asyncio.Event()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(is_never_unready(first, ends, ready))
                try:
                    async with steady_load(first) as tally, newcomers(first.port) as failures:
                        for number in range(3):
                            before, router = router, successor_of(router, "--take-over", log=f"next-{number}.log")
                            await until(lambda: before.process.poll() is not None, within=60)  # noqa: B023
                            assert before.process.returncode == 0, before.log.read_text()
                            assert f"took over from pid {before.process.pid}" in router.log.read_text()
                            await until_said(router.is_everywhere, within=10)
                            await some_more(tally)
                finally:
                    ends.set()
            assert tally.failures == []
            assert failures == []
            assert set(ready) == {b"ready\n"}
        finally:
            await stop_router(router)
        await until(lambda: not left_in(temporary), within=5)


async def test_whoever_asks_the_old_control_as_it_gives_way_hears_that_traffic_may_come(
    tmp_path: Path, temporary: Path
) -> None:
    async with running_router(tmp_path) as first:
        control, workers = first.control_pid(), first.worker_pids()
        reader, writer = await asyncio.open_connection("127.0.0.1", first.admin)
        ask = b"GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n"
        writer.write(ask)
        assert (await reader.readuntil(b"ready\n")).startswith(b"HTTP/1.1 200 ")
        successor = successor_of(first, "--take-over")
        try:
            await until(lambda: "wants to take over" in first.log.read_text(), within=30)
            os.kill(control, signal.SIGSTOP)  # as busy as can be: the signal, its workers' goodbyes and we all wait
            await until(lambda: not any(started_at(pid) for pid in workers), within=30)
            writer.write(ask)
            os.kill(control, signal.SIGCONT)
            answer = await reader.readuntil(b"\r\n\r\n") + await reader.readuntil(b"\n")
            assert answer.startswith(b"HTTP/1.1 200 "), answer
            writer.close()
        finally:
            if started_at(control):
                os.kill(control, signal.SIGCONT)
            await until(lambda: first.process.poll() is not None, within=60)
            await stop_router(successor)


async def test_another_number_of_workers_serves_all_the_sockets_it_takes_over(tmp_path: Path, temporary: Path) -> None:
    async with running_router(tmp_path, workers=3) as first:
        router, last = first, first
        try:
            async with newcomers(first.port) as failures:
                for count in (1, 2):
                    text = first.config.read_text()
                    first.config.write_text("\n".join(
                        f"workers: {count}" if line.startswith("workers:") else line for line in text.splitlines()
                    ))  # fmt: skip
                    router, last = successor_of(first, "--take-over", log=f"next-{count}.log"), router
                    await until(lambda: last.process.poll() is not None, within=60)  # noqa: B023
                    await until_said(lambda: len(router.worker_pids()) == count, within=10)  # noqa: B023
                    for user in range(50):
                        await router.ring_of(f"user-{user}")
            assert failures == []
        finally:
            await stop_router(router)


async def test_a_take_over_that_fails_leaves_the_running_router_as_it_is(tmp_path: Path, temporary: Path) -> None:
    async with running_router(tmp_path) as router:
        pids = sorted(router.worker_pids())
        async with steady_load(router) as tally, newcomers(router.port) as failures:
            broken = tmp_path / "broken.yaml"
            broken.write_text(router.config.read_text())
            new = successor_of(Router(router.process, broken, router.port, router.admin, router.log), "--take-over")
            await until(lambda: "wants to take over" in router.log.read_text(), within=30)
            broken.write_text("services: [")  # control reads it, and ends each time
            await until(lambda: new.process.poll() is not None, within=60)
            assert new.process.returncode == 1, new.log.read_text()
            assert f"pid {router.process.pid} goes on" in new.log.read_text()
            await until(lambda: "this router serves on" in router.log.read_text(), within=5)
            await some_more(tally)
        assert tally.failures == []
        assert failures == []
        assert sorted(router.worker_pids()) == pids
        again = successor_of(router, "--take-over", log="again.log")
        await until(lambda: router.process.poll() is not None, within=60)
        await until_said(again.is_ready, within=60)
        await stop_router(again)


async def test_a_signal_makes_the_router_start_its_own_successor(tmp_path: Path, temporary: Path) -> None:
    async with running_router(tmp_path) as router:
        new = 0
        try:
            async with newcomers(router.port) as failures:
                router.process.send_signal(signal.SIGUSR2)
                await until(lambda: router.process.poll() is not None, within=60)
                assert router.process.returncode == 0
                new = int(re.findall(r"pid (\d+) has taken over", router.log.read_text())[0])
                await until_said(router.is_ready, within=60)
                await router.ring_of("user-0")
            assert failures == []
        finally:
            if new:
                os.kill(new, signal.SIGTERM)
                await until(lambda: not started_at(new), within=20)


async def test_without_being_told_to_take_over_a_second_router_does_not_start(tmp_path: Path, temporary: Path) -> None:
    async with running_router(tmp_path, workers=1) as router:
        second = successor_of(router)
        await until(lambda: second.process.poll() is not None, within=20)
        assert second.process.returncode == 1
        message = second.log.read_text()
        assert f"cannot listen on 127.0.0.1:{router.port}" in message
        assert f"a ring-router (pid {router.process.pid}) serves it" in message
        assert "--take-over" in message


async def test_a_unix_socket_is_taken_over_and_its_file_stays(tmp_path: Path, temporary: Path) -> None:
    path = tmp_path / "http.sock"
    async with edge_router(tmp_path, f"unix:{path}", fixed(OK)) as router:
        new = successor_of(router, "--take-over")
        await until(lambda: router.process.poll() is not None, within=60)
        assert (await ask_at(path)).endswith(b"ok")
        assert await stop_router(new) == 0
        assert not path.exists()


async def test_who_fails_to_take_over_leaves_the_file_of_a_unix_socket_where_it_is(
    tmp_path: Path, temporary: Path
) -> None:
    path = tmp_path / "http.sock"
    async with edge_router(tmp_path, f"unix:{path}", fixed(OK)) as router:
        text = router.config.read_text()
        with socket.create_server(("127.0.0.1", 0)) as stranger:
            port = stranger.getsockname()[1]
            router.config.write_text(
                text.replace(f"listen: unix:{path}", f'listen: ["unix:{path}", "127.0.0.1:{port}"]')
            )
            new = successor_of(router, "--take-over")
            await until(lambda: new.process.poll() is not None, within=20)
            assert new.process.returncode == 1
            assert f"cannot listen on 127.0.0.1:{port}" in new.log.read_text()
        assert (await ask_at(path)).endswith(b"ok")
        router.config.write_text(text)
        early = successor_of(router, "--take-over", log="early.log")
        await until(lambda: router.log.read_text().count("wants to take over") == 2, within=20)
        early.process.send_signal(signal.SIGTERM)  # it may serve by now, or not
        await until(lambda: early.process.poll() is not None, within=20)
        if router.process.poll() is None and "has taken over" not in router.log.read_text():
            assert (await ask_at(path)).endswith(b"ok")


async def test_workers_serve_on_when_their_parent_is_killed_and_the_next_one_relieves_them(
    tmp_path: Path, temporary: Path
) -> None:
    async with running_router(tmp_path) as router:
        orphans, control = router.worker_pids(), router.control_pid()
        async with steady_load(router) as tally, newcomers(router.port) as failures:
            await some_more(tally)
            router.process.kill()
            router.process.wait()
            await until(lambda: not started_at(control), within=5)
            await some_more(tally, 1000)
            assert all(started_at(pid) for pid in orphans)
            new = successor_of(router)
            try:
                await until_said(lambda: new.is_ready() and not any(started_at(pid) for pid in orphans), within=30)
                await some_more(tally)
                assert not set(new.worker_pids()) & set(orphans)
                await until(lambda: len(left_in(temporary)) == 1, within=5)  # the dead parent's is removed
            finally:
                tally.stop = True
                kept, strangers = list(tally.failures), list(failures)
                await stop_router(new)
        assert kept == []
        assert strangers == []


async def test_orphans_that_nobody_relieves_end_by_themselves(tmp_path: Path, temporary: Path) -> None:
    async with edge_router(tmp_path, f"127.0.0.1:{free_ports(1)[0]}", fixed(OK), workers=2, more="orphans: 1s") as r:
        orphans = r.worker_pids()
        r.process.kill()
        r.process.wait()
        await until(lambda: not any(started_at(pid) for pid in orphans), within=15)
        await until(lambda: not left_in(temporary), within=5)


async def test_a_strangers_port_is_refused_even_to_one_who_takes_over(tmp_path: Path, temporary: Path) -> None:
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        port = stranger.getsockname()[1]
        config = tmp_path / "router.yaml"
        config.write_text(
            f"listen: 127.0.0.1:{port}\nservices: {{a: {{versions: {{v: {{endpoints: ['http://127.0.0.1:1']}}}},"
            " rings: [{name: everyone, version: v}]}}\n"
        )
        for words in ([], ["--take-over"]):
            new = successor_of(Router(None, config, port, 1, tmp_path / "x.log"), *words)  # type: ignore[arg-type]
            await until(lambda: new.process.poll() is not None, within=20)  # noqa: B023
            assert new.process.returncode == 1
            assert f"cannot listen on 127.0.0.1:{port}" in new.log.read_text()

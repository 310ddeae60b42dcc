"""Workers that stop, hang and wear out, as stories: those who come meanwhile are served, and no count is lost."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from pathlib import Path

from tests.certificates import Authority
from tests.house import fixed
from tests.running import CONFIG, Router, free_ports, running_router, some_more, steady_load, stop_router
from tests.test_edge_sockets import GET, OK, ask_at, edge_router
from tests.waiting import until, until_said


def said(router: Router, words: str) -> bool:
    return words in router.log.read_text()


def change(router: Router, line: str) -> None:
    """One more line for the config, before anything else."""
    router.config.write_text(line + "\n" + router.config.read_text())


async def test_who_comes_while_a_worker_is_stopped_is_served_at_once_and_the_worker_is_replaced(tmp_path: Path) -> None:
    async with running_router(tmp_path) as router:
        stopped = router.worker_pids()[0]
        os.kill(stopped, signal.SIGSTOP)
        waited = []
        for number in range(60):  # the kernel gives about every second one to the worker that is stopped
            began = time.monotonic()
            async with asyncio.timeout(5):
                await router.ring_of(f"user-{number}")
            waited.append(time.monotonic() - began)
        # Without the neighbours: until the watchdog's two seconds are over.
        assert sorted(waited)[-2] < 0.5, sorted(waited)[-5:]
        await until(lambda: said(router, f"(pid {stopped}) gave no sign of life"), within=6)
        await until_said(lambda: router.is_ready() and stopped not in router.worker_pids(), within=10)
        assert len(router.worker_pids()) == 2


async def test_neighbours_take_over_tls_and_announced_connections_too(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    signed = authority.sign("127.0.0.1")
    secure, announced = free_ports(2)
    tls = f"tls: {{certificates: [{{certificate: {signed.certificate}, key: {signed.key}}}]}}"
    listen = f'[{{address: "127.0.0.1:{secure}", {tls}}}, {{address: "127.0.0.1:{announced}", proxy_protocol: true}}]'
    async with edge_router(tmp_path, listen, fixed(OK), workers=2, more="watchdog: off") as router:
        stopped = router.worker_pids()[0]
        os.kill(stopped, signal.SIGSTOP)
        try:
            async with asyncio.timeout(10):
                for _ in range(12):
                    assert (await ask_at(announced, b"PROXY UNKNOWN\r\n" + GET)).endswith(b"ok")
                    reader, writer = await asyncio.open_connection(
                        "127.0.0.1", secure, ssl=authority.client(), server_hostname="127.0.0.1"
                    )
                    writer.write(GET)
                    assert (await reader.read()).endswith(b"ok")
                    writer.close()
            assert not said(router, "sign of life")  # it is off
        finally:
            os.kill(stopped, signal.SIGCONT)


async def test_a_parent_that_was_stopped_itself_kills_nobody(tmp_path: Path) -> None:
    async with running_router(tmp_path, workers=2) as router:
        pids = sorted(router.worker_pids())
        everybody = [router.process.pid, *pids]
        for pid in everybody:
            os.kill(pid, signal.SIGSTOP)
        resumes = time.monotonic() + 3.0  # longer than the watchdog waits
        await until(lambda: time.monotonic() > resumes)
        for pid in everybody:
            os.kill(pid, signal.SIGCONT)
        await router.ring_of("user-0")
        seen = time.monotonic() + 1.0  # some looks of the parent
        await until(lambda: time.monotonic() > seen, within=5)
        assert not said(router, "sign of life")
        assert sorted(router.worker_pids()) == pids


async def test_worn_workers_are_replaced_under_load_and_every_request_is_counted(tmp_path: Path) -> None:
    async with running_router(tmp_path) as router:
        first = set(router.worker_pids())
        change(router, "recycle: {requests: 1500}")
        async with steady_load(router) as tally:
            await until_said(lambda: not first & set(router.worker_pids()), within=60)
            await some_more(tally)
        assert tally.failures == []
        await until_said(lambda: router.metric(r"ringrouter_requests_total\{") >= tally.answered, within=10)
        assert router.metric(r"ringrouter_requests_total\{") == tally.answered
        assert said(router, "asks to be replaced for the requests it has answered")
        assert not said(router, "was killed")
        assert await stop_router(router) == 0


async def test_a_new_worker_that_cannot_serve_leaves_the_old_one_in_its_place(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    signed = authority.sign("127.0.0.1")
    (port,) = free_ports(1)
    tls = f"tls: {{certificates: [{{certificate: {signed.certificate}, key: {signed.key}}}]}}"
    listen = f'[{{address: "127.0.0.1:{port}", {tls}}}]'
    async with edge_router(tmp_path, listen, fixed(OK)) as router:
        (old,) = router.worker_pids()
        change(router, "recycle: {after: 500ms}")
        await until_said(lambda: router.state()["config"]["revision"] == 2, within=5)
        signed.key.write_text("nothing")  # whoever starts from now on cannot open the listener
        await until(lambda: said(router, "was not replaced"), within=60)
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=authority.client(), server_hostname="127.0.0.1"
            )
            writer.write(GET)
            assert (await reader.read()).endswith(b"ok")
            writer.close()
        assert old in router.worker_pids()


async def test_the_log_file_is_opened_anew_by_all_workers_when_the_parent_is_told_to(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    config = CONFIG.replace('{{format: "off"}}', f"{{{{path: {path}}}}}")
    async with running_router(tmp_path, config=config) as router:
        pids = set(router.worker_pids())

        def opened(pid: int) -> list[str]:
            return [os.readlink(one) for one in Path(f"/proc/{pid}/fd").iterdir() if one.is_symlink()]

        def all_have(file: Path) -> bool:
            return all(str(file) in opened(pid) for pid in pids)

        await until(lambda: all_have(path))
        async with steady_load(router) as tally:
            for number in range(3):
                await some_more(tally)
                moved = path.rename(tmp_path / f"access.log.{number}")
                router.process.send_signal(signal.SIGUSR1)
                await until(lambda: all_have(path))
                assert not any(str(moved) in opened(pid) for pid in pids)
            await some_more(tally)
        assert tally.failures == []
        assert set(router.worker_pids()) == pids
        assert await stop_router(router) == 0
        files = [path, *(tmp_path / f"access.log.{number}" for number in range(3))]
        lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
        assert len(lines) == tally.answered
        assert len({line["request_id"] for line in lines}) == tally.answered

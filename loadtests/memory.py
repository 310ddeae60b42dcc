"""How much memory does a huge body with a slow peer cost? ``python -m loadtests.memory --mib 1024``.

Sends bodies through one worker both ways while the receiving side stops and starts again, and says how far the
worker's resident memory went above what it was before: printed, and in results/memory.json. Back-pressure is the only
thing that keeps it small.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import tempfile
from pathlib import Path

import uvloop

from loadtests import report
from tests.house import header, read_head
from tests.running import Router, running_router

PIECE = b"\xa5" * 65_536
PAUSES = 20


def resident_mib(pid: int) -> float:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


class Slow:
    """Reads a body with a pause every so often, and notes the highest memory seen during the pauses."""

    def __init__(self, pid: int, total: int) -> None:
        self.pid = pid
        self.total = total
        self.highest = 0.0

    async def read(self, reader: asyncio.StreamReader) -> None:
        left, next_pause = self.total, self.total
        while left:
            if left <= next_pause:
                next_pause -= self.total // PAUSES
                for _ in range(10):  # long enough for the sender to fill whatever may be filled
                    await asyncio.sleep(0.02)
                    self.highest = max(self.highest, resident_mib(self.pid))
            left -= len(await reader.readexactly(min(len(PIECE), left)))
        self.highest = max(self.highest, resident_mib(self.pid))


async def send(writer: asyncio.StreamWriter, total: int) -> None:
    for _ in range(total // len(PIECE)):
        writer.write(PIECE)
        await writer.drain()


async def measure(mib: int) -> dict[str, float]:
    """MiB of growth for a download and an upload of ``mib``."""
    total = mib * 2**20
    meter: list[Slow] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await read_head(reader)
            if head.startswith(b"GET /small"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nv1")
            elif head.startswith(b"GET"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
                await send(writer, total)
            else:
                assert header(head, "content-length") == [str(total)]
                await meter[0].read(reader)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nv1")

    with tempfile.TemporaryDirectory() as name:
        async with running_router(Path(name), workers=1, serve=serve) as router:
            return {"mib": mib, "download_growth_mib": await _download(router, total),
                    "upload_growth_mib": await _upload(router, total, meter)}  # fmt: skip


async def _download(router: Router, total: int) -> float:
    (pid,) = router.worker_pids()
    reader, writer = await asyncio.open_connection("127.0.0.1", router.port, limit=2**16)
    writer.write(b"GET /small HTTP/1.1\r\nHost: a\r\n\r\n")
    await read_head(reader)
    await reader.readexactly(2)
    before = resident_mib(pid)
    writer.write(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
    await read_head(reader)
    slow = Slow(pid, total)
    await slow.read(reader)
    writer.close()
    return slow.highest - before


async def _upload(router: Router, total: int, meter: list[Slow]) -> float:
    (pid,) = router.worker_pids()
    meter.append(Slow(pid, total))
    before = resident_mib(pid)
    reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
    writer.write(b"POST /large HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % total)
    await send(writer, total)
    head = await read_head(reader)
    assert b" 200 " in head, head
    writer.close()
    return meter[0].highest - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=1024)
    options = parser.parse_args()
    figures = uvloop.run(measure(options.mib))
    print("  ".join(f"{name} {value:.1f}" for name, value in figures.items()))
    report.save("memory", options, {"summary": figures})


if __name__ == "__main__":
    report.run(main)

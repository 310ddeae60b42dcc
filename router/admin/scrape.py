"""One scrape as an HTTP response: which format, and whether packed."""

from __future__ import annotations

import asyncio
import gzip
from typing import Protocol

from aiohttp import web

from router.telemetry.page import OPEN_METRICS, TEXT


class Render(Protocol):
    """Writes the exposition; as OpenMetrics if it ``is_open``."""

    def __call__(self, *, is_open: bool) -> bytes: ...


PACKED_LEVEL = 1
"""The text says the same names over and over: level 1 makes it twenty times shorter, level 6 little more than that."""


async def scraped(request: web.Request, render: Render) -> web.Response:
    """OpenMetrics for who asks for it, as Prometheus does; packed for who takes that."""
    is_open = quality(request.headers.get("Accept", ""), "application/openmetrics-text") > 0
    headers = {"Content-Type": OPEN_METRICS if is_open else TEXT, "Vary": "Accept, Accept-Encoding"}
    body = render(is_open=is_open)
    if quality(request.headers.get("Accept-Encoding", ""), "gzip") > 0:
        body = await asyncio.to_thread(gzip.compress, body, PACKED_LEVEL, mtime=0)
        headers["Content-Encoding"] = "gzip"
    return web.Response(body=body, headers=headers)


def quality(accepted: str, wanted: str) -> float:
    """How much of 1 something is wanted that is named itself (RFC 9110 §12.4.2); what cannot be read is not wanted."""
    for part in accepted.lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        if name == wanted:
            said = next((one[2:] for one in parameters if one.startswith("q=")), "1")
            try:
                return float(said)
            except ValueError:
                return 0.0
    return 0.0

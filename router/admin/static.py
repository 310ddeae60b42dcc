"""The dashboard's files, read and compressed once, at the start. Nothing is looked up on disk for a request.

Each answers with the hash of its content as its ETag, so that a browser asks and gets 304 until there is another one.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiohttp import web

DIRECTORY: Final = Path(__file__).with_name("static")
TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
    ".txt": "text/plain; charset=utf-8",
}
CONTENT_SECURITY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": CONTENT_SECURITY,
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file; ``packed`` is its gzip, None where that is no smaller."""

    content_type: str
    body: bytes
    packed: bytes | None
    etag: str


def load_assets(directory: Path = DIRECTORY) -> dict[str, Asset]:
    """Path below ``directory`` → file. Files of a type that is not known are left out: nobody serves by accident."""
    found: dict[str, Asset] = {}
    for path in sorted(directory.rglob("*")) if directory.is_dir() else ():
        content_type = TYPES.get(path.suffix)
        if content_type is None or not path.is_file():
            continue
        body = path.read_bytes()
        packed = gzip.compress(body, 9, mtime=0)
        digest = hashlib.sha256(body).hexdigest()[:32]
        name = path.relative_to(directory).as_posix()
        found[name] = Asset(content_type, body, packed if len(packed) < len(body) else None, f'"{digest}"')
    return found


def answer(request: web.Request, assets: Mapping[str, Asset], name: str) -> web.Response:
    """A file, or 304 for whoever has it, or 404."""
    asset = assets.get(name)
    if asset is None:
        return web.Response(status=404, text="There is no such file.\n", headers=HEADERS)
    takes_gzip = asset.packed is not None and "gzip" in request.headers.get("Accept-Encoding", "")
    # The packed one is another representation, and has a strong tag of its own (RFC 9110 §8.8.3.3).
    etag = asset.etag[:-1] + '-gzip"' if takes_gzip else asset.etag
    headers = {**HEADERS, "ETag": etag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
    if etag in [tag.strip().removeprefix("W/") for tag in request.headers.get("If-None-Match", "").split(",")]:
        return web.Response(status=304, headers=headers)
    headers["Content-Type"] = asset.content_type
    if takes_gzip:
        headers["Content-Encoding"] = "gzip"
    return web.Response(body=asset.packed if takes_gzip else asset.body, headers=headers)

"""Smart HTTP of git: `git http-backend`, run as a CGI program (RFC 3875) by an aiohttp handler."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

from aiohttp import web

from tests.clients.house import CLEAN, Seen, Serve
from tests.clients.website import SEEN, recording, site

DEADLINE_SECONDS = 30


def git_server(repositories: Path) -> Serve:
    """Serves the bare repositories of a directory in each version."""

    def serve(version: str, seen: list[Seen]) -> web.Application:
        async def handle(request: web.Request) -> web.Response:
            request[SEEN].body = body = await request.read()
            return await asyncio.to_thread(_cgi, repositories, request, body)

        app = recording(version, seen)
        app.router.add_route("*", "/{path:.*}", handle)
        return app

    return lambda version, seen: site(serve(version, seen))


def _cgi(repositories: Path, request: web.Request, body: bytes) -> web.Response:
    variables = {
        "GIT_PROJECT_ROOT": str(repositories),
        "GIT_HTTP_EXPORT_ALL": "1",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "REQUEST_METHOD": request.method,
        "PATH_INFO": request.path,
        "QUERY_STRING": request.query_string,
        "CONTENT_TYPE": request.headers.get("Content-Type", ""),
        "CONTENT_LENGTH": str(len(body)),
        "REMOTE_USER": "victor",
        "REMOTE_ADDR": request.remote or "",
    }
    for name in ("Git-Protocol", "Content-Encoding"):
        if name in request.headers:
            variables["HTTP_" + name.upper().replace("-", "_")] = request.headers[name]
    done = subprocess.run(
        ["git", "http-backend"], input=body, capture_output=True, env=CLEAN | variables, timeout=DEADLINE_SECONDS,
        check=True,
    )  # fmt: skip
    head, _, content = done.stdout.partition(b"\r\n\r\n")
    fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
    status = int(fields.pop("Status", "200").split()[0])
    return web.Response(status=status, headers=fields, body=content)

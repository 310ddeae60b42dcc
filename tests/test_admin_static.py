"""The dashboard's files: whole, packed once, known by what is in them, and fenced in."""

from __future__ import annotations

import gzip
from pathlib import Path

from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from router.admin import static


async def test_a_file_is_sent_packed_once_and_asked_for_again_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "views").mkdir()
    (tmp_path / "index.html").write_text("<!doctype html>" + "<p>rings</p>" * 50)
    (tmp_path / "views" / "rings.mjs").write_text("export const rings = 1;\n" * 50)
    (tmp_path / "notes.py").write_text("secret = 1")
    assets = static.load_assets(tmp_path)
    app = web.Application()

    async def give(request: web.Request) -> web.Response:
        return static.answer(request, assets, request.match_info["name"] or "index.html")

    app.add_routes([web.get("/ui/{name:.*}", give)])
    server = TestServer(app)
    await server.start_server()
    async with ClientSession(auto_decompress=False) as client:
        base = f"http://127.0.0.1:{server.port}"
        async with client.get(f"{base}/ui/", headers={"Accept-Encoding": "gzip"}) as packed:
            body = await packed.read()
            assert (packed.status, packed.headers["Content-Encoding"]) == (200, "gzip")
            assert gzip.decompress(body) == (tmp_path / "index.html").read_bytes()
            assert "default-src 'none'; script-src 'self'" in packed.headers["Content-Security-Policy"]
            assert packed.headers["X-Frame-Options"] == "DENY"
            assert packed.headers["Cache-Control"] == "no-cache"
        async with client.get(f"{base}/ui/", headers={"Accept-Encoding": "identity"}) as plain:
            assert await plain.read() == (tmp_path / "index.html").read_bytes()
            assert plain.headers["ETag"] != packed.headers["ETag"]
        again = {"Accept-Encoding": "gzip", "If-None-Match": packed.headers["ETag"]}
        async with client.get(f"{base}/ui/", headers=again) as known:
            assert (known.status, await known.read()) == (304, b"")
        async with client.get(f"{base}/ui/views/rings.mjs") as module:
            assert module.headers["Content-Type"] == "text/javascript; charset=utf-8"
        for path in ("notes.py", "../app.py", "%2e%2e/app.py", "views", "nothing.mjs"):
            async with client.get(f"{base}/ui/{path}") as missing:
                assert missing.status == 404, path
    await server.close()


def test_another_content_has_another_tag(tmp_path: Path) -> None:
    tags = set()
    for text in ("a", "b"):
        (tmp_path / "app.mjs").write_text(text)
        tags.add(static.load_assets(tmp_path)["app.mjs"].etag)
    assert len(tags) == 2

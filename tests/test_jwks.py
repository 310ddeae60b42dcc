"""The keys of issuers, from a real server: rotation, outage, answers that are none, and what is never believed."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from router.config.load import load_settings
from router.config.settings import Settings
from router.control.disk import replace_whole
from router.control.jwks import MOST_BYTES, Issuers
from tests.redis_fixture import Diary
from tests.running import exchange_raw, running_router
from tests.tokens import P256, RSA, by_hand, jwk_set, pem, public_jwk, token
from tests.waiting import until, until_said

OLD, NEW = public_jwk(RSA, kid="old"), public_jwk(P256, kid="new")
CONFIG = """\
state_dir: {state}
tokens:
  id: {{algorithms: [RS256, ES256, EdDSA], jwks_url: "{url}", refresh: {refresh}}}
services:
  shop:
    identity: [{{claim: sub}}]
    versions:
      v1: {{endpoints: ["http://127.0.0.1:9001"]}}
    rings:
      - {{name: everyone, version: v1}}
"""


@dataclass
class KeyServer:
    """An issuer's address of keys; what it answers is changed in the middle of a story."""

    port: int = 0
    body: str = ""
    status: int = 200
    location: str = ""
    asked: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/jwks.json"

    async def answer(self, _: web.Request) -> web.Response:
        self.asked += 1
        headers = {"Location": self.location} if self.location else {}
        return web.Response(text=self.body, status=self.status, headers=headers, content_type="application/json")


@asynccontextmanager
async def key_server(*keys: dict[str, Any]) -> AsyncIterator[KeyServer]:
    server = KeyServer(body=jwk_set(*keys))
    app = web.Application()
    app.router.add_get("/jwks.json", server.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert runner.addresses
    server.port = runner.addresses[0][1]
    try:
        yield server
    finally:
        await runner.cleanup()


class Fetched:
    """The keys of the issuer ``id``, with a diary, and how often they were new."""

    def __init__(self, directory: Path, url: str, *, refresh: str = "1h", hurry: float = 0.05) -> None:
        self.diary = Diary()
        self.changes = 0
        self.directory = directory
        self.settings = self.settings_for(url, refresh)
        self.issuers = Issuers(
            self._changed, directory / "state", hurry_seconds=hurry, retry_seconds=0.05, log=self.diary
        )

    def settings_for(self, url: str, refresh: str = "1h") -> Settings:
        config = self.directory / "router.yaml"
        config.write_text(CONFIG.format(state=self.directory / "state", url=url, refresh=refresh))
        return load_settings(config, {})

    def _changed(self) -> None:
        self.changes += 1

    @property
    def ids(self) -> list[str]:
        return [key["kid"] for key in json.loads(self.issuers.found.get("id", '{"keys": []}'))["keys"]]

    @property
    def error(self) -> str:
        return self.issuers.issuers["id"].error

    async def __aenter__(self) -> Fetched:
        await self.issuers.start(self.settings)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.issuers.stop()


async def test_keys_are_there_when_the_start_ends_and_those_of_a_rotation_come_with_the_first_refused_token(
    tmp_path: Path,
) -> None:
    async with key_server(OLD) as server, Fetched(tmp_path, server.url) as fetched:
        assert fetched.ids == ["old"]
        assert not fetched.issuers.missing
        assert fetched.changes == 0  # the start makes a snapshot of its own
        server.body = jwk_set(OLD, NEW)
        fetched.issuers.note_refused_tokens(1)
        await until(lambda: fetched.ids == ["new", "old"])
        assert fetched.changes == 1
        server.body = jwk_set(NEW, OLD)
        asked = server.asked
        fetched.issuers.note_refused_tokens(2)
        await until(lambda: server.asked > asked)
        await until(lambda: fetched.issuers.issuers["id"].results["good"] == server.asked)
        assert fetched.changes == 1  # another order is no news


async def test_refused_tokens_do_not_press_the_issuer(tmp_path: Path) -> None:
    async with key_server(OLD) as server, Fetched(tmp_path, server.url, refresh="1s", hurry=3600) as fetched:
        for total in range(1, 50):
            fetched.issuers.note_refused_tokens(total)
        # The next fetch is the one that the refresh brings, and one alone.
        await until(lambda: fetched.issuers.issuers["id"].results["good"] == 2)
        assert server.asked == 2


BAD = {
    "garbage": "<html>sorry</html>",
    "no keys": '{"keys": []}',
    "a list": "[]",
    "a secret": jwk_set(OLD, {"kty": "oct", "k": "c2VjcmV0", "kid": "shared"}),
    "a private key": jwk_set({**NEW, "d": "c2VjcmV0"}),
    "too long": jwk_set(OLD) + " " * MOST_BYTES,
    "deep": "[" * 100_000,
}


@pytest.mark.parametrize("answer", BAD)
async def test_a_bad_answer_never_replaces_a_good_one(tmp_path: Path, answer: str) -> None:
    async with key_server(OLD) as server, Fetched(tmp_path, server.url) as fetched:
        good, server.body = server.body, BAD[answer]
        fetched.issuers.note_refused_tokens(1)
        await until(lambda: fetched.error)
        assert fetched.ids == ["old"]
        assert fetched.diary.has("its last good keys stay in force")
        reason = "too_long" if answer == "too long" else "not_keys"
        assert fetched.issuers.issuers["id"].results[reason] >= 1
        server.body = good
        await until(lambda: not fetched.error)
        assert fetched.diary.has("are had again")


async def test_a_redirect_and_an_error_are_no_keys(tmp_path: Path) -> None:
    async with key_server(OLD) as server, key_server(NEW) as other:
        server.status, server.location = 302, other.url
        async with Fetched(tmp_path, server.url) as fetched:
            await until(lambda: "redirects are not followed" in fetched.error)
            server.status = 503
            await until(lambda: "503" in fetched.error)
            assert fetched.issuers.missing == ("id",)
            assert other.asked == 0
            assert fetched.diary.has("issuer id has no keys yet")
            server.status = 200
            await until(lambda: fetched.ids == ["old"])
            assert fetched.changes == 1


async def test_an_issuer_that_is_away_at_a_restart_is_believed_by_what_the_disk_remembers(tmp_path: Path) -> None:
    async with key_server(OLD) as server:
        async with Fetched(tmp_path, server.url):
            kept = tmp_path / "state" / "keys-id.json"
            await until(kept.is_file)
            assert kept.stat().st_mode & 0o777 == 0o600
        url = server.url
    async with Fetched(tmp_path, url) as again:
        assert again.ids == ["old"]
        await until(lambda: again.error)
        # Keys belong to the address they came from.
        again.issuers.update(again.settings_for(url + "?other"))
        assert again.issuers.found == {}
        again.issuers.update(again.settings_for(url))
        assert again.ids == ["old"]


@pytest.mark.parametrize("damage", ["cut", "junk", "a secret", "writable by all"])
async def test_a_file_that_somebody_else_may_have_made_is_not_believed(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "state" / "keys-id.json"
    async with key_server(OLD) as server:
        url = server.url
    content = {"url": url, "fetched_at": 1.0, "keys": BAD["a secret"] if damage == "a secret" else jwk_set(OLD)}
    replace_whole(path, json.dumps(content).encode()[: 30 if damage == "cut" else None])
    if damage == "junk":
        path.write_bytes(b"[" * 5000)
    if damage == "writable by all":
        path.chmod(0o666)
    async with Fetched(tmp_path, url) as fetched:
        assert fetched.issuers.missing == ("id",)


async def test_in_a_running_router_tokens_of_a_new_key_are_believed_and_those_of_no_key_never(tmp_path: Path) -> None:
    ends = 4_000_000_000

    async with key_server(OLD) as server, running_router(tmp_path, workers=1) as router:
        text = router.config.read_text().replace("identity: [", "identity: [{claim: sub}, ")
        text = text.replace("{header: {name: X-Ring, equals: canary}}", "{claim: {name: group, equals: beta}}")
        tokens = f'tokens: {{id: {{algorithms: [RS256, ES256], jwks_url: "{server.url}", refresh: 1s}}}}\n'
        keys = "signing_keys: [{id: k1, secret: a-secret-of-the-routers-own}]\n"
        router.config.write_text(tokens + keys + text)
        await until_said(lambda: router.state().get("issuers", {}).get("id", {}).get("has_keys"), within=10)
        await until_said(router.is_everywhere)

        async def ring(bearer: bytes) -> str:
            head = await exchange_raw(router, f"X-User-Id: 1\r\nAuthorization: Bearer {bearer.decode()}\r\n")
            return next(line[8:] for line in head.split("\r\n") if line.lower().startswith("x-ring: "))

        claims = {"sub": "victor", "group": "beta", "exp": ends}
        assert await ring(token(claims, RSA, "RS256", kid="old")) == "canary"
        confused = by_hand({"alg": "HS256", "typ": "JWT", "kid": "old"}, claims, pem(RSA))
        assert await ring(confused) != "canary"
        assert await ring(by_hand({"alg": "none"}, claims)) != "canary"
        rotated = token(claims, P256, "ES256", kid="new")
        assert await ring(rotated) != "canary"
        server.body = jwk_set(OLD, NEW)

        async def is_believed() -> bool:
            return await ring(rotated) == "canary"

        await until(is_believed)
        assert router.state()["issuers"]["id"]["keys"] == 2
        assert router.metric(r'ringrouter_issuer_has_keys\{issuer="id"\}') == 1
        assert router.metric(r'ringrouter_issuer_key_fetches_total\{issuer="id",result="good"\}') >= 2
        # What the router signs with never leaves it.
        assert router.state()["snapshot"]["trust"]["keys"] == [{"id": "k1", "secret": "(not shown)"}]
        assert b"a-secret-of-the-routers-own" not in router.get("/api/v1/state") + router.get("/metrics")
        assert "a-secret-of-the-routers-own" not in router.log.read_text()
        (snapshot,) = await asyncio.to_thread(snapshots_with, b"a-secret-of-the-routers-own")
        assert snapshot.stat().st_mode & 0o777 == 0o600
        assert snapshot.parent.stat().st_mode & 0o777 == 0o700
        assert (snapshot.parent / "control.sock").stat().st_mode & 0o777 == 0o600


def snapshots_with(secret: bytes) -> list[Path]:
    files = Path(tempfile.gettempdir()).glob("ring-router-*/snapshot.msgpack")
    return [one for one in files if secret in one.read_bytes()]

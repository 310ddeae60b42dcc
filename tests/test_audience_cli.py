"""Members and passes as an operator meets them: commands, a real Redis, and the router that follows."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

from tests.house import read_head
from tests.redis_fixture import WEIGHTS, Server
from tests.running import Router, running_router
from tests.waiting import until, until_said


def say(router: Router, *words: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """A command on the router's config file."""
    command = [sys.executable, "-m", "router.cli", *words]
    env = {**os.environ, "RING_ROUTER_CONFIG": str(router.config)}
    return subprocess.run(command, input=given, capture_output=True, text=True, timeout=30, env=env)


def told(router: Router, *words: str, given: str = "") -> str:
    done = say(router, *words, given=given)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def ring_for(router: Router, *fields: str, path: str = "/") -> tuple[int, str, bytes]:
    """Status, ring and head of one answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
    try:
        writer.write("\r\n".join([f"GET {path} HTTP/1.1", "Host: shop", *fields, "", ""]).encode())
        head = await read_head(reader)
    finally:
        writer.close()
    return int(head[9:12]), head.lower().partition(b"x-ring: ")[2].partition(b"\r\n")[0].decode(), head


async def test_members_are_added_imported_found_counted_exported_and_removed(
    tmp_path: Path, redis_server: Server
) -> None:
    redis_server.redis_cli("HSET", WEIGHTS, "canary", "0", "early", "0")
    async with running_router(tmp_path, redis=redis_server.url) as router:

        async def is_in(user: str, ring: str) -> None:
            async def there() -> bool:
                return all([(await ring_for(router, f"X-User-Id: {user}"))[1] == ring for _ in range(6)])

            await until(there, within=15)

        assert told(router, "members", "add", "canary", "alice", "bob", "--reason", "staff") == (
            "shop: 2 of 2 new in canary\n"
        )
        await is_in("alice", "canary")
        assert told(router, "members", "find", "bob").startswith("bob is listed in canary")
        users = "".join(f"user-{number}\n" for number in range(3_000))
        out = told(router, "members", "import", "early", "-", given="# beta\n" + users)
        assert out == "shop: 3000 new in early, 0 gone from it, of 3000 in <stdin>\n"
        await is_in("user-2999", "early")
        counted = json.loads(told(router, "members", "count", "-o", "json"))
        assert counted["members"] == {"canary": 2, "early": 3000, "everyone": 0}
        assert sorted(told(router, "members", "export", "early").split()) == sorted(users.split())

        redis_server.redis_cli("SADD", "rings:{shop}:members:early", "by-hand")
        out = told(router, "members", "import", "early", "-", given="user-1\ncarol\n")
        assert out == "shop: 1 new in early, 3000 gone from it, of 2 in <stdin>\n"
        await is_in("user-2999", "everyone")
        await is_in("by-hand", "everyone")
        await is_in("user-1", "early")
        assert told(router, "members", "remove", "canary", "alice", "nobody") == "shop: 1 of 2 gone from canary\n"
        await is_in("alice", "everyone")
        audit = redis_server.redis_cli("XRANGE", "rings:{shop}:audit", "-", "+")
        assert "members import" in audit
        assert "staff" in audit

        wrong = say(router, "members", "add", "canry", "alice")
        assert wrong.returncode == 2
        assert "canary" in wrong.stderr
        empty = say(router, "members", "import", "early", "-", given="\n")
        assert empty.returncode == 1
        assert "everybody would be gone" in empty.stderr


async def test_a_pass_leads_into_its_ring_until_it_is_taken_back(tmp_path: Path, redis_server: Server) -> None:
    redis_server.redis_cli("HSET", WEIGHTS, "canary", "0", "early", "0")
    async with running_router(tmp_path, redis=redis_server.url) as router:
        refused = say(router, "pass", "--ring", "canary")
        assert refused.returncode == 1
        assert "signing_keys" in refused.stderr
        keys = 'signing_keys: [{id: "1", secret: "a secret of forty letters or thereabouts"}]\n'
        router.config.write_text(keys + router.config.read_text())
        await until_said(lambda: router.state()["config"]["revision"] == 2 and router.is_everywhere(), within=15)

        made = json.loads(told(router, "pass", "--ring", "canary", "--expires", "30m", "-o", "json"))
        token = made["token"]
        assert (await ring_for(router))[1] == "everyone"
        assert (await ring_for(router, f"X-Ring-Pass: {token}"))[1] == "canary"
        assert (await ring_for(router, f"Cookie: ring_pass={token}"))[1] == "canary"
        status, _, head = await ring_for(router, path=f"/cart?item=7&ring_pass={token}")
        assert status == 303
        assert b"\r\nLocation: /cart?item=7\r\n" in head
        assert f"ring_pass={token}".encode() in head
        assert "ring canary of shop for whoever has it" in told(router, "pass", "show", token)

        hers = told(router, "pass", "--ring", "canary", "--user", "alice").split("\n")[0]
        assert (await ring_for(router, f"X-Ring-Pass: {hers}", "X-User-Id: alice"))[1] == "canary"
        assert (await ring_for(router, f"X-Ring-Pass: {hers}", "X-User-Id: mallory"))[1] == "everyone"

        assert "revoked" in told(router, "pass", "revoke", token, "--reason", "leaked")

        async def is_out() -> bool:
            return all([(await ring_for(router, f"X-Ring-Pass: {token}"))[1] == "everyone" for _ in range(6)])

        await until(is_out, within=15)
        assert (await ring_for(router, f"X-Ring-Pass: {hers}", "X-User-Id: alice"))[1] == "canary"
        assert "leaked" in told(router, "pass", "list-revoked")
        assert "revoked" in told(router, "pass", "revoke-key", "1", "--service", "shop")

        async def is_hers_out() -> bool:
            return (await ring_for(router, f"X-Ring-Pass: {hers}", "X-User-Id: alice"))[1] == "everyone"

        await until(is_hers_out, within=15)
        shown = router.get("/api/v1/state").decode()
        assert "forty letters" not in shown

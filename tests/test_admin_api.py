"""The admin API does what redis-cli does, by the same rules, and says who did it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
from redis.asyncio import Redis

from router.admin import bodies, shapes
from router.telemetry import picture
from tests.admin import VIEWER, House, administered, held
from tests.redis_fixture import AUDIT, CONTROL, VERSIONS, WEIGHTS, Server
from tests.shared_house import ONE_LOOP
from tests.waiting import until


@ONE_LOOP
async def test_a_weight_goes_where_redis_cli_would_put_it_and_reaches_the_users(house: House, client: Redis) -> None:
    answer = await house.write("/weights", weights={"canary": 0, "early": 100}, expected_rev=await house.rev())
    assert answer.status == 200, answer
    assert answer.data["changes"] == ["canary 5 → 0 percent", "early 20 → 100 percent"]
    moves = {(one["before"], one["after"], one["direction"]): one["percent"] for one in answer.data["moves"]}
    assert moves == {("canary", "early", "outward"): 5.0, ("everyone", "early", "inward"): 75.0}
    found = await client.hgetall(WEIGHTS)
    assert int(found.pop(b"rev")) > 0
    assert found == {b"canary": b"0", b"early": b"100"}
    await until(lambda: house.router.weights() == {"canary": 0.0, "early": 100.0, "everyone": 0.0})
    await until(house.router.is_everywhere)
    assert await house.router.ring_of("victor") == ("early", "v2")
    assert await house.rev() == answer.data["rev"]


async def test_the_audit_names_the_token_the_reason_and_the_api(
    redis_server: Server, redis_client: Redis, tmp_path: Path
) -> None:
    async with administered(tmp_path, redis_server.url) as house:
        await house.write("/weights", weights={"canary": 7.25}, reason="v2 is fine")
        redis_server.redis_cli("HSET", WEIGHTS, "early", "30")
        trail = msgspec.convert(await house.get("/audit?service=shop", token=VIEWER), shapes.Trail)
        assert trail.is_complete
        (entry,) = trail.entries
        assert (entry.actor, entry.source, entry.action, entry.reason) == ("ada", "api", "set", "v2 is fine")
        assert (entry.fields, entry.before, entry.after, entry.rev) == (["canary"], ["-"], ["7.25"], "1")
        assert entry.can_undo
        assert entry.sentence == "canary - → 7.25"


@ONE_LOOP
async def test_every_lever_moves_and_is_recorded(house: House, client: Redis) -> None:
    assert (await house.write("/weights", weights={"canary": 10})).status == 200

    done = await house.write("/versions", versions={"early": "v1"})
    assert done.data["changes"] == ["early runs v2 → v1"]
    assert (await client.hget(VERSIONS, "early")) == b"v1"
    await until(lambda: house.router.state()["services"]["shop"]["rings"][1]["version"] == "v1")
    await house.write("/versions", versions={"early": None})
    await until(lambda: house.router.state()["services"]["shop"]["rings"][1]["version"] == "v2")

    done = await house.write("/kill", rings=["*"])
    assert done.data["changes"] == ["killed none → canary early"]
    done = await house.write("/freeze", frozen=True, reason="holiday")
    assert done.data["changes"] == ["freeze off → holiday"]
    address = f"127.0.0.1:{house.v2}"
    done = await house.write("/drain", address=f"http://{address}/", drained=True)
    assert done.data["changes"] == [f"drained none → {address}"]
    fields = {b"kill": b"canary early", b"freeze": b"holiday", b"drain": address.encode()}
    assert await client.hgetall(CONTROL) == fields

    refused = await house.write("/weights", weights={"canary": 11})
    assert (refused.status, refused.data["code"]) == (400, "refused")
    assert "frozen (holiday)" in refused.data["detail"]

    await house.write("/drain", address=address, drained=False)
    await house.write("/freeze", frozen=False)
    await house.write("/kill", rings=[])
    assert await client.hgetall(CONTROL) == {b"kill": b"", b"freeze": b"", b"drain": b""}
    done = await house.write("/undo", reason="it was the load balancer")
    assert done.data["changes"] == ["canary 10 → 5 percent"]

    actions = [entry["action"] for entry in (await house.get("/audit"))["entries"][:10]]
    assert actions[::-1] == [
        "set", "versions", "versions", "kill", "freeze", "drain", "undrain", "freeze", "kill", "undo",
    ]  # fmt: skip


@ONE_LOOP
async def test_members_come_and_go_over_the_api(house: House) -> None:
    async def ring_of(user: str) -> str:
        asked = await house.get(f"/explain?service=shop&user={user}")
        return str(asked["decision"]["ring"])

    await house.write("/kill", rings=["early"])
    looked = await house.write("/members", ring="canary", add=["ada", "bob"], dry_run=True)
    assert looked.data["changes"] == ["members of canary: +2"]
    done = await house.write("/members", ring="canary", add=["ada", "bob"])
    assert done.data["changes"] == ["members of canary: +2"]
    assert done.data["command"] == "ring-router members add canary ada bob --service shop"
    await until(lambda: house.router.state()["services"]["shop"]["members"] == {"canary": 2})
    assert [await ring_of("ada"), await ring_of("bob")] == ["canary", "canary"]
    assert (await house.write("/members", ring="canary", add=["ada"])).data["changes"] == []
    done = await house.write("/members", ring="canary", remove=["bob"], add=["eve"])
    assert done.data["changes"] == ["members of canary: +1", "members of canary: -1"]
    entries = (await house.get("/audit"))["entries"]
    assert (entries[0]["action"], entries[0]["actor"], entries[0]["source"]) == ("members remove", "ada", "api")

    for body in ({"ring": "canari", "add": ["x"]}, {"ring": "canary", "add": [" x"]}):
        refused = await house.write("/members", **body)
        assert (refused.status, refused.data["code"]) == (400, "refused")
    stale = await house.write("/members", ring="canary", add=["x"], expected_rev="1.00000000")
    assert stale.data["code"] == "stale"


async def test_a_kill_written_where_redis_was_flushed_lifts_nothing_else(
    redis_server: Server, redis_client: Redis, tmp_path: Path
) -> None:
    async with administered(tmp_path, redis_server.url) as house:
        await house.write("/freeze", frozen=True, reason="holiday")
        await until(lambda: house.router.state()["services"]["shop"]["freeze"] == "holiday")
        await until(lambda: _status_says(redis_server, "holiday"))
        await redis_client.delete(CONTROL)
        await house.write("/kill", rings=["canary"])
        assert await redis_client.hgetall(CONTROL) == {b"kill": b"canary", b"freeze": b"holiday"}


def _status_says(server: Server, word: str) -> bool:
    return word in server.redis_cli("HGETALL", "rings:{shop}:status")


@ONE_LOOP
async def test_a_dry_run_says_what_it_would_do_and_does_not(house: House, client: Redis) -> None:
    before, rev = await held(client), await house.rev()
    for path, body in {
        "/weights": {"weights": {"canary": 50}}, "/versions": {"versions": {"early": "v1"}},
        "/kill": {"rings": ["canary"]}, "/freeze": {"frozen": True},
        "/drain": {"address": f"127.0.0.1:{house.v2}", "drained": True},
    }.items():  # fmt: skip
        answer = await house.write(path, dry_run=True, expected_rev=rev, **body)
        assert answer.status == 200, (path, answer)
        assert answer.data["dry_run"] is True
        assert len(answer.data["changes"]) == 1
        assert answer.data["rev"] == rev
    assert await held(client) == before


@ONE_LOOP
async def test_a_write_over_what_somebody_else_changed_is_409_and_shows_what_is_there(
    house: House, redis: Server, client: Redis
) -> None:
    seen = await house.rev()
    redis.redis_cli("HSET", WEIGHTS, "canary", "33")  # without a rev, as people type it
    before = await held(client)
    for path, body in {
        "/weights": {"weights": {"canary": 50}}, "/versions": {"versions": {"early": "v1"}},
        "/kill": {"rings": ["canary"]}, "/freeze": {"frozen": True},
        "/drain": {"address": f"127.0.0.1:{house.v2}", "drained": True},
    }.items():  # fmt: skip
        answer = await house.write(path, expected_rev=seen, **body)
        assert (answer.status, answer.data["code"]) == (409, "stale"), (path, answer)
        rings = {one["ring"]: one["weight"] for one in answer.data["current"]["rings"]}
        assert rings == {"canary": 33.0, "early": 20.0, "everyone": 47.0}
    assert await held(client) == before
    again = await house.write("/weights", weights={"canary": 50}, expected_rev=answer.data["current"]["rev"])
    assert again.status == 200


@ONE_LOOP
async def test_of_two_operators_who_move_at_once_one_is_told_that_the_other_was_faster(
    house: House, client: Redis
) -> None:
    first, written = int(await client.hget(WEIGHTS, "rev") or 0), await client.xlen(AUDIT)
    for round_ in range(1, 6):
        rev = await house.rev()
        wishes = [{"canary": round_}, {"canary": 50 + round_}]
        answers = await asyncio.gather(*(house.write("/weights", weights=wish, expected_rev=rev) for wish in wishes))
        assert sorted(answer.status for answer in answers) == [200, 409]
        won = next(answer for answer in answers if answer.status == 200)
        await until(lambda rev=won.data["rev"]: _has_rev(house, rev))
    assert int(await client.hget(WEIGHTS, "rev") or 0) == first + 5
    assert await client.xlen(AUDIT) == written + 5


async def _has_rev(house: House, rev: str) -> bool:
    return await house.rev() == rev


async def test_what_no_instance_would_take_is_never_written(
    redis_server: Server, redis_client: Redis, tmp_path: Path
) -> None:
    async with administered(tmp_path, redis_server.url) as house:
        before = await held(redis_client)
        for path, body, words in [
            ("/weights", {"weights": {"canary": 90, "early": 20}}, "more than 100"),
            ("/weights", {"weights": {"cannary": 9}}, "canary"),
            ("/weights", {"weights": {"everyone": 9}}, "default ring"),
            ("/weights", {"weights": {"canary": 0.125}}, "two decimals"),
            ("/versions", {"versions": {"early": "v9"}}, "no version"),
            ("/versions", {"versions": {"earli": "v1"}}, "no ring"),
            ("/kill", {"rings": ["everyone"]}, "default ring"),
            ("/kill", {"rings": ["nobody"]}, "no ring"),
            ("/drain", {"address": "10.9.9.9:1", "drained": True}, "No endpoint"),
            ("/undo", {}, "nothing to undo"),
        ]:
            answer = await house.write(path, **body)
            assert answer.status == 400, (path, body, answer)
            assert words in answer.data["detail"], answer
        assert (await house.write("/kill", service="shopp", rings=[])).status == 404
        assert await held(redis_client) == before


async def test_without_redis_it_says_so_and_with_redis_away_too(redis_server: Server, tmp_path: Path) -> None:
    (tmp_path / "without").mkdir()
    async with administered(tmp_path / "without") as house:
        answer = await house.write("/weights", weights={"canary": 9})
        assert (answer.status, answer.data["code"]) == (503, "not_available")
        assert (await house.get("/audit")) == {"entries": [], "is_complete": False, "next": {}}
    (tmp_path / "away").mkdir()
    async with administered(tmp_path / "away", redis_server.url) as house:
        redis_server.running.stop()
        answer = await house.write("/weights", weights={"canary": 9})
        assert (answer.status, answer.data["code"]) == (503, "redis_away")
        redis_server.start()


async def test_every_read_has_the_shape_that_the_document_gives_it(
    redis_server: Server, redis_client: Redis, tmp_path: Path
) -> None:
    async with administered(tmp_path, redis_server.url) as house:
        await house.router.ring_of("victor")
        await until(lambda: house.router.metric(r"ringrouter_requests_total") > 0)
        shapes_of = {
            "/rings": picture.Picture, "/rings?service=shop&scope=instance": picture.Picture,
            "/series?service=shop&ring=canary&metric=rps": picture.Series, "/backends": shapes.Backends,
            "/config": shapes.ConfigState, "/audit": shapes.Trail, "/fleet": picture.Fleet,
            "/session": bodies.Session,
        }  # fmt: skip
        for path, shape in shapes_of.items():
            answer = await house.call("GET", path, token=VIEWER)
            assert answer.status == 200, (path, answer)
            assert answer.headers["Cache-Control"] == "no-store"
            msgspec.json.decode(answer.text, type=shape, strict=True)
        rings = (await house.get("/rings"))["services"]["shop"]["rings"]
        assert [(ring["ring"], ring["target"]) for ring in rings] == [
            ("canary", 5.0),
            ("early", 20.0),
            ("everyone", 75.0),
        ]

        async def is_seen() -> bool:
            rings = (await house.get("/rings"))["services"]["shop"]["rings"]
            return sum(version["requests"] for ring in rings for version in ring["versions"]) == 1

        await until(is_seen, within=10)
        nobody = rings[0]["versions"][0]
        assert (nobody["requests"], nobody["p50"], nobody["success"]) == (0, None, None)
        for path in ("/rings?service=nobody", "/backends?service=nobody", "/audit?service=nobody",
                     "/series?service=shop&ring=nobody&metric=rps"):  # fmt: skip
            assert (await house.call("GET", path)).status == 404, path


@ONE_LOOP
async def test_explain_says_over_the_api_what_it_says_at_the_prompt(house: House) -> None:
    said = await house.get("/explain?user=victor&header=X-Ring:%20canary", token=VIEWER)
    assert said["decision"] == {"ring": "canary", "version": "v2", "reason": "rule"}
    assert said["key"] == "victor"
    posted = await house.call(
        "POST", "/explain", {"service": "shop", "cookies": {"uid": "victor"}, "path": "/a?b=c"}, token=VIEWER
    )
    assert posted.data["decision"]["reason"] == "default"
    assert posted.data["hash"]["bucket"] == 5848
    assert (await house.call("GET", "/explain?service=nobody")).status == 404


async def test_the_config_says_where_each_value_comes_from_and_hides_what_is_secret(
    redis_server: Server, tmp_path: Path
) -> None:
    (tmp_path / "secret").mkdir()
    async with administered(tmp_path / "secret", "redis://ada:hidden@127.0.0.1:1/0") as house:
        values = {one["path"]: one for one in (await house.get("/config"))["values"]}
        assert values["redis"]["value"] == "redis://ada:***@127.0.0.1:1/0"
        house.router.config.write_text(house.router.config.read_text().replace("hidden@", "hidden@:::"))
        await until(lambda: house.router.state()["config"]["error"] != "")
        for path in ("/config", "/state", "/fleet"):
            assert "hidden" not in (await house.call("GET", path)).text, path
    async with administered(tmp_path, redis_server.url) as house:
        await house.write("/weights", weights={"canary": 9})
        await until(lambda: house.router.weights()["canary"] == 9.0)
        config = await house.get("/config")
        values = {one["path"]: one for one in config["values"]}
        canary, early = values["services.shop.rings.canary.weight"], values["services.shop.rings.early.weight"]
        assert (canary["value"], canary["origin"], canary["place"], canary["file_value"]) == (9, "redis", WEIGHTS, 5)
        line = house.router.config.read_text().splitlines().index(
            "      - {name: early, version: v2, weight: 20}"
        ) + 1  # fmt: skip
        assert (early["value"], early["origin"], early["place"].rpartition("/")[2]) == (
            20, "file", f"router.yaml:{line}:44",
        )  # fmt: skip
        assert values["watchdog"]["origin"] == "default"
        assert values["admin.tokens.ada.sha256"]["value"] == "***"
        text = house.router.config.read_text()
        house.router.config.write_text(text.replace("weight: 20", "weight: 20000"))
        answer = await house.call("POST", "/reload", {"expected_rev": "1", "reason": "look"})
        assert (answer.status, answer.data["code"]) == (400, "refused")
        config = await house.get("/config")
        assert (config["revision"], [one["line"] for one in config["problems"]]) == (1, [line])
        house.router.config.write_text(text.replace("weight: 20", "weight: 25"))
        dry = await house.call("POST", "/reload", {"expected_rev": "1", "reason": "look", "dry_run": True})
        assert dry.data["changes"] == ["config #2 would be in force"]
        done = await house.call("POST", "/reload", {"expected_rev": "1", "reason": "look"})
        # The file is also looked at once a second: who was faster does not matter.
        assert done.status in (200, 409), done
        config = await house.get("/config")
        assert (config["revision"], config["error"], config["problems"]) == (2, "", [])
        assert [(one["path"], one["before"], one["after"]) for one in config["changed"]] == [
            ("services.shop.rings.early.weight", 20, 25)
        ]
        stale = await house.call("POST", "/reload", {"expected_rev": "1", "reason": "look"})
        assert (stale.status, stale.data["current"]["revision"]) == (409, 2)

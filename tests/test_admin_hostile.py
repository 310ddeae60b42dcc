"""Whoever may not change anything cannot: each forged, stale or malformed request ends in 4xx, and nothing moved."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from tests.admin import OPERATOR, VIEWER, Answer, House, administered, held
from tests.redis_fixture import Server
from tests.waiting import until

GOOD: dict[str, Any] = {"service": "shop", "expected_rev": "*", "reason": "a test", "weights": {"canary": 50}}


def cookies_of(answer: Answer) -> dict[str, str]:
    jar: SimpleCookie = SimpleCookie()
    for line in answer.headers.getall("Set-Cookie", []):  # type: ignore[attr-defined]
        jar.load(line)
    return {name: morsel.value for name, morsel in jar.items()}


def as_header(cookies: dict[str, str]) -> str:
    return "; ".join(f"{name}={value}" for name, value in cookies.items())


def browser(house: House, cookies: dict[str, str], **more: str) -> dict[str, str]:
    """What the dashboard's own page sends with a write."""
    headers = {
        "Cookie": as_header(cookies), "Origin": house.base, "Sec-Fetch-Site": "same-origin",
        "X-CSRF-Token": cookies.get("ring_csrf", ""), "Content-Type": "application/json",
    }  # fmt: skip
    return {name: value for name, value in {**headers, **more}.items() if value}


async def raw(house: House, request: bytes) -> int:
    """The status of a request as it is, byte by byte."""
    reader, writer = await asyncio.open_connection("127.0.0.1", house.router.admin)
    writer.write(request)
    async with asyncio.timeout(15):
        line = await reader.readline()
    writer.close()
    return int(line.split()[1])


async def test_the_hostile_table(redis_server: Server, redis_client: Redis, tmp_path: Path) -> None:
    async with administered(tmp_path, redis_server.url) as house:
        login = await house.call("POST", "/login", {"token": OPERATOR}, token=None)
        mine = cookies_of(login)
        theirs = cookies_of(await house.call("POST", "/login", {"token": OPERATOR}, token=None))
        watcher = cookies_of(await house.call("POST", "/login", {"token": VIEWER}, token=None))
        text = json.dumps(GOOD)
        payload, _, signature = mine["ring_session"].partition(".")
        claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
        wider = base64.urlsafe_b64encode(json.dumps([claims[0], "root", *claims[2:]]).encode()).decode().rstrip("=")
        before = await held(redis_client)

        async def write(data: str | bytes = text, token: str | None = OPERATOR, **headers: str) -> Answer:
            headers = {name.replace("_", "-"): value for name, value in headers.items()}
            return await house.call(
                "POST", "/weights", token=token, data=data, headers={"Content-Type": "application/json", **headers}
            )

        async def page(cookies: dict[str, str] = mine, **headers: str) -> Answer:
            headers = {name.replace("_", "-"): value for name, value in headers.items()}
            return await house.call(
                "POST", "/weights", token=None, data=text, headers=browser(house, cookies, **headers)
            )

        async def verb(method: str, **headers: str) -> Answer:
            headers = {name.replace("_", "-"): value for name, value in headers.items()}
            return await house.call(method, "/weights", headers=headers)

        without = {"ring_session": mine["ring_session"]}
        forged = {**mine, "ring_session": f"{wider}.{signature}"}
        cut = {**mine, "ring_session": mine["ring_session"][:-4]}
        unsigned = {**mine, "ring_session": payload}
        many = json.dumps({**GOOD, "weights": {f"r{number}": 1 for number in range(300)}})
        table = {
            "no token": (await write(token=None), 401, "no_token"),
            "somebody's password": (await write(token="hunter2"), 401, "bad_token"),
            "the token twice": (await write(token=f"{OPERATOR} {OPERATOR}"), 401, "bad_token"),
            "basic": (await write(token=None, Authorization="Basic YWRhOmFkYQ=="), 401, "bad_token"),
            "a viewer": (await write(token=VIEWER), 403, "wrong_role"),
            "a viewer's session": (await page(watcher), 403, "wrong_role"),
            "a token of another site's page": (await write(Origin="https://evil.example"), 403, "origin"),
            "a session, no csrf token": (await page(X_CSRF_Token=""), 403, "csrf"),
            "a session, a guessed csrf token": (await page(X_CSRF_Token="A" * 43), 403, "csrf"),
            "a session, another session's csrf": (await page({**mine, "ring_csrf": theirs["ring_csrf"]}), 403, "csrf"),
            "a session, csrf cookie and header invented": (
                await page({**mine, "ring_csrf": "x" * 43}, X_CSRF_Token="x" * 43), 403, "csrf",
            ),
            "a session without the csrf cookie": (await page(without, X_CSRF_Token=mine["ring_csrf"]), 403, "csrf"),
            "a session from another site": (await page(Origin="https://evil.example"), 403, "origin"),
            "a session from another port": (await page(Origin="http://127.0.0.1:1"), 403, "origin"),
            "a session from a sandbox": (await page(Origin="null"), 403, "origin"),
            "a session, cross-site": (await page(Sec_Fetch_Site="cross-site"), 403, "origin"),
            "a session, same-site": (await page(Sec_Fetch_Site="same-site"), 403, "origin"),
            "a session from nowhere": (await page(Origin="", Sec_Fetch_Site=""), 403, "origin"),
            "a forged session": (await page(forged), 401, "no_token"),
            "a session cut short": (await page(cut), 401, "no_token"),
            "an unsigned session": (await page(unsigned), 401, "no_token"),
            "rebinding": (await write(Host="evil.example"), 421, "wrong_host"),
            "rebinding to a port": (await write(Host=f"evil.example:{house.router.admin}"), 421, "wrong_host"),
            "a form": (await write("service=shop", Content_Type="application/x-www-form-urlencoded"), 415, "not_json"),
            "plain text, as a page may send it": (await write(Content_Type="text/plain"), 415, "not_json"),
            "another charset": (await write(Content_Type="application/json; charset=utf-16"), 415, "not_json"),
            "compressed": (await write(Content_Encoding="gzip"), 415, "not_json"),
            "nothing": (await write(""), 400, "malformed"),
            "no JSON": (await write("{'service': 'shop'}"), 400, "malformed"),
            "no UTF-8": (await write(b'{"service": "\xff"}'), 400, "malformed"),
            "a list": (await write("[]"), 400, "malformed"),
            "not a number": (await write(text.replace("50", "NaN")), 400, "malformed"),
            "infinity": (await write(text.replace("50", "1e999")), 400, "malformed"),
            "true as a number": (await write(text.replace("50", "true")), 400, "malformed"),
            "text as a number": (await write(text.replace("50", '"50"')), 400, "malformed"),
            "below zero": (await write(text.replace("50", "-1")), 400, "malformed"),
            "a key twice": (await write(text.replace('"canary"', '"canary": 1, "canary"')), 400, "malformed"),
            "an unknown key": (await write(json.dumps({**GOOD, "force": True})), 400, "malformed"),
            "no reason": (await write(json.dumps({**GOOD, "reason": ""})), 400, "malformed"),
            "a blank reason": (await write(json.dumps({**GOOD, "reason": "  "})), 400, "malformed"),
            "a reason with a second line": (await write(json.dumps({**GOOD, "reason": "a\nrev 9"})), 400, "malformed"),
            "a long reason": (await write(json.dumps({**GOOD, "reason": "x" * 501})), 400, "malformed"),
            "no revision": (await write(json.dumps({**GOOD, "expected_rev": ""})), 400, "malformed"),
            "a stale revision": (await write(json.dumps({**GOOD, "expected_rev": "1.00000000"})), 409, "stale"),
            "a service with a brace": (await write(json.dumps({**GOOD, "service": "shop}:x"})), 400, "malformed"),
            "a service that is none": (await write(json.dumps({**GOOD, "service": "other"})), 404, "not_found"),
            "a ring of spaces": (await write(json.dumps({**GOOD, "weights": {"canary early": 1}})), 400, "malformed"),
            "too many rings": (await write(many), 400, "malformed"),
            "deep": (await write("[" * 30000 + "]" * 30000), 400, "malformed"),
            "deep inside": (await write(text.replace("50", "[" * 50 + "]" * 50)), 400, "malformed"),
            "large": (await write(json.dumps({**GOOD, "reason": "x" * 70_000})), 413, "too_large"),
            "GET": (await verb("GET"), 405, "method"),
            "PUT": (await verb("PUT"), 405, "method"),
            "DELETE": (await verb("DELETE"), 405, "method"),
            "GET that says it is POST": (await verb("GET", X_HTTP_Method_Override="POST"), 405, "method"),
            "a path that is none": (await house.call("POST", "/weight", GOOD), 404, "not_found"),
            "a path that goes round": (await house.call("POST", "/state/../weights/", GOOD), 404, "not_found"),
        }  # fmt: skip
        wrong = {
            name: (answer.status, answer.text)
            for name, (answer, status, code) in table.items()
            if answer.status != status or (answer.data or {}).get("code") != code
        }
        assert wrong == {}
        port = house.router.admin
        head = (
            f"POST /api/v1/weights HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {OPERATOR}\r\n".encode()
        )
        kind = b"Content-Type: application/json\r\n"
        chunked = head + kind + b"Transfer-Encoding: chunked\r\n\r\n" + b"11000\r\n" + b" " * 0x11000 + b"\r\n0\r\n\r\n"
        assert await raw(house, chunked) == 413
        assert await raw(house, head + kind + b"Content-Length: 99999999\r\n\r\n") == 413
        assert await raw(house, b"POST /api/v1/weights HTTP/1.1\r\nHost: [::\r\n\r\n") == 421
        assert await raw(house, b"GET http://evil.example/api/v1/state HTTP/1.1\r\nHost: evil.example\r\n\r\n") == 421
        assert await held(redis_client) == before
        assert house.router.weights() == {"canary": 5.0, "early": 20.0, "everyone": 75.0}

        # The same page with nothing wrong does it: the table cannot be green because nobody gets through.
        assert (await page()).status == 200
        assert (await redis_client.hget("rings:{shop}:weights", "canary")) == b"50"


async def test_a_session_ends_with_logout_and_with_its_token(tmp_path: Path) -> None:
    async with administered(tmp_path) as house:
        cookies = cookies_of(await house.call("POST", "/login", {"token": OPERATOR}, token=None))
        session = await house.call("GET", "/session", token=None, headers={"Cookie": as_header(cookies)})
        assert (session.data["name"], session.data["role"], session.data["by"]) == ("ada", "operator", "session")
        assert session.data["csrf"] == cookies["ring_csrf"]
        assert (await house.call("POST", "/logout", token=None, headers=browser(house, cookies))).status == 204
        gone = await house.call("GET", "/state", token=None, headers={"Cookie": as_header(cookies)})
        assert gone.status == 401

        cookies = cookies_of(await house.call("POST", "/login", {"token": VIEWER}, token=None))
        assert (await house.call("GET", "/state", token=None, headers={"Cookie": as_header(cookies)})).status == 200
        text = house.router.config.read_text()
        house.router.config.write_text(re.sub(r" *- {name: wall.*\n", "", text))
        await until(lambda: _status(house, cookies, 401))


async def _status(house: House, cookies: dict[str, str], wanted: int) -> bool:
    return (await house.call("GET", "/state", token=None, headers={"Cookie": as_header(cookies)})).status == wanted


async def test_the_session_cookie_is_out_of_reach_of_scripts_and_of_other_sites(tmp_path: Path) -> None:
    async with administered(tmp_path) as house:
        lines = (await house.call("POST", "/login", {"token": OPERATOR}, token=None)).headers.getall("Set-Cookie")  # type: ignore[attr-defined]
        session, csrf = sorted(lines, key=lambda line: line.startswith("ring_csrf"))
        assert all(
            word in session for word in ("ring_session=", "HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=43200")
        )
        assert "HttpOnly" not in csrf
        assert "SameSite=Strict" in csrf
        proxied = await house.call(
            "POST", "/login", {"token": OPERATOR}, token=None,
            headers={"Host": "admin.shop.example", "Origin": "https://admin.shop.example"},
        )  # fmt: skip
        (secure,) = [line for line in proxied.headers.getall("Set-Cookie") if "session" in line]  # type: ignore[attr-defined]
        assert secure.startswith("__Host-ring_session=")
        assert "Secure" in secure


async def test_guessing_is_slowed_down_and_sessions_go_on(tmp_path: Path) -> None:
    async with administered(tmp_path) as house:
        cookies = cookies_of(await house.call("POST", "/login", {"token": OPERATOR}, token=None))
        answers = [await house.call("POST", "/login", {"token": f"guess {n}"}, token=None) for n in range(12)]
        assert [answer.status for answer in answers] == [401] * 10 + [429] * 2
        assert int(answers[-1].headers["Retry-After"]) <= 60
        assert (await house.call("POST", "/login", {"token": OPERATOR}, token=None)).status == 429
        assert (await house.call("GET", "/state", token=OPERATOR)).status == 429
        assert (await house.call("GET", "/state", token=None, headers={"Cookie": as_header(cookies)})).status == 200
        assert (await house.call("GET", "/ready", token=None)).status == 200
        log = house.router.log.read_text()
        assert log.count("a token that is nobody's") == 10
        assert "guess 3" not in log


async def test_the_one_time_link_makes_one_operator_once(
    redis_server: Server, redis_client: Redis, tmp_path: Path
) -> None:
    async with administered(tmp_path, redis_server.url, tokens="") as house:
        link = re.search(r"http://127\.0\.0\.1:\d+(/ui/login\?once=[\w-]+)", house.router.log.read_text())
        assert link
        assert (await house.call("GET", "/state", token=None)).status == 200  # reads are open on loopback
        refused = await house.call("POST", "/weights", GOOD, token=None)
        assert (refused.status, refused.data["code"]) == (401, "no_token")
        assert (await house.call("GET", "/ui/login?once=wrong", token=None)).status == 401
        first = await house.call("GET", link[1], token=None)
        assert (first.status, first.headers["Location"]) == (303, "/ui/")
        replayed = await house.call("GET", link[1], token=None)
        assert replayed.status == 401
        assert cookies_of(replayed) == {}
        done = await house.call("POST", "/weights", GOOD, token=None, headers=browser(house, cookies_of(first)))
        assert done.status == 200, done
        assert [entry["actor"] for entry in (await house.get("/audit", token=None))["entries"]] == ["link"]


async def test_beyond_loopback_nothing_is_open_without_a_token(tmp_path: Path) -> None:
    async with administered(tmp_path, tokens="", address="0.0.0.0") as house:  # noqa: S104 - that is the story
        assert "once=" not in house.router.log.read_text()
        await until(lambda: "nobody can use the API" in house.router.log.read_text())
        for path in ("/state", "/rings", "/rollouts", "/events", "/config", "/audit", "/tap", "/explain"):
            assert (await house.call("GET", path, token=None)).status == 401, path
        assert (await house.call("POST", "/weights", GOOD, token=None)).status == 401
        moved = await house.call("GET", "/ui", token=None)
        assert (moved.status, moved.headers["Location"]) == (308, "/ui/")
        for path in ("/live", "/ready", "/metrics", "/api/v1/session", "/api/v1/openapi.json"):
            assert (await house.call("GET", path, token=None)).status == 200, path


async def test_what_failed_is_in_the_log_with_who_and_why(redis_server: Server, tmp_path: Path) -> None:
    async with administered(tmp_path, redis_server.url) as house:
        await house.write("/weights", token=VIEWER, weights={"canary": 50}, reason="I am curious")
        await house.write("/weights", weights={"canary": 101.0}, reason="too far")
        await house.write("/weights", weights={"canary": 90, "early": 20}, reason="far too far")
        await house.write("/weights", weights={"canary": 6}, reason="just right")
        log = house.router.log.read_text()
        assert re.search(r"refused: wall is a viewer.*actor=wall", log)
        assert re.search(r"not done: .*more than 100.*actor=ada.*far too far", log)
        assert re.search(r"done: canary 5 → 6 percent.*actor=ada.*just right", log)

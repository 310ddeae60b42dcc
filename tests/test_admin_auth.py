"""Who may do what, as plain decisions: tables over roles, hosts, origins and the clock."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from router.admin import auth
from router.admin.auth import Caller, Failures
from router.admin.sessions import LINK_SECONDS, SESSION_SECONDS, Link, Sessions
from router.admin.trouble import Trouble
from router.config.admin import AdminSettings, Token

ADA = Token(name="ada", role="operator", sha256=auth.digest_of("a token"))
WALL = Token(name="wall", role="viewer", sha256=auth.digest_of("another"))
OPEN = AdminSettings()
GUARDED = AdminSettings(tokens=(ADA, WALL), hosts=("admin.example",))
FAR = AdminSettings.model_validate({"listen": "10.0.0.1:9900"})
STRANGER, VIEWER, OPERATOR = Caller(), Caller("wall", "viewer", "token"), Caller("ada", "operator", "token")


def refused(what: Callable[..., None], *given: Any) -> str | None:
    """The code of the trouble that something makes, None where it makes none."""
    try:
        what(*given)
    except Trouble as trouble:
        return trouble.code
    return None


def test_the_whole_table_of_who_may_what() -> None:
    allowed = set()
    for (name, settings), access, caller in itertools.product(
        {"open": OPEN, "guarded": GUARDED, "far": FAR}.items(),
        ("anybody", "viewer", "operator"),
        (STRANGER, VIEWER, OPERATOR),
    ):
        code = refused(auth.demand, access, caller, settings)
        if code is None:
            allowed.add((name, access, caller.role or "stranger"))
        else:
            assert code == ("wrong_role" if caller.role else "no_token")
    everywhere = {
        (name, access, role)
        for name in ("open", "guarded", "far")
        for access, role in [
            ("anybody", "stranger"), ("anybody", "viewer"), ("anybody", "operator"), ("viewer", "viewer"),
            ("viewer", "operator"), ("operator", "operator"),
        ]
    }  # fmt: skip
    assert allowed == everywhere | {("open", "viewer", "stranger")}


def test_a_token_is_known_by_its_digest_alone() -> None:
    assert auth.holder_of("a token", GUARDED) == ADA
    assert auth.holder_of("another", GUARDED) == WALL
    for wrong in ("", "a token ", "A token", ADA.sha256, "\udcff"):
        assert auth.holder_of(wrong, GUARDED) is None
    assert "sha256" not in repr(ADA)


OURS = (
    "127.0.0.1:9900", "localhost", "LOCALHOST:1", "[::1]:9900", "router:9900", "ring-router_1", "", "admin.example:9",
    "Admin.Example", "10.0.0.7",
)  # fmt: skip
FOREIGN = (
    "evil.example", "admin.example.evil.example", "127.0.0.1.evil.example", "localhost.evil.example:9900", "[::",
    "[evil.example]", "a b", "admin.example.", "xn--e1awd7f.com", "127.0.0.1@evil.example",
)  # fmt: skip


@pytest.mark.parametrize(("host", "is_ours"), [*((one, True) for one in OURS), *((one, False) for one in FOREIGN)])
def test_only_names_that_nobody_outside_can_point_here_are_answered(host: str, is_ours: bool) -> None:
    assert refused(auth.check_host, host, GUARDED) == (None if is_ours else "wrong_host")


def test_failures_are_forgotten_after_a_minute_and_the_table_stays_small() -> None:
    failures = Failures()
    for _ in range(10):
        failures.check("10.0.0.7", 100.0)
        failures.note("10.0.0.7", 100.0)
    with pytest.raises(Trouble) as caught:
        failures.check("10.0.0.7", 130.0)
    assert (caught.value.status, caught.value.retry_after) == (429, 30)
    failures.check("10.0.0.8", 130.0)
    failures.check("10.0.0.7", 160.0)
    for number in range(5000):
        failures.note(f"10.0.{number // 250}.{number % 250}", 200.0)
    assert len(failures) == auth.MOST_ADDRESSES


def test_who_owns_a_network_of_addresses_is_one_guesser() -> None:
    failures = Failures()
    for number in range(10):
        failures.note(f"2001:db8::{number}", 0.0)
    with pytest.raises(Trouble):
        failures.check("2001:db8::ffff", 1.0)
    failures.check("2001:db8:0:1::1", 1.0)


def test_a_session_is_worth_what_its_token_is_worth_now() -> None:
    sessions = Sessions()
    cookie, caller = sessions.begin(WALL, 1000.0)
    assert sessions.read(cookie, GUARDED, 1001.0) == caller
    promoted = Token(name="wall", role="operator", sha256=WALL.sha256)
    now = sessions.read(cookie, AdminSettings(tokens=(promoted,)), 1001.0)
    assert now is not None
    assert now.role == "operator"
    assert sessions.read(cookie, AdminSettings(tokens=(ADA,)), 1001.0) is None
    assert sessions.read(cookie, GUARDED, 1000.0 + SESSION_SECONDS) is None
    assert Sessions().read(cookie, GUARDED, 1001.0) is None  # another start has another key
    sessions.end(cookie)
    assert sessions.read(cookie, GUARDED, 1001.0) is None


def test_a_session_by_link_ends_when_a_token_is_configured() -> None:
    sessions = Sessions()
    cookie, _ = sessions.begin(None, 0.0)
    assert sessions.read(cookie, OPEN, 1.0) is not None
    assert sessions.read(cookie, GUARDED, 1.0) is None
    assert sessions.read(cookie, FAR, 1.0) is None


def test_no_changed_letter_of_a_session_counts() -> None:
    sessions = Sessions()
    cookie, caller = sessions.begin(ADA, 0.0)
    assert sessions.read(cookie, GUARDED, 1.0) == caller
    for place in range(len(cookie) - 1):  # the last letter of the signature has bits that nobody reads
        for letter in "A.-":
            changed = cookie[:place] + letter + cookie[place + 1 :]
            assert changed == cookie or sessions.read(changed, GUARDED, 1.0) is None, place
    for junk in ("", ".", "..", "a.b", cookie + ".x", cookie * 9, "\x00", "é.é"):
        assert sessions.read(junk, GUARDED, 1.0) is None


def test_a_link_is_good_once_and_for_ten_minutes() -> None:
    link = Link(0.0)
    secret = link.secret
    assert secret is not None
    assert not link.redeem(secret + "x", 1.0)
    assert not link.redeem("", 1.0)
    assert link.redeem(secret, 1.0)
    assert not link.redeem(secret, 1.0)
    late = Link(0.0)
    assert late.secret is not None
    assert not late.redeem(late.secret, LINK_SECONDS)

"""What a rule sees: headers and cookies, byte for byte."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.core.audience import ConditionSpec
from router.core.conditions import RuleError, compile_condition, condition_headers
from router.core.hashing import UserKey, bucket_of
from router.core.request import Request, cookie_value
from router.core.rules import RuleIndex
from tests.core_services import TABLES, conditions, keys, known_keys, request, requests
from tests.native import examples


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("", None),
        ("uid=7", b"7"),
        ("a=1; uid=7; b=2", b"7"),
        ("a=1;uid=7", b"7"),
        ("a=1;\t uid=7", b"7"),
        ("xuid=1; uid=7", b"7"),
        ("a=uid=1; uid=7", b"7"),
        ("a=1 uid=7", None),
        ("uid", None),
        ("uid=", b""),
        ("uid=7; uid=8", b"7"),
        ('uid="7"', b"7"),
        ('uid="', b'"'),
        ("uid= 7 ", b"7"),
        ("uid=a=b", b"a=b"),
        ("UID=7", None),
    ],
)
def test_a_cookie_is_found_by_its_whole_name_alone(field: str, value: bytes | None) -> None:
    assert cookie_value(field.encode(), b"uid") == value


@pytest.mark.parametrize(
    ("compare", "values", "matching", "other"),
    [
        ("equals", ("canary",), "canary", "Canary"),
        ("prefix", ("can",), "canary", "a canary"),
        ("suffix", ("@example.com",), "a@example.com", "a@example.com.evil"),
        ("contains", ("nar",), "canary", "canry"),
        ("one_of", ("a", "b"), "b", "ab"),
    ],
)
@pytest.mark.parametrize("kind", ["header", "cookie"])
def test_each_comparison_matches_what_it_says_and_its_inversion_the_rest(
    kind: str, compare: str, values: tuple[str, ...], matching: str, other: str
) -> None:
    def asked(text: str) -> Request:
        return request(x_ring=text) if kind == "header" else request(f"X-Ring={text}")

    rule = compile_condition(ConditionSpec(kind, "X-Ring", compare, values))
    inverted = compile_condition(ConditionSpec(kind, "X-Ring", compare, values, inverted=True))
    assert rule(asked(matching))
    assert not rule(asked(other))
    assert not rule(request())
    assert not inverted(asked(matching))
    assert inverted(asked(other))
    assert inverted(request())


@pytest.mark.parametrize("compare", ["glob", "regex", "semver"])
@pytest.mark.parametrize(
    "place",
    [("header", "X"), ("cookie", "X"), ("query", "X"), ("claim", "X"), ("path", ""), ("host", ""), ("user", "")],
)
def test_patterns_and_versions_are_looked_for_in_every_place(place: tuple[str, str], compare: str) -> None:
    pattern = {"glob": "5.?*", "regex": r"^5\.[2-9]", "semver": ">=5.2, <6"}[compare]
    rule = ConditionSpec(*place, compare, (pattern,))

    def asked(value: bytes) -> Request:
        made = Request(value, value, {b"x": value}, b"X=" + value)
        made.query, made.claims, made.key = b"X=" + value, {"X": (b"no", value)}, UserKey(value)
        return made

    for value, holds in ((b"5.2.0", True), (b"4.9", False)):
        assert compile_condition(rule)(asked(value)) is holds
        assert compile_condition(replace(rule, inverted=True))(asked(value)) is not holds
        assert (RuleIndex([(rule, 1)]).first(asked(value))[1] is not None) is holds


def test_a_regular_expression_is_searched_for_and_ends_where_it_says() -> None:
    def holds(pattern: str, value: str) -> bool:
        return compile_condition(ConditionSpec("header", "X-Ring", "regex", (pattern,)))(request(x_ring=value))

    assert holds("nar", "canary")
    assert not holds("^nar", "canary")
    assert holds("^(a|b)+$", "abba")
    assert not holds("^(a+)+$", "a" * 5_000 + "b")  # backtracking would go on beyond the end of the world
    assert holds("ö", "schön")


def test_a_regular_expression_that_is_none_is_refused_in_words(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuleError, match=r"is no regular expression that re2 knows"):
        compile_condition(ConditionSpec("header", "X", "regex", (r"(?=a)",)))
    assert capfd.readouterr() == ("", "")


_WITHOUT_RE2 = """
import sys
sys.modules["re2"] = None  # what an import of a library that is not there comes to
from router.core.conditions import RuleError, compile_condition
from router.core.audience import ConditionSpec
compile_condition(ConditionSpec("header", "X", "glob", ("a*",)))
try:
    compile_condition(ConditionSpec("header", "X", "regex", ("a",)))
except RuleError as error:
    print(error)
"""


def test_without_the_extra_only_regular_expressions_are_missing_and_the_error_names_it() -> None:
    done = subprocess.run([sys.executable, "-c", _WITHOUT_RE2], capture_output=True, text=True, check=True)
    assert "ring-router[re2]" in done.stdout


@pytest.mark.parametrize(
    ("address", "holds"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("11.1.2.3", False),
        ("192.0.2.7", True),
        ("192.0.2.8", False),
        ("2001:db8::7", True),
        ("2001:db9::7", False),
        ("", False),
        ("unix", False),
    ],
)
def test_a_client_is_within_a_network_or_not(address: str, holds: bool) -> None:
    rule = ConditionSpec("client", "", "within", ("10.0.0.0/8", "192.0.2.7", "2001:db8::/32"))
    asked = request()
    asked.client = address.encode()
    assert compile_condition(rule)(asked) is holds
    assert compile_condition(replace(rule, inverted=True))(asked) is not holds
    assert (RuleIndex([(rule, 1)]).first(asked)[1] is not None) is holds


@pytest.mark.parametrize(
    ("beginning", "end", "holds"),
    [
        ("2026-12-01T08:00:00Z", "2026-12-01T10:00:00Z", True),
        ("2026-12-01T09:00:00Z", "", True),
        ("2026-12-01T10:00:00+01:00", "", True),
        ("2026-12-01T10:00:01+01:00", "", False),
        ("", "2026-12-01T09:00:00Z", False),
        ("", "2026-12-01T09:00:01Z", True),
        ("", "", True),
    ],
)
def test_a_window_begins_with_its_first_second_and_ends_before_its_last(beginning: str, end: str, holds: bool) -> None:
    asked = request()
    asked.now = datetime(2026, 12, 1, 9, tzinfo=UTC).timestamp()
    assert compile_condition(ConditionSpec("time", "", "within", (beginning, end)))(asked) is holds


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (ConditionSpec("time", "", "within", ("2026-12-01T09:00:00", "")), "offset"),
        (ConditionSpec("time", "", "within", ("soon", "")), "'soon'"),
        (ConditionSpec("client", "", "within", ("10.0.0.0/33",)), "'10.0.0.0/33' is no network"),
        (ConditionSpec("header", "X", "within", ("10.0.0.0/8",)), "it is for client and time"),
        (ConditionSpec("header", "X", "listed", ("/a",)), "it is for user"),
    ],
)
def test_a_rule_that_means_nothing_is_refused_with_its_value(spec: ConditionSpec, says: str) -> None:
    with pytest.raises(RuleError, match=re.escape(says)):
        RuleIndex([(spec, 1)])


def test_one_of_several_values_of_a_claim_is_enough() -> None:
    asked = request()
    asked.claims = {"roles": (b"reader", b"tester")}
    rule = ConditionSpec("claim", "roles", "equals", ("tester",))
    assert compile_condition(rule)(asked)
    assert RuleIndex([(rule, 1)]).first(asked) == (0, 1)
    assert not compile_condition(replace(rule, inverted=True))(asked)
    assert compile_condition(replace(rule, inverted=True))(request())


def test_a_host_is_compared_in_lower_case() -> None:
    rule = ConditionSpec("host", "", "suffix", (".Example.COM",))
    asked = Request(b"a.example.com", b"/", {})
    assert compile_condition(rule)(asked)
    assert RuleIndex([(rule, 1)]).first(asked)[1] == 1


def test_a_share_is_of_those_for_whom_the_rest_holds_and_independent_of_the_rings_hash() -> None:
    rule = ConditionSpec("header", "X-Beta", share=2500)
    holds = compile_condition(rule)
    crowd = [UserKey(b"user-%d" % n) for n in range(10_000)]

    def inside(key: UserKey | None, asked: Request) -> bool:
        asked.key = key
        return holds(asked)

    users = [key for key in crowd if inside(key, request(x_beta=""))]
    assert 2_300 < len(users) < 2_700  # 4.6 standard deviations, and the keys are fixed
    canaries = [key for key in users if bucket_of(key) < 2500]
    assert 0.22 * len(users) < len(canaries) < 0.28 * len(users)
    assert not any(inside(key, request()) for key in crowd)
    assert not inside(None, request(x_beta=""))
    not_beta = compile_condition(replace(rule, inverted=True))
    assert not not_beta(request())
    asked = request()
    asked.key = users[0]
    assert not_beta(asked)


@given(key=keys, narrow=st.integers(0, 10_000), wide=st.integers(0, 10_000))
def test_a_larger_share_keeps_whom_the_smaller_one_had(key: bytes, narrow: int, wide: int) -> None:
    asked = request()
    asked.key = UserKey(key)
    narrow, wide = sorted((narrow, wide))
    one, other = (compile_condition(ConditionSpec("user", share=share))(asked) for share in (narrow, wide))
    assert other or not one


def test_present_asks_for_the_header_and_not_for_its_value() -> None:
    rule = compile_condition(ConditionSpec("header", "X-Beta"))
    assert rule(request(x_beta=""))
    assert not rule(request())


def test_groups_combine_and_invert() -> None:
    ring = ConditionSpec("header", "X-Ring", "equals", ("canary",))
    team = ConditionSpec("cookie", "team", "equals", ("search",))
    both = compile_condition(ConditionSpec("all_of", children=(ring, team)))
    either = compile_condition(ConditionSpec("any_of", children=(ring, team)))
    neither = compile_condition(ConditionSpec("any_of", children=(ring, team), inverted=True))
    one, two = request(x_ring="canary"), request("team=search", x_ring="canary")
    assert (both(one), either(one), neither(one)) == (False, True, False)
    assert (both(two), either(two), neither(two)) == (True, True, False)
    assert neither(request())


def test_a_rule_says_which_headers_it_wants() -> None:
    rule = ConditionSpec(
        "all_of",
        children=(
            ConditionSpec("header", "X-Ring"),
            ConditionSpec("cookie", "uid"),
            ConditionSpec("any_of", children=(ConditionSpec("header", "User-Agent"),)),
        ),
    )
    assert condition_headers(rule) == {b"x-ring", b"user-agent"}


@settings(max_examples=examples(500))
@given(rules=st.lists(conditions, max_size=12), asked=requests, key=known_keys)
def test_the_index_finds_the_rule_that_asking_one_after_the_other_would(
    rules: list[ConditionSpec], asked: Request, key: UserKey | None
) -> None:
    asked.key = key
    tables = TABLES.__getitem__
    expected = next((i for i, rule in enumerate(rules) if compile_condition(rule, tables)(asked)), None)
    place, outcome = RuleIndex(((rule, i) for i, rule in enumerate(rules)), tables).first(asked)
    assert outcome == expected
    assert expected is None or place == expected

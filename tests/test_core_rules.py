"""What a rule sees: headers and cookies, byte for byte."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core.conditions import compile_condition, condition_headers
from router.core.request import Request, cookie_value
from router.core.rules import RuleIndex
from router.core.spec import ConditionSpec
from tests.core_services import conditions, request, requests


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


@given(rules=st.lists(conditions, max_size=12), asked=requests)
def test_the_index_finds_the_rule_that_asking_one_after_the_other_would(
    rules: list[ConditionSpec], asked: Request
) -> None:
    expected = next((i for i, rule in enumerate(rules) if compile_condition(rule)(asked)), None)
    place, outcome = RuleIndex((rule, i) for i, rule in enumerate(rules)).first(asked)
    assert outcome == expected
    assert expected is None or place == expected

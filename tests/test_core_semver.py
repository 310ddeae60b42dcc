"""Versions in the order of semver.org, and what a requirement makes of them."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core.audience import ConditionSpec
from router.core.conditions import RuleError, compile_condition
from router.core.semver import meets, parse_version
from tests.core_services import request

IN_ORDER = (
    "0.9.12", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11",
    "1.0.0-rc.1", "1.0.0", "1.0.1", "1.2.0", "1.10.0", "2.0.0", "2.1.0", "2.1.1", "10.0.0",
)  # fmt: skip
"""§11 has the pre-releases in this order, and 1.0.0 < 2.0.0 < 2.1.0 < 2.1.1."""


def test_versions_are_in_the_order_of_the_standard() -> None:
    for lower, higher in pairwise(IN_ORDER):
        assert meets([f"<{higher}"])(lower.encode())
        assert not meets([f">={higher}"])(lower.encode())
        assert meets([f">{lower}"])(higher.encode())


@pytest.mark.parametrize(
    ("version", "requirement", "holds"),
    [
        ("5.2.0", ">=5.2", True),
        ("5.10", ">=5.2", True),
        ("5.1.9", ">=5.2", False),
        ("v5.2.1", ">=5.2", True),
        ("5.2.0-rc.1", ">=5.2", False),
        ("6.0.0-rc.1", "<6", True),
        ("5.2.0+build.7", "=5.2", True),
        ("5.2", "5.2.0", True),
        ("5", "<=5.0.0", True),
        ("5.2.1", "=5.2", False),
        ("5.2.1", "!=5.2", True),
        ("5.2", "!=5.2.0", False),
        ("5.7", ">=5.2, <6", True),
        ("6.0.0", ">=5.2, <6", False),
        (" 5.2 ", ">= 5.2", True),
    ],
)
def test_a_requirement_is_met_by_precedence(version: str, requirement: str, holds: bool) -> None:
    assert meets([requirement])(version.encode()) is holds


def test_several_values_all_have_to_hold() -> None:
    between = compile_condition(ConditionSpec("header", "X-App", "semver", (">=5.2", "<6")))
    assert [between(request(x_app=version)) for version in ("5.1", "5.2", "5.9.9", "6.0")] == [False, True, True, False]
    assert not between(request())


@pytest.mark.parametrize(
    "text",
    [
        "", "v", "latest", "5.", ".5", "5.2.0.1", "05.2", "5.02", "5.2-", "5.2-rc..1", "5.2-01", "5.2-ü", "5.2+", "-1",
        "+5", "5 2", "5.2 beta", "٥.٢", "9" * 300,
    ],
)  # fmt: skip
def test_what_is_no_version_meets_nothing_and_is_no_requirement(text: str) -> None:
    assert parse_version(text.encode()) is None
    assert not meets([">=0"])(text.encode())
    assert not meets(["<99999"])(text.encode())
    assert not meets(["!=1"])(text.encode())
    with pytest.raises(ValueError, match="'>=5\\.2'"):
        meets([f">={text}"])


def test_a_rule_with_a_requirement_that_is_none_names_it() -> None:
    with pytest.raises(RuleError, match=r"'~5\.2' is no requirement"):
        compile_condition(ConditionSpec("header", "X-App", "semver", ("~5.2",)))


_numbers = st.tuples(*[st.integers(0, 30)] * 3)


@given(one=_numbers, other=_numbers)
def test_released_versions_compare_like_their_numbers(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    version, bound = (".".join(map(str, numbers)) for numbers in (one, other))
    for operator, holds in ((">", one > other), (">=", one >= other), ("=", one == other), ("<", one < other)):
        assert meets([operator + bound])(version.encode()) is holds


@given(text=st.binary(max_size=30))
def test_any_bytes_are_a_version_or_none(text: bytes) -> None:
    found = parse_version(text)
    assert found is None or found >= parse_version(b"0.0.0-0")  # type: ignore[operator]

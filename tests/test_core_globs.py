"""Patterns with stars and question marks, and how long the worst of them take."""

from __future__ import annotations

import sys
from fnmatch import fnmatchcase
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.core import globs
from router.core.globs import compile_glob


@pytest.mark.parametrize(
    ("pattern", "value", "holds"),
    [
        ("canary", "canary", True),
        ("canary", "canary2", False),
        ("can*", "can", True),
        ("*.example.com", "a.example.com", True),
        ("*.example.com", "example.com", False),
        ("a*a", "a", False),
        ("a*a", "aa", True),
        ("a?c", "abc", True),
        ("a?c", "ac", False),
        ("*a?b*", "xxaab", True),
        ("*", "", True),
        ("", "", True),
        ("", "x", False),
        ("?", "", False),
        ("a**b", "ab", True),
        ("[ab]", "a", False),
        ("[ab]", "[ab]", True),
        ("\\*", "\\anything", True),
        ("a*b\nc", "axb\nc", True),
    ],
)
def test_a_pattern_stands_for_the_whole_value(pattern: str, value: str, holds: bool) -> None:
    assert compile_glob(pattern.encode())(value.encode()) is holds


@settings(max_examples=1000)
@given(pattern=st.text("ab*?", max_size=10), value=st.text("ab", max_size=14))
def test_simple_patterns_match_what_fnmatch_matches(pattern: str, value: str) -> None:
    assert compile_glob(pattern.encode())(value.encode()) is fnmatchcase(value, pattern)


@given(
    value=st.text("abc", max_size=30),
    cuts=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3)), max_size=4),
    which=st.sets(st.integers(0, 29)),
)
def test_a_pattern_made_of_its_value_matches_it(value: str, cuts: list[tuple[int, int]], which: set[int]) -> None:
    pattern = "".join("?" if at in which else letter for at, letter in enumerate(value))
    for at, size in cuts:
        pattern = pattern[:at] + "*" + pattern[at + size :]
    assert compile_glob(pattern.encode())(value.encode())


def lines(pattern: bytes, value: bytes) -> int:
    """How many lines of the matcher run."""
    matches, count = compile_glob(pattern), 0

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal count
        if frame.f_code.co_filename != globs.__file__:
            return None
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        assert not matches(value)
    finally:
        sys.settrace(before)
    return count


@pytest.mark.skipif(not globs.__file__.endswith(".py"), reason="native code has no lines to count")
def test_a_pattern_that_makes_others_try_everything_takes_steps_by_the_length_of_the_value() -> None:
    short, long = (lines(b"*a?a" * 12 + b"*b*", b"a" * size) for size in (1_000, 4_000))
    assert 0 < long <= short + 5 * 3_000
    assert lines(b"*?b" * 5 + b"*", b"ab" * 4 + b"a" * 100_000) < 200

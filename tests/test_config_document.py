"""YAML as a config needs it: 1.2 scalars, places, variables, and no text that hangs or kills the reader."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.config.document import Document, read_document
from router.config.problems import Problem


def read(text: str, **env: str) -> Document:
    return read_document(text, "f.yaml", env)


def only(document: Document) -> Problem:
    (problem,) = document.problems
    return problem


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True), ("False", False), ("on", "on"), ("off", "off"), ("yes", "yes"), ("n", "n"),
        ("12:30:45", "12:30:45"), ("1_000", "1_000"), ("0x10", 16), ("0o17", 15), ("017", 17), ("-3", -3),
        ("1.5", 1.5), (".5", 0.5), ("1e3", 1000.0), ("2024-01-01", "2024-01-01"), ("null", None), ("~", None),
        ("", None), ('"12"', "12"), ("'true'", "true"), ("=", "="), ("1.2.3", "1.2.3"), ("9" * 5000, "9" * 5000),
    ],
)  # fmt: skip
def test_plain_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    document = read(f"a: {text}\n")
    assert document.data == {"a": value}
    assert type(document.data["a"]) is type(value)


def test_keys_are_text_as_it_was_written() -> None:
    assert read("{1.10: x, on: y, 7: z}").data == {"1.10": "x", "on": "y", "7": "z"}


def test_every_value_and_key_knows_its_place() -> None:
    document = read("a: 1\nb:\n  - x\n  - c: 2\n")
    assert document.values["b", 1, "c"] == (4, 8)
    assert document.keys["b", 1, "c"] == (4, 5)
    assert document.values["b", 0] == (3, 5)
    assert document.keys["a",] == (1, 1)


def test_variables_are_put_in_and_plain_ones_are_read_again() -> None:
    document = read(
        "a: ${N}\nb: '${N}'\nc: x-${N}-${M:-y}\nd: ${M:-}\ne: $${N}\nf: ${E:-full}\ng: \"${E}\"", N="4", E=""
    )
    assert document.data == {"a": 4, "b": "4", "c": "x-4-y", "d": None, "e": "${N}", "f": "full", "g": ""}
    assert not document.problems


def test_a_variable_is_not_read_for_yaml_or_for_more_variables() -> None:
    assert read("a: ${N}", N="[x, ${M}]: y").data == {"a": "[x, ${M}]: y"}


def test_a_variable_that_is_not_set_is_a_problem_that_names_it() -> None:
    problem = only(read("a: 1\nb: ${NOPE}\n"))
    assert (problem.line, problem.column) == (2, 4)
    assert "NOPE is not set" in problem.message


@pytest.mark.parametrize("text", ["a: ${", "a: ${1X}", "a: '${A B}'", "a: x${}"])
def test_half_a_variable_is_a_problem(text: str) -> None:
    assert "${NAME}" in only(read(text)).message


def test_a_duplicate_key_says_where_the_first_one_is() -> None:
    problem = only(read("a: 1\nb: 2\na: 3\n"))
    assert (problem.line, problem.column) == (3, 1)
    assert "first on line 1" in problem.message


def test_aliases_and_merge_keys_are_written_out_and_own_keys_win() -> None:
    document = read("a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\nc: *a\nd: {<<: [*a, {z: 4}]}\n")
    assert document.data["b"] == {"x": 3, "y": 2}
    assert document.data["c"] == {"x": 1, "y": 2}
    assert document.data["d"] == {"x": 1, "y": 2, "z": 4}
    assert not document.problems


@pytest.mark.parametrize(
    ("text", "line", "column", "says"),
    [
        ("a: {b: 1\nc: 2\n", 2, 2, "valid YAML"),
        ("a: b: c\n", 1, 5, "quotes"),
        ("a:\n\tb: 1\n", 2, 1, "spaces"),
        ("a: *nope\n", 1, 4, "no anchor &nope"),
        ("a: &a [1, *a]\n", 1, 11, "inside its own anchor"),
        ("a: 1\n---\nb: 2\n", 2, 1, "only one YAML document"),
        ("a: !!python/object:os.system x\n", 1, 4, "tags"),
        ("a: 1\nb: \x07\n", 2, 4, "U+0007"),
        ("a: 1\n? [b]\n: 2\n", 2, 3, "plain text"),
        ("a: {<<: 3}\n", 1, 9, "mapping"),
    ],
)
def test_what_is_not_yaml_is_a_problem_with_a_place(text: str, line: int, column: int, says: str) -> None:
    problem = only(read(text))
    assert (problem.line, problem.column) == (line, column)
    assert says in problem.render()


def test_a_billion_laughs_are_refused_in_no_time() -> None:
    levels = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]\n" for n in range(1, 10))
    started = time.monotonic()
    document = read("l0: &l0 [lol]\n" + levels)
    assert time.monotonic() - started < 5
    assert "unfold" in only(document).message


@pytest.mark.parametrize("opening", ["[", "{", "- ", "{a: "])
def test_bottomless_nesting_is_refused_and_does_not_kill_the_process(opening: str) -> None:
    assert "levels deep" in only(read(opening * 100_000)).message


@given(st.text(alphabet=st.sampled_from("ab:-[]{}&*<!|>'\"${}#,? \n\t\x00\ufeff\u2028é"), max_size=60))
def test_no_text_raises(text: str) -> None:
    document = read(text)
    assert isinstance(document.problems, list)
    for problem in document.problems:
        assert problem.render()
        assert problem.line >= 1

"""The report of a rollout says what came of it, in one sentence and in all its figures, and nothing in it is markup."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.rollout.progress import ENDS, Phase, Progress, Rollback
from router.rollout.report import markdown, outcome, report
from tests.rollout_progress import HOSTILE, rolled_back, under_way

NOW = 1_764_061_200.0


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split(" | ")]


@pytest.mark.parametrize(
    ("phase", "words"),
    [
        ("succeeded", "v3 is everywhere"), ("rolled_back", "v3 was rolled back"),
        ("rollback_stalled", "not every instance has said"), ("superseded", "Another rollout"),
        ("aborted", "Ended by hand"), ("proving", "Under way: holding early at 20 %"),
    ],
)  # fmt: skip
def test_the_outcome_is_one_sentence(phase: Phase, words: str) -> None:
    assert words in outcome(replace(under_way(NOW), phase=phase))


def test_every_end_has_its_sentence() -> None:
    said = {outcome(replace(under_way(NOW), phase=phase)) for phase in ENDS}
    assert len(said) == len(ENDS)
    assert all(sentence.endswith(".") for sentence in said)


def test_a_rollout_that_only_watched_has_moved_nothing_and_says_so() -> None:
    assert outcome(replace(rolled_back(NOW), mode="observe")).startswith("Observed only, nothing was written: v3 was")


def test_a_rollback_says_its_cause_what_it_cost_and_how_long_it_took() -> None:
    one = report(rolled_back(NOW))
    assert one.outcome == "v3 was rolled back: errors: worse than tolerated (ln E 9.4 of 6.2)."
    for words in ("6 min 52 s after", "0.6 s later", "37 users", "118 requests"):
        assert words in one.cost
    stalled = replace(rolled_back(NOW), rollback=Rollback("breaker", 30.0, 1, 1))
    assert "not applied everywhere yet" in report(stalled).cost
    assert "1 user met a failure, in 1 request." in report(stalled).cost


def test_each_metric_is_a_row_with_both_sides_the_difference_and_its_interval() -> None:
    text = markdown(rolled_back(NOW))
    head, _, errors, *_ = text.partition("## Metrics\n\n")[2].split("\n")
    assert cells(head)[:8] == [
        "metric", "v2", "v3", "difference", "interval", "users", "standing", "required",
    ]  # fmt: skip
    assert cells(errors)[1:8] == [
        "0.06 %", "0.61 %", "+0.55 pp", r"\[+0.31, +0.84\]", "41,230 and 820,400", "breached", "yes",
    ]  # fmt: skip
    orders = next(line for line in text.split("\n") if line.startswith("| orders:"))
    assert cells(orders)[1:5] == ["–"] * 4


def test_steps_people_and_everything_else_are_in_it() -> None:
    text = markdown(under_way(NOW))
    assert "| 3 | early runs v3 at 20 % | current | 2025-11-25 06:30:00 | – | 1 h 24 min | 412 | grace |" in text
    people = text.partition("## Who did what")[2].partition("## All that happened")[0]
    assert people.count("\n| 2025-") == 4
    assert "| 2025-11-25 05:12:00 | grace | paused | the database is being moved |" in people
    assert "`ring-router rollout report shop --verify`" in text


def test_nothing_that_somebody_typed_is_markup() -> None:
    text = markdown(replace(under_way(NOW), reason="a | b\n# c [x](javascript:1) `d` " + HOSTILE))
    assert HOSTILE not in text
    assert r"Why: a \| b \# c \[x\](javascript:1) \`d\` \<img src=x onerror=alert(1)\>" in text


@given(st.text(), st.text())
def test_a_table_keeps_its_columns_whatever_is_typed(sentence: str, reason: str) -> None:
    one: Progress = under_way(NOW)
    events = tuple(replace(event, sentence=sentence, reason=reason) for event in one.events)
    table = markdown(replace(one, events=events)).partition("## All that happened\n\n")[2].partition("\n\n")[0]
    lines = table.split("\n")
    assert len(lines) == 2 + len(events)
    assert {line.replace("\\\\", "").replace("\\|", "").count("|") for line in lines} == {5}

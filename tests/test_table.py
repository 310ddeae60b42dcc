"""Member tables: whatever is added, removed and grown, the table says what a set would say, to all who have it open."""

from __future__ import annotations

import os
from functools import reduce
from operator import xor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from xxhash import xxh64_intdigest

from router.core.table import (
    CAPACITY_AT,
    COUNT_AT,
    DIGEST_AT,
    HEADER_WORDS,
    MAGIC,
    PENDING_AT,
    TOMBSTONE,
    BadTable,
    MemberTable,
)
from router.members.files import UNFINISHED, TableFile, map_table, open_table, remove_abandoned
from router.members.writer import TableFull, TableWriter, begin, capacity_for, normal, verify, words_for

CAPACITY = 16


def blank(capacity: int = CAPACITY) -> memoryview:
    """The words of an empty table in this process' own memory."""
    words = memoryview(bytearray(words_for(capacity) * 8)).cast("Q")
    begin(words)
    return words


def members_in(words: memoryview) -> int:
    """What verifying a table ends with. Raises ``BadTable``."""
    *_, members = verify(words)
    return members


# A few starting slots for many fingerprints: chains, wrap-around and tombstones in nearly every run.
FINGERPRINTS = st.one_of(
    st.integers(0, 40),
    st.builds(lambda high, low: high << 32 | low, st.integers(1, 3), st.sampled_from([0, 1, CAPACITY - 1])),
    st.integers(0, 2**64 - 1),
)


class Together(RuleBasedStateMachine):
    """A writer, a reader that has the same memory open, and a set that knows better."""

    def __init__(self) -> None:
        super().__init__()
        self.known: set[int] = set()
        self.seen: set[int] = set()
        self.grow(CAPACITY)

    def grow(self, capacity: int) -> None:
        self.words = blank(capacity)
        self.writer, self.reader = TableWriter(self.words), MemberTable(self.words.toreadonly())
        assert self.writer.fill(self.known) == []

    @rule(fingerprint=FINGERPRINTS)
    def add(self, fingerprint: int) -> None:
        self.seen.add(fingerprint)
        is_new = normal(fingerprint) not in self.known
        try:
            assert self.writer.add(fingerprint) == is_new
        except TableFull:
            assert self.writer.is_full
            self.grow(max(self.writer.capacity, capacity_for(len(self.known) + 1)))
            if self.writer.is_full:
                self.grow(self.writer.capacity * 2)
            assert self.writer.add(fingerprint) == is_new
        self.known.add(normal(fingerprint))

    @rule(fingerprint=FINGERPRINTS)
    def remove(self, fingerprint: int) -> None:
        self.seen.add(fingerprint)
        assert self.writer.remove(fingerprint) == (normal(fingerprint) in self.known)
        self.known.discard(normal(fingerprint))

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def remove_a_member(self, data: st.DataObject) -> None:
        self.remove(data.draw(st.sampled_from(sorted(self.known))))

    @invariant()
    def says_what_the_set_says(self) -> None:
        for fingerprint in self.seen:
            is_member = normal(fingerprint) in self.known
            assert self.reader.has(fingerprint) == is_member
            assert (fingerprint in self.writer) == is_member

    @invariant()
    def is_whole_and_counted(self) -> None:
        slots = self.words[HEADER_WORDS:].tolist()
        assert self.writer.count == len(self.known) == members_in(self.words)
        assert self.writer.used == sum(slot != 0 for slot in slots)
        assert self.words[DIGEST_AT] == reduce(xor, self.known, 0)
        assert self.writer.used <= self.writer.capacity * 0.6


TestTogether = Together.TestCase
TestTogether.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)


@given(st.sets(st.integers(0, 2**64 - 1), max_size=60), st.lists(FINGERPRINTS, max_size=30))
def test_filling_gives_back_those_who_were_there(members: set[int], more: list[int]) -> None:
    writer = TableWriter(blank(256))
    first = writer.fill(members)
    assert len(first) == len(members) - len({normal(one) for one in members})
    already = {normal(one) for one in members}
    expected = []
    for one in map(normal, more):
        expected += [one] if one in already else []
        already.add(one)
    assert writer.fill(more) == expected
    assert writer.count == len(already)


OTHERS = [3 + CAPACITY * n for n in range(1, 5)]
"""They all begin their search at the same slot."""


class Watched(list[int]):
    """A table's slots that look, after each write, at what a reader would find."""

    def __init__(self, words: memoryview, who: int) -> None:
        super().__init__(words[HEADER_WORDS:].tolist())
        self.words, self.who, self.writes = words, who, 0

    def __setitem__(self, place: Any, value: Any) -> None:
        super().__setitem__(place, value)
        copy = memoryview(bytearray(self.words.tobytes())).cast("Q")
        for at, slot in enumerate(self):
            copy[HEADER_WORDS + at] = slot
        reader = MemberTable(copy)
        assert all(reader.has(one) for one in OTHERS if one != self.who)
        assert not any(reader.has(one) for one in (4, 5, 6, 3 + CAPACITY * 9))
        self.writes += 1


@pytest.mark.parametrize("who", [3, *OTHERS])
def test_after_each_single_write_a_reader_finds_everybody_else(who: int) -> None:
    words = blank(CAPACITY)
    writer = TableWriter(words)
    writer.fill(OTHERS)
    slots: Any = Watched(words, who)
    writer._slots = slots
    if who in OTHERS:
        assert writer.remove(who)
    else:
        assert writer.add(who)
    assert slots.writes


def test_a_reader_sees_what_the_writer_changes_without_opening_the_file_again(tmp_path: Path) -> None:
    table = TableFile(tmp_path / "shop.canary.1", 1024)
    alice, bob = xxh64_intdigest(b"alice"), xxh64_intdigest(b"bob")
    table.writer.fill([alice])
    table.publish()
    reader = open_table(str(tmp_path / "shop.canary.1"))
    assert (reader.has(alice), reader.has(bob)) == (True, False)
    table.writer.add(bob)
    table.writer.remove(alice)
    assert (reader.has(alice), reader.has(bob)) == (False, True)
    table.close(is_gone=True)
    assert reader.has(bob)
    assert list(tmp_path.iterdir()) == []


def test_nobody_opens_what_is_not_finished_and_nobody_removes_what_is_written(tmp_path: Path) -> None:
    path = tmp_path / "shop.canary.1"
    table = TableFile(path, 1024)
    assert not path.exists()
    table.publish()
    assert not remove_abandoned(path)
    table.close(is_gone=False)
    assert remove_abandoned(path)
    assert not path.exists()


def test_a_disk_that_is_full_is_an_error_and_no_crash(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"."):
        TableFile(tmp_path / "huge", 1 << 58)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    table = TableFile(tmp_path / "whole", 1024)
    table.writer.fill(xxh64_intdigest(b"user-%d" % number) for number in range(100))
    table.publish()
    table.close(is_gone=False)
    return table.path


def change(path: Path, at: int, value: int) -> None:
    content = memoryview(bytearray(path.read_bytes())).cast("Q")
    content[at] = value
    path.write_bytes(content)


def test_a_whole_table_is_told_from_one_with_other_members(whole: Path) -> None:
    assert members_in(map_table(str(whole))) == 100
    words = map_table(str(whole))
    taken = next(at for at in range(HEADER_WORDS, len(words)) if words[at] > TOMBSTONE)
    change(whole, taken, words[taken] ^ 4)
    with pytest.raises(BadTable, match="members"):
        members_in(map_table(str(whole)))


@pytest.mark.parametrize("is_written", [False, True])
def test_a_writer_that_was_killed_between_two_words_leaves_a_whole_table(whole: Path, is_written: bool) -> None:
    words = map_table(str(whole))
    change(whole, PENDING_AT, 12345)
    if is_written:
        at = 12345 % words[CAPACITY_AT]
        while words[HEADER_WORDS + at]:
            at = (at + 1) % words[CAPACITY_AT]
        change(whole, HEADER_WORDS + at, 12345)
    assert members_in(map_table(str(whole))) == 100 + is_written


def test_files_that_are_no_tables_are_refused(whole: Path, tmp_path: Path) -> None:
    for at, value, why in (
        (0, MAGIC + 1, "not a table"),
        (1, 2, "layout 2"),
        (CAPACITY_AT, 512, "512 slots"),
        (CAPACITY_AT, 1000, "1000 slots"),
    ):
        content = whole.read_bytes()
        change(whole, at, value)
        with pytest.raises(BadTable, match=why):
            open_table(str(whole))
        whole.write_bytes(content)
    change(whole, COUNT_AT, 1)
    assert open_table(str(whole)).capacity == 1024  # a count is only a figure
    for size in (0, 7, 8, 1000):
        cut = tmp_path / "cut"
        cut.write_bytes(whole.read_bytes()[:size])
        with pytest.raises(BadTable):
            open_table(str(cut))
    whole.chmod(0o666)
    with pytest.raises(BadTable, match="written by others"):
        open_table(str(whole))
    link = tmp_path / "link"
    link.symlink_to(whole)
    with pytest.raises(OSError, match=r"."):
        open_table(str(link))
    with pytest.raises(FileNotFoundError):
        open_table(str(tmp_path / "none"))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadTable):
        open_table(str(tmp_path / "pipe"))


def test_a_table_that_is_full_keeps_what_it_has(tmp_path: Path) -> None:
    table = TableFile(tmp_path / f"full{UNFINISHED}", 1024)
    with pytest.raises(TableFull):
        table.writer.fill(range(2, 1024))
    table.close(is_gone=True)
    writer = TableWriter(blank(1024))
    writer.fill(range(2, 2 + 614))
    assert writer.is_full
    with pytest.raises(TableFull):
        writer.add(5000)
    assert not writer.add(5)
    assert writer.count == 614
    writer.remove(7)
    assert writer.add(7 + 1024)  # where a member was, there is room for one of the same chain
    assert writer.count == 614

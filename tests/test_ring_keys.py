"""Keys of members for an engine without tables: in force only while they are all of those whom the table counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.control.ring_keys import MOST, RingKeys


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys" / "shop.canary"


def known(file: Path, *members: str) -> RingKeys:
    keys = RingKeys(file)
    keys.read("", [one.encode() for one in members])
    assert keys.settle(len(members))
    return keys


def test_what_was_read_is_known_and_the_next_process_knows_it(file: Path) -> None:
    known(file, "uwe", "ada", 'zoë, said "hm"\n')
    after = RingKeys(file)
    after.load(3)
    assert after.is_whole
    assert after.known == ("ada", "uwe", 'zoë, said "hm"\n')


def test_who_is_in_a_shard_makes_the_keys_too_few(file: Path) -> None:
    keys = known(file, "ada")
    assert keys.settle(2)
    assert not keys.is_whole
    assert keys.settle(1)
    assert keys.is_whole


def test_those_whom_the_table_keeps_are_kept(file: Path) -> None:
    """A Redis that was flushed cannot say that who is gone from it is meant to be."""
    known(file, "ada", "uwe")
    after = RingKeys(file)
    after.load(2)
    after.read("", [])
    assert not after.settle(2)
    assert after.known == ("ada", "uwe")
    after.read("", [b"ada", b"zoe"])
    assert after.settle(3)
    assert after.known == ("ada", "uwe", "zoe")
    assert after.settle(2), "somebody said that it is meant"
    assert after.known == ("ada", "zoe")


def test_the_sets_of_a_ring_add_up(file: Path) -> None:
    keys = known(file, "ada")
    keys.read("0f", [b"uwe", b"ada"])
    assert keys.settle(2)
    assert keys.known == ("ada", "uwe")
    keys.read("0f", [])
    assert keys.settle(1)
    assert keys.known == ("ada",)


def test_what_is_not_text_leaves_the_ring_to_its_table(file: Path) -> None:
    keys = known(file, "ada")
    keys.read("0f", [b"uwe", b"\xff"])
    assert keys.settle(3)
    assert not keys.is_whole
    keys.read("0f", [b"uwe"])
    assert keys.settle(2)
    assert keys.known == ("ada", "uwe")


def test_what_is_too_long_does_so_until_it_is_short_again_and_was_read(file: Path) -> None:
    keys = known(file, "ada")
    keys.read("0f", [b"%d" % i for i in range(MOST)])
    assert keys.settle(1 + MOST)
    assert (keys.is_whole, keys.unread) == (False, {"0f"})
    keys.read("", [])
    assert not keys.settle(MOST), "nobody has read it again"
    keys.read("0f", [b"%d" % i for i in range(MOST)])
    assert keys.settle(MOST)
    assert keys.is_whole
    assert len(keys.known) == MOST


def test_without_a_table_the_keys_of_last_time_are_all_there_is(file: Path) -> None:
    known(file, "ada")
    after = RingKeys(file)
    after.load(None)
    assert (after.known, after.is_whole) == (("ada",), True)
    file.write_text("no list")
    after.load(1)
    assert (after.known, after.is_whole) == ((), False)


def test_a_disk_that_cannot_be_written_is_said_and_the_keys_apply(file: Path) -> None:
    file.parent.write_text("in the way")
    assert known(file, "ada").trouble is not None


def test_a_ring_that_is_gone_leaves_nothing(file: Path) -> None:
    known(file, "ada").forget()
    assert list(file.parent.iterdir()) == []

"""Keys of members for an engine without tables: in force only while they are those whom the table has, to the last."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.control.ring_keys import MOST, RingKeys, proof_of


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "member-keys" / "shop.canary.json"


async def known(file: Path, *members: str) -> RingKeys:
    keys = RingKeys(file)
    keys.read("canary", [one.encode() for one in members])
    assert await keys.settle(proof_of(members))
    return keys


def loaded(file: Path, *table: str) -> RingKeys:
    """In the next process, whose last good table has these."""
    keys = RingKeys(file)
    keys.load(proof_of(table))
    return keys


def others_may(file: Path) -> int:
    return file.stat().st_mode & 0o077


def spoil(file: Path) -> None:
    file.write_text("no list")


async def test_what_was_read_is_known_and_the_next_process_knows_it(file: Path) -> None:
    members = ("ada", "uwe", 'zoë, said "hm"\n')
    await known(file, *members)
    after = loaded(file, *members)
    assert (after.is_whole, after.known) == (True, members)
    assert others_may(file) == 0


async def test_another_list_of_the_same_length_is_another_list(file: Path) -> None:
    """A process that was killed between the change of its table and that of its keys."""
    await known(file, "ada", "uwe")
    assert not loaded(file, "ada", "zoe").is_whole


async def test_the_sets_of_a_ring_add_up(file: Path) -> None:
    keys = await known(file, "ada")
    assert await keys.settle(proof_of(["ada", "uwe"])), "there is a set that was not read yet"
    assert not keys.is_whole
    keys.read("canary:0f", [b"uwe", b"ada"])
    assert await keys.settle(proof_of(["ada", "uwe"]))
    assert keys.known == ("ada", "uwe")
    keys.read("canary:0f", [])
    assert await keys.settle(proof_of(["ada"]))
    assert (keys.is_whole, keys.known) == (True, ("ada",))
    assert not await keys.settle(proof_of(["ada"]))


async def test_those_whom_the_table_keeps_are_kept(file: Path) -> None:
    """A Redis that was flushed cannot say that who is gone from it is meant to be."""
    await known(file, "ada", "uwe")
    after = loaded(file, "ada", "uwe")
    after.read("canary", [])
    assert not await after.settle(proof_of(["ada", "uwe"]))
    assert after.known == ("ada", "uwe")
    after.read("canary", [b"ada", b"zoe"])
    assert await after.settle(proof_of(["ada", "uwe", "zoe"]))
    assert after.known == ("ada", "uwe", "zoe")
    assert await after.settle(proof_of(["ada", "zoe"])), "somebody said that it is meant"
    assert after.known == ("ada", "zoe")


async def test_what_is_not_text_leaves_the_ring_to_its_table(file: Path) -> None:
    keys = await known(file, "ada")
    keys.read("canary:0f", [b"uwe", b"\xff"])
    assert await keys.settle((3, 17))
    assert not keys.is_whole
    keys.read("canary:0f", [b"uwe"])
    assert await keys.settle(proof_of(["ada", "uwe"]))
    assert keys.known == ("ada", "uwe")


async def test_what_is_too_long_does_so_until_it_is_short_again_and_was_read(file: Path) -> None:
    keys, many = await known(file, "ada"), [f"{i}" for i in range(MOST)]
    keys.read("canary:0f", [one.encode() for one in many])
    assert await keys.settle(proof_of(["ada", *many]))
    assert (keys.is_whole, keys.unread) == (False, {"canary:0f"})
    keys.read("canary", [])
    assert not await keys.settle(proof_of(many)), "nobody has read it again"
    keys.read("canary:0f", [one.encode() for one in many])
    assert await keys.settle(proof_of(many))
    assert keys.is_whole
    assert len(keys.known) == MOST


async def test_who_is_in_two_sets_counts_once(file: Path) -> None:
    many = [f"{i}" for i in range(MOST)]
    keys = await known(file, *many)
    keys.read("canary:0f", [one.encode() for one in many])
    assert keys.unread == set()
    assert not await keys.settle(proof_of(many))
    assert keys.is_whole


async def test_a_file_that_is_not_a_list_is_none(file: Path) -> None:
    await known(file, "ada")
    spoil(file)
    assert not loaded(file, "ada").is_whole


async def test_a_disk_that_cannot_be_written_is_said_and_tried_again(file: Path) -> None:
    file.parent.write_text("in the way")
    keys = await known(file, "ada")
    assert keys.trouble is not None
    file.parent.unlink()
    assert not await keys.settle(proof_of(["ada"]))
    assert keys.trouble is None
    assert loaded(file, "ada").is_whole


async def test_a_ring_that_is_gone_leaves_nothing(file: Path) -> None:
    keys = await known(file, "ada")
    keys.forget()
    assert list(file.parent.iterdir()) == []
    keys.forget()

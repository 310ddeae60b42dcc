"""Children without an exec, as the parent starts them: what they have, what they are called, and how they end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults.processes import ROOT

CHILD = """
import json, os, sys
def is_open(one):
    try:
        return bool(os.fstat(one))
    except OSError:
        return False
def main():
    if sys.argv[1] == "fails":
        raise ValueError("this went wrong")
    if sys.argv[1] == "ends":
        sys.exit(int(sys.argv[2]))
    if sys.argv[1] == "is killed":
        os.kill(os.getpid(), 9)
    group = os.getpgid(0) == os.getpid()
    read = os.read(0, 1).decode()
    command = open("/proc/self/cmdline").read().rstrip(chr(0))
    name = open("/proc/self/comm").read().strip()
    descriptors = [one for one in map(int, os.listdir("/proc/self/fd")) if is_open(one)]  # not that of the listing
    print(json.dumps({"group": group, "read": read, "command": command, "name": name, "descriptors": descriptors}))
"""
PARENT = """
import json, os, sys
from router.process.forked import fork
sys.path.insert(0, sys.argv[1])
kept = os.dup2(os.open(os.devnull, os.O_RDONLY), 40)
secret = os.dup2(0, 41, inheritable=True)
print("said before", end=" ")
child = fork("child_of_a_story", json.loads(sys.argv[2]), [kept], "worker 3")
assert child.wait() == child.poll()
print("ended with", child.returncode)
"""


def forked(directory: Path, *arguments: str) -> tuple[str, str]:
    """What both wrote, on standard output and on standard error."""
    (directory / "child_of_a_story.py").write_text(CHILD)
    done = subprocess.run(
        [sys.executable, "-c", PARENT, str(directory), json.dumps(arguments)],
        cwd=ROOT, capture_output=True, text=True, input="for the parent alone", timeout=60, check=True,
    )  # fmt: skip
    return done.stdout, done.stderr


def test_a_child_has_what_it_was_given_and_nothing_else(tmp_path: Path) -> None:
    out, error = forked(tmp_path, "says")
    assert error == ""
    before, _, rest = out.partition("said before ")
    said: dict[str, Any] = json.loads(rest.partition("\n")[0])
    assert (before, rest.partition("\n")[2]) == ("", "ended with 0\n")  # nobody says a thing twice
    assert sorted(said["descriptors"]) == [0, 1, 2, 40]
    assert said["read"] == ""
    assert said["group"]
    assert (said["command"], said["name"]) == ("ring-router: worker 3", "worker 3")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [(("ends", "7"), 7, ""), (("ends", "0"), 0, ""), (("is killed",), -9, ""), (("fails",), 1, "this went wrong")],
)
def test_how_a_child_ended_is_known(tmp_path: Path, arguments: tuple[str, ...], code: int, words: str) -> None:
    out, error = forked(tmp_path, *arguments)
    assert out == f"said before ended with {code}\n"
    assert (words in error) if words else not error
    assert ("Traceback" in error) == bool(words)


def test_a_parent_that_nobody_listens_to_starts_its_children_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "child_of_a_story.py").write_text(CHILD)
    command = [sys.executable, "-c", PARENT.replace("print(", "sys.stdout and print("), str(tmp_path), '["ends", "7"]']
    closed = ["sh", "-c", 'exec "$@" >&- 2>&-', "sh", *command]
    assert subprocess.run(closed, cwd=ROOT, stdin=subprocess.DEVNULL, timeout=60, check=False).returncode == 0

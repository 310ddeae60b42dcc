"""git clones, fetches and pushes over smart HTTP through the router."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.clients.git_server import git_server
from tests.clients.house import House, house_of, noise
from tests.clients.programs import Done, needs, run

POST_BUFFER = 1 << 18
"""git sends a request in chunks when it is larger (http.postBuffer of git-config; less than 65,520 bytes: always)."""
SECONDS = itertools.count(1_700_000_000)
LARGE = noise(6 << 20, "large")


def has_http_backend() -> bool:
    try:
        path = subprocess.run(["git", "--exec-path"], capture_output=True, check=True, timeout=10).stdout.decode()
    except (OSError, subprocess.SubprocessError):
        return False
    return Path(path.strip(), "git-http-backend").exists()


pytestmark = [
    needs("git", "git"),
    pytest.mark.skipif(not has_http_backend(), reason="git http-backend is not installed: apt-get install git"),
]


@dataclass
class Hosting:
    """A router before a host of repositories, and a place to work."""

    house: House
    repositories: Path
    desk: Path

    def url(self, name: str) -> str:
        return f"{self.house.url}/{name}.git"

    def create(self, name: str, **files: bytes) -> Path:
        """A new repository on the host, with one commit of these files."""
        bare = self.repositories / f"{name}.git"
        git("init", "--bare", "-b", "main", bare)
        git("-C", bare, "config", "http.receivepack", "true")
        work = self.desk / f"{name}-begun"
        git("clone", bare, work)
        commit(work, "the beginning", **files)
        git("-C", work, "push", "origin", "main")
        return bare


def git(*words: str | Path, check: bool = True, date: str = "") -> Done:
    settings = ("user.name=victor", "user.email=victor@example.com", f"http.postBuffer={POST_BUFFER}")
    environment = {
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C",
    }
    if date:
        environment["GIT_COMMITTER_DATE"] = date
    return run("git", *(word for setting in settings for word in ("-c", setting)), *words, check=check, env=environment)


def commit(work: Path, message: str, **files: bytes) -> str:
    """Write files and commit them; the commit's name. What git asks for first depends on dates: each has its own."""
    for name, content in files.items():
        (work / name).write_bytes(content)
    git("-C", work, "add", ".")
    git("-C", work, "commit", "-m", message, date=f"{next(SECONDS)} +0000")
    return head(work)


def head(repository: Path, name: str = "main") -> str:
    return git("-C", repository, "rev-parse", name).out.decode().strip()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[House, Path]]:
    repositories = tmp_path_factory.mktemp("repositories")
    with house_of(tmp_path_factory.mktemp("router"), git_server(repositories)) as house:
        yield house, repositories


@pytest.fixture
def hosting(running: tuple[House, Path], tmp_path: Path) -> Hosting:
    house, repositories = running
    house.forget()
    return Hosting(house, repositories, tmp_path)


def test_git_clones(hosting: Hosting) -> None:
    bare = hosting.create("cloned", small=b"small\n", large=LARGE)
    copy = hosting.desk / "copy"
    git("clone", hosting.url("cloned"), copy)
    assert (copy / "large").read_bytes() == LARGE
    assert head(copy) == head(bare)
    git("-C", copy, "fsck", "--strict")
    refs = hosting.house.one("/cloned.git/info/refs")
    assert (refs.target, refs.headers["Git-Protocol"]) == (
        "/cloned.git/info/refs?service=git-upload-pack", "version=2",
    )  # fmt: skip
    assert [seen.method for seen in hosting.house.at("/cloned.git/git-upload-pack")] == ["POST", "POST"]


def test_git_clones_the_tip_alone_and_then_the_rest(hosting: Hosting) -> None:
    bare = hosting.create("deep", file=b"0")
    begun = hosting.desk / "deep-begun"
    for n in range(1, 30):
        commit(begun, f"step {n}", file=b"%d" % n)
    git("-C", begun, "push", "origin", "main")
    copy = hosting.desk / "copy"
    git("clone", "--depth", "1", hosting.url("deep"), copy)
    assert git("-C", copy, "rev-list", "--count", "main").out == b"1\n"
    git("-C", copy, "fetch", "--unshallow")
    assert git("-C", copy, "rev-list", "--count", "main").out == b"30\n"
    assert head(copy) == head(bare)
    assert all(seen.version == "v1" for seen in hosting.house.at("/deep.git/git-upload-pack"))


def test_git_pushes_a_little_and_fetches_it_elsewhere(hosting: Hosting) -> None:
    bare = hosting.create("small", file=b"1")
    here, there = hosting.desk / "here", hosting.desk / "there"
    git("clone", hosting.url("small"), here)
    git("clone", hosting.url("small"), there)
    hosting.house.forget()
    pushed = commit(here, "two", file=b"2")
    git("-C", here, "push", "origin", "main")
    assert head(bare) == pushed
    (received,) = hosting.house.at("/small.git/git-receive-pack")
    assert received.headers["Content-Length"] == str(len(received.body))
    git("-C", there, "pull", "--ff-only", "origin", "main")
    assert head(there) == pushed
    assert (there / "file").read_bytes() == b"2"


def test_git_pushes_in_chunks_what_does_not_fit_its_buffer(hosting: Hosting) -> None:
    bare = hosting.create("large", file=b"1")
    here = hosting.desk / "here"
    git("clone", hosting.url("large"), here)
    hosting.house.forget()
    pushed = commit(here, "a film", film=LARGE)
    git("-C", here, "push", "origin", "main")
    assert head(bare) == pushed
    git("-C", bare, "fsck", "--strict")
    assert git("-C", bare, "cat-file", "blob", "main:film").out == LARGE
    probe, pack = hosting.house.at("/large.git/git-receive-pack")
    assert probe.body == b"0000"  # git asks first whether it may, before it sends what it could not send again
    assert pack.headers.getall("Transfer-Encoding") == ["chunked"]
    assert "Content-Length" not in pack.headers
    assert len(pack.body) > len(LARGE)


def test_git_asks_with_a_compressed_body_when_it_has_much_to_say(hosting: Hosting) -> None:
    bare = hosting.create("talkative", file=b"0")
    here = hosting.desk / "here"
    git("clone", hosting.url("talkative"), here)
    for n in range(60):
        commit(here, f"mine {n}", mine=b"%d" % n)
    theirs = commit(hosting.desk / "talkative-begun", "theirs", theirs=b"1")
    git("-C", hosting.desk / "talkative-begun", "push", "origin", "main")
    hosting.house.forget()
    git("-C", here, "fetch", "origin")
    assert head(here, "origin/main") == head(bare) == theirs
    asked = hosting.house.at("/talkative.git/git-upload-pack")
    assert "gzip" in {seen.headers.get("Content-Encoding") for seen in asked}


def test_git_hears_that_there_is_no_such_repository(hosting: Hosting) -> None:
    done = git("ls-remote", hosting.url("nowhere"), check=False)
    assert done.code == 128
    assert "not found" in done.err
    assert hosting.house.one("/nowhere.git/info/refs").method == "GET"

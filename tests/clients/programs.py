"""Programs that are real clients: run with a deadline, and with nothing of the user's own configuration."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.clients.house import CLEAN

DEADLINE_SECONDS = 60


@dataclass(frozen=True)
class Done:
    """What a program said."""

    code: int
    out: bytes
    err: str


def run(
    *words: str | Path,
    stdin: bytes = b"",
    cwd: Path | None = None,
    check: bool = True,
    env: Mapping[str, str] | None = None,
) -> Done:
    """Run a program to its end. ``env`` is added to a clean environment."""
    done = subprocess.run(
        words,
        input=stdin,
        capture_output=True,
        cwd=cwd,
        env=CLEAN | dict(env or {}),
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    said = Done(done.returncode, done.stdout, done.stderr.decode(errors="replace"))
    assert said.code == 0 or not check, (words, said.code, said.err, said.out[-2000:])
    return said


def needs(program: str, package: str) -> pytest.MarkDecorator:
    """Skips where a program is not installed, and says what to install."""
    return pytest.mark.skipif(
        shutil.which(program) is None, reason=f"{program} is not installed: apt-get install {package}"
    )

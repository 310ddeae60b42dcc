"""A moment of fuzzing in every run: long enough to find what a careless change breaks. `make fuzz` takes longer."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

SECONDS = 10
REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this machine")
def test_no_bytes_from_either_side_break_the_wire() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.wire", f"-max_total_time={SECONDS}", "-verbosity=0", "-print_final_stats=1"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=SECONDS + 60,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]

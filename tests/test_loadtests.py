"""Load tests are not run here, but what they take from the router has to be there."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "loadtests"
NEEDS_MORE = {"locustfile", "plots"}
"""What the extra [bench] installs."""
MODULES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in NEEDS_MORE)


@pytest.mark.parametrize("name", MODULES)
def test_a_load_test_finds_what_it_uses(name: str) -> None:
    importlib.import_module(f"loadtests.{name}")

"""The dashboard's files: plain, small, whole, and in what is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from router.admin import static

ROOT = Path(__file__).parent.parent
FILES = sorted(path for path in static.DIRECTORY.rglob("*") if path.is_file())
MODULES = [path for path in FILES if path.suffix == ".mjs"]
MOST_BYTES = 100_000
MOST_LINES = 400


def name_of(path: Path) -> str:
    return path.relative_to(static.DIRECTORY).as_posix()


def test_all_of_it_is_served_and_takes_less_than_a_hundred_kilobytes() -> None:
    assets = static.load_assets()
    assert set(assets) == {name_of(path) for path in FILES}
    assert "index.html" in assets
    assert sum(len(asset.packed or asset.body) for asset in assets.values()) < MOST_BYTES


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_is_one_idea(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MOST_LINES


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_is_typed_imports_what_is_there_and_takes_no_text_for_markup(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("// @ts-check\n/**")
    for name in re.findall(r'(?:from|import)\s*\(?"([^"]+)"', text):
        assert name.startswith("."), name
        assert (path.parent / name).is_file(), name
    for forbidden in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "new Function",
        '"style"',
    ):
        assert forbidden not in text, forbidden


def test_nothing_is_fetched_from_elsewhere() -> None:
    for path in FILES:
        found = set(re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}", path.read_text()))
        assert found <= {"http://www.w3.org"}, path


def test_the_page_has_nothing_inline() -> None:
    page = (static.DIRECTORY / "index.html").read_text()
    assert not re.search(r"\son[a-z]+=|\sstyle=|<style|<script(?![^>]*\ssrc=)", page)


def test_an_installed_router_has_all_of_it(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "router", tmp_path / "router", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    build = "from setuptools.build_meta import build_wheel; print(build_wheel('.'))"
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("router/admin/static/")}
    assert inside == {f"router/admin/static/{name_of(path)}" for path in FILES}

"""Results: what was measured, on what, and when; as JSON and as a table."""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import platform
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from loadtests.rig import CORES, LOAD_CORE, PROXY_CORE, ROOT, RigError

RESULTS: Final = Path(__file__).resolve().parent / "results"


def spread(values: Iterable[float]) -> dict[str, float]:
    """Median and range."""
    ordered = sorted(values)
    return {"median": statistics.median(ordered), "min": ordered[0], "max": ordered[-1]}


def shown(value: dict[str, float], digits: int = 1) -> str:
    said = f"{value['median']:,.{digits}f} ({value['min']:,.{digits}f}–{value['max']:,.{digits}f})"
    return said.replace("-", "−")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    for row in (head, ["-" * width for width in widths], *rows):
        cells = (
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        print("| " + " | ".join(cells) + " |")


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, cwd=ROOT, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr


def is_compiled() -> bool:
    """Whether the router that is measured has its native code: ``make compiled``, and PYTHONPATH names it."""
    return "(compiled)" in _router_version()


def _router_version() -> str:
    return _output(str(Path(sys.executable).with_name("ring-router")), "version").strip()


def versions(envoy: Path | None = None) -> dict[str, str]:
    """Of everything that takes part."""
    found = {"python": platform.python_version(), "ring-router": _router_version().partition(",")[0].partition(" ")[2]}
    for package in ("uvloop", "aiohttp", "msgspec"):
        found[package] = importlib.metadata.version(package)
    programs = {"nginx": ("nginx", "-v"), "haproxy": ("haproxy", "-v"), "wrk": ("wrk", "-v")}
    if envoy is not None:
        programs["envoy"] = (str(envoy), "--version")
    for name, command in programs.items():
        if shutil.which(command[0]):
            number = re.search(r"\d+\.\d+\.\d+", _output(*command))
            found[name] = number[0] if number else "?"
    return found


def machine() -> dict[str, Any]:
    model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return {
        "cores": CORES,
        "model": model[1].strip() if model else platform.machine(),
        "kernel": platform.release(),
        "proxy_core": PROXY_CORE,
        "load_core": LOAD_CORE,
    }


def save(name: str, options: argparse.Namespace, found: dict[str, Any], envoy: Path | None = None) -> None:
    """Write loadtests/results/NAME.json."""
    changed = _output("git", "status", "--porcelain", "--", "router").strip()
    document = {
        "name": name,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": _output("git", "rev-parse", "--short=12", "HEAD").strip() + ("+changes" if changed else ""),
        "machine": machine(),
        "versions": versions(envoy),
        "options": vars(options),
        **found,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(_rounded(document), indent=2, ensure_ascii=False) + "\n")
    print(f"\nWritten: {path.relative_to(ROOT)}")


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value


def parser(what: str, rounds: int = 5, seconds: float = 10) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=what, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    made.add_argument("--rounds", type=int, default=rounds, help="rounds; each contestant has a turn in each")
    made.add_argument("--seconds", type=float, default=seconds, help="length of one turn")
    return made


def run(main: Callable[[], None]) -> None:
    """Run a load test; what it cannot do is one line, not a traceback."""
    try:
        main()
    except RigError as error:
        sys.exit(f"stopped: {error}")
    except subprocess.TimeoutExpired as error:
        sys.exit(f"stopped: {Path(error.cmd[0]).name} did not end within {error.timeout:g} s")
    except KeyboardInterrupt:
        sys.exit("stopped by Ctrl-C; every process this run started has ended")

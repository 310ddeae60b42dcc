"""The ``ring-router`` command's first step: a probe must not wait for click to load."""

from __future__ import annotations

import sys


def main() -> None:
    """``healthcheck`` at once, everything else through click."""
    if sys.argv[1:2] == ["healthcheck"]:
        from router.cli import probe

        raise SystemExit(probe.main(sys.argv[2:]))
    from router.cli.main import main as commands

    commands(prog_name="ring-router")

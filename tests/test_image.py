"""The Dockerfile, step by step in a clean root: deploy/image/prove."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

PROVE = Path(__file__).parent.parent / "deploy" / "image" / "prove"
MISSING = [name for name in ("debootstrap", "buildah", "bwrap", "jq") if shutil.which(name) is None]


@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason="apt-get install debootstrap buildah bubblewrap jq")
@pytest.mark.skipif(os.geteuid() != 0, reason="debootstrap needs root")
def test_the_image_runs_as_nobody_with_a_root_that_is_read_only() -> None:
    done = subprocess.run([PROVE], capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stdout + done.stderr
    for said in ("uid 10001", "healthcheck: ready", "version v1", "stopped: exit code 0"):
        assert said in done.stdout

"""pip installs a package from an index behind the router."""

from __future__ import annotations

import base64
import hashlib
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web

from tests.clients.house import House, Seen, Serve, house_of, noise, sha256
from tests.clients.programs import Done, run
from tests.clients.website import recording, site

NAME = "tiny_ring-1.0-py3-none-any.whl"
INDEX_JSON = "application/vnd.pypi.simple.v1+json"
DATA = noise(4 << 20, "wheel")


def wheel(path: Path) -> None:
    """A wheel by hand (PEP 427): one module, 4 MiB of data, and the three files that say what it is."""
    files = {
        "tiny_ring/__init__.py": b"GREETING = 'hello from the wheel'\n",
        "tiny_ring/data.bin": DATA,
        "tiny_ring-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: tiny-ring\nVersion: 1.0\n",
        "tiny_ring-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nGenerator: a test\n"
        b"Root-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "tiny_ring-1.0.dist-info/RECORD"
    lines = [f"{name},sha256={_digest(content)},{len(content)}\n" for name, content in files.items()]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        archive.writestr(record, "".join([*lines, f"{record},,\n"]))


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")


def index(package: Path) -> Serve:
    """A simple index (PEP 503) of one package, in each version."""
    link = f'<a href="/packages/{NAME}#sha256={sha256(package.read_bytes())}">{NAME}</a>'

    async def project(_: web.Request) -> web.Response:
        return web.Response(text=f"<!DOCTYPE html><html><body>{link}</body></html>", content_type="text/html")

    def serve(version: str, seen: list[Seen]) -> web.Application:
        app = recording(version, seen)
        app.router.add_get("/simple/tiny-ring/", project)
        app.router.add_static("/packages", package.parent)
        return app

    return lambda version, seen: site(serve(version, seen))


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    package = tmp_path_factory.mktemp("packages") / NAME
    wheel(package)
    with house_of(tmp_path_factory.mktemp("router"), index(package)) as house:
        yield house


def pip(*words: str | Path, check: bool = True) -> Done:
    return run(
        sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-cache-dir", *words,
        check=check, env={"PIP_CONFIG_FILE": "/dev/null"},
    )  # fmt: skip


def test_pip_installs_a_package_that_then_works(house: House, tmp_path: Path) -> None:
    target = tmp_path / "target"
    pip("install", "--index-url", f"{house.url}/simple", "--no-deps", "--target", target, "tiny-ring==1.0")
    said = run(sys.executable, "-c", "import tiny_ring; print(tiny_ring.GREETING)", env={"PYTHONPATH": str(target)})
    assert said.out == b"hello from the wheel\n"
    assert (target / "tiny_ring" / "data.bin").read_bytes() == DATA
    asked = house.one("/simple/tiny-ring/")
    assert asked.headers["User-Agent"].startswith("pip/")
    assert INDEX_JSON in asked.headers["Accept"]
    fetched = house.one(f"/packages/{NAME}")
    assert fetched.headers["Accept-Encoding"] == "identity"


def test_pip_hears_that_there_is_no_such_package(house: House) -> None:
    done = pip(
        "download", "--index-url", f"{house.url}/simple", "--no-deps", "--retries", "0", "no-such-ring", check=False
    )
    assert done.code == 1
    assert "No matching distribution found for no-such-ring" in done.err
    assert house.one("/simple/no-such-ring/").method == "GET"

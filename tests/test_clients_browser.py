"""A browser (Debian's chromium, headless) loads pages through the router and says in the DOM what it got."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.house import House, house_of
from tests.clients.page import EACH, KINDS, pages, resources
from tests.clients.programs import needs, run

pytestmark = needs("chromium", "chromium")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house_of(tmp_path_factory.mktemp("router"), pages()) as house:
        yield house


@pytest.fixture
def house(running: House) -> House:
    running.forget()
    return running


def result(url: str, profile: Path) -> str:
    """What the page's script has written into the DOM by the time that the page is loaded."""
    done = run(
        "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-proxy-server",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", f"--user-data-dir={profile}", "--dump-dom", url,
        env={"HOME": str(profile)},
    )  # fmt: skip
    dom = done.out.decode()
    return dom.partition('<p id="result">')[2].partition("</p>")[0]


def test_a_page_with_a_hundred_subresources_gets_each_of_them_once(house: House, tmp_path: Path) -> None:
    assert json.loads(result(f"{house.url}/hundred", tmp_path)) == dict.fromkeys(KINDS, EACH)
    fetched = Counter(seen.path for seen in house.seen)
    assert len(resources()) == 100
    assert {path: fetched[path] for path in resources()} == dict.fromkeys(resources(), 1)
    assert house.one("/hundred").headers["User-Agent"].startswith("Mozilla/5.0")
    assert all(house.one(path).version == "v1" for path in resources())


def test_a_page_hears_events_one_by_one(house: House, tmp_path: Path) -> None:
    assert result(f"{house.url}/listening", tmp_path) == "first second last"
    assert house.one("/events").headers["Accept"] == "text/event-stream"
    assert len(house.at("/ack")) == 2


def test_a_page_talks_over_a_websocket(house: House, tmp_path: Path) -> None:
    assert result(f"{house.url}/talking", tmp_path) == "hello yourself"
    assert house.one("/chat").headers["Upgrade"] == "websocket"
    assert house.one("/chat").headers["Origin"] == house.url

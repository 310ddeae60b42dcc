"""curl through the router: what its options do to a request, and what of it reaches the version."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.house import House, house_of, noise, sha256
from tests.clients.programs import Done, needs, run
from tests.clients.website import REFUSED_OVER, TEXT, website

pytestmark = needs("curl", "curl")

FILE = noise(3 << 20, "file")
BIG = noise(8 << 20, "big")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    files = tmp_path_factory.mktemp("files")
    (files / "film.bin").write_bytes(FILE)
    with house_of(tmp_path_factory.mktemp("router"), website(files)) as house:
        yield house


@pytest.fixture
def house(running: House) -> House:
    running.forget()
    return running


def curl(*words: str | Path, stdin: bytes = b"", check: bool = True) -> Done:
    return run(
        "curl", "-q", "--silent", "--show-error", "--noproxy", "*", "--max-time", "30", *words, stdin=stdin, check=check
    )


@pytest.fixture
def big(tmp_path: Path) -> Path:
    file = tmp_path / "big.bin"
    file.write_bytes(BIG)
    return file


def test_curl_sends_a_big_body_when_the_version_says_100_continue(house: House, big: Path) -> None:
    # Left alone, curl sends the body after a second without an answer; here it waits for longer than it may take.
    done = curl("-v", "-T", big, "-H", "Expect: 100-continue", "--expect100-timeout", "60", f"{house.url}/upload")
    heads = done.err.partition("< HTTP/1.1 200 OK")[0]
    assert heads.count("< HTTP/1.1 100 Continue") == 1
    assert "< X-Said-By: v1" in heads
    assert json.loads(done.out) == {"sha256": sha256(BIG), "length": len(BIG), "version": "v1"}
    seen = house.one("/upload")
    assert seen.headers["Expect"] == "100-continue"
    assert seen.headers["Content-Length"] == str(len(BIG))
    assert seen.body == BIG


def test_curl_keeps_a_big_body_to_itself_when_the_version_refuses_it(house: House, big: Path) -> None:
    assert len(BIG) > REFUSED_OVER
    done = curl(
        "-T", big, "-H", "Expect: 100-continue", "--expect100-timeout", "60",
        "-w", " %{http_code} %{size_upload}", f"{house.url}/guarded",
    )  # fmt: skip
    assert done.out == b"no, thank you 413 0"
    assert house.one("/guarded").body == b""


def test_curl_reads_the_ranges_it_asks_for(house: House) -> None:
    for asked, got, there in (
        ("100-199", FILE[100:200], "100-199"),
        ("-50", FILE[-50:], f"{len(FILE) - 50}-{len(FILE) - 1}"),
        ("3000000-", FILE[3_000_000:], f"3000000-{len(FILE) - 1}"),
    ):
        house.forget()
        done = curl("-r", asked, "-D", "/dev/stderr", f"{house.url}/files/film.bin")
        assert done.out == got
        assert done.err.startswith("HTTP/1.1 206 Partial Content\r\n")
        assert f"Content-Range: bytes {there}/{len(FILE)}\r\n" in done.err
        assert house.one("/files/film.bin").headers["Range"] == f"bytes={asked}"


def test_curl_learns_that_a_range_cannot_be_had(house: House) -> None:
    done = curl("-r", f"{len(FILE)}-", "-o", "/dev/null", "-w", "%{http_code}", f"{house.url}/files/film.bin")
    assert done.out == b"416"
    assert house.one("/files/film.bin").headers["Range"] == f"bytes={len(FILE)}-"


def test_curl_resumes_a_download(house: House, tmp_path: Path) -> None:
    copy = tmp_path / "film.bin"
    copy.write_bytes(FILE[:1_000_000])
    curl("-C", "-", "-o", copy, f"{house.url}/files/film.bin")
    assert copy.read_bytes() == FILE
    assert house.one("/files/film.bin").headers["Range"] == "bytes=1000000-"


def test_curl_does_not_fetch_again_what_it_has(house: House, tmp_path: Path) -> None:
    copy, etag = tmp_path / "film.bin", tmp_path / "etag"
    url = f"{house.url}/files/film.bin"
    curl("--etag-save", etag, "-o", copy, url)
    again = curl("--etag-compare", etag, "-o", copy, "-w", "%{http_code} %{size_download}", url)
    assert again.out == b"304 0"
    assert copy.read_bytes() == FILE
    first, second = house.at("/files/film.bin")
    assert "If-None-Match" not in first.headers
    assert second.headers["If-None-Match"] == etag.read_text().strip()


def test_curl_that_speaks_http10_gets_a_body_that_ends_with_the_connection(house: House) -> None:
    done = curl("-0", "-D", "/dev/stderr", "-w", "%{http_version}", f"{house.url}/stream?pieces=20")
    assert done.out[:-3] == b"".join(noise(1 << 16, f"piece {n}") for n in range(20))
    assert "transfer-encoding" not in done.err.lower()
    seen = house.one("/stream")
    assert (seen.method, seen.http) == ("GET", "1.1")


def test_curl_that_speaks_http10_uploads(house: House, big: Path) -> None:
    done = curl("-0", "-T", big, f"{house.url}/upload")
    assert json.loads(done.out)["sha256"] == sha256(BIG)
    assert house.one("/upload").body == BIG


def test_curl_uses_one_connection_for_several_urls(house: House) -> None:
    urls = [f"{house.url}/hello?n={n}" for n in range(5)]
    done = curl("--http1.1", "-w", " connects=%{num_connects}\n", *urls)
    assert done.out.decode().splitlines() == [f"hello from v1: {n} connects={1 if n == 0 else 0}" for n in range(5)]
    assert [seen.target for seen in house.at("/hello")] == [f"/hello?n={n}" for n in range(5)]


def test_curl_keeps_its_connection_between_different_kinds_of_request(house: House) -> None:
    new = ["--next", "--silent", "--noproxy", "*", "--max-time", "20", "-w", " %{num_connects}\n"]
    done = curl(
        "-w", " %{num_connects}\n", "-I", "-o", "/dev/null", f"{house.url}/hello",
        *new, "--data", "a=1", f"{house.url}/upload",
        *new, "-T", "-", f"{house.url}/upload",
        *new, f"{house.url}/stream?pieces=3", "-o", "/dev/null",
        *new, "-X", "POST", "-o", "/dev/null", f"{house.url}/ack/nobody",
        *new, f"{house.url}/hello",
        stdin=b"from stdin",
    )  # fmt: skip
    assert [line.rsplit(b" ", 1)[1] for line in done.out.splitlines()] == [b"1", b"0", b"0", b"0", b"0", b"0"]
    assert [seen.method for seen in house.seen] == ["HEAD", "POST", "PUT", "GET", "POST", "GET"]
    assert [seen.body for seen in house.at("/upload")] == [b"a=1", b"from stdin"]


def test_curl_uploads_chunks_from_standard_input(house: House) -> None:
    done = curl("-T", "-", f"{house.url}/upload", stdin=BIG)
    assert json.loads(done.out) == {"sha256": sha256(BIG), "length": len(BIG), "version": "v1"}
    seen = house.one("/upload")
    assert seen.headers.getall("Transfer-Encoding") == ["chunked"]
    assert "Content-Length" not in seen.headers
    assert seen.body == BIG


def test_curl_asks_for_the_head_alone(house: House) -> None:
    done = curl("-I", f"{house.url}/files/film.bin", f"{house.url}/hello")
    heads = done.out.decode().split("\r\n\r\n")
    assert heads[2] == ""
    assert [head.partition("\r\n")[0] for head in heads[:2]] == ["HTTP/1.1 200 OK"] * 2
    assert f"Content-Length: {len(FILE)}\r\n" in heads[0]
    assert all("X-Ring: everyone" in head for head in heads[:2])
    assert house.one("/files/film.bin").method == house.one("/hello").method == "HEAD"


def test_curl_unpacks_what_the_version_compressed(house: House) -> None:
    done = curl("--compressed", "-w", "%{size_download}", f"{house.url}/text")
    assert done.out.startswith(TEXT.encode())
    assert int(done.out[len(TEXT) :]) < len(TEXT) / 10
    assert "gzip" in house.one("/text").headers["Accept-Encoding"]


def test_curl_sends_a_form_with_files(house: House, big: Path) -> None:
    done = curl("-F", "name=victor", "-F", f"film=@{big}", f"{house.url}/form")
    assert json.loads(done.out) == {"name": sha256(b"victor"), "film": sha256(BIG)}
    assert house.one("/form").headers["Content-Type"].startswith("multipart/form-data; boundary=")


def test_curl_keeps_its_cookies_in_a_jar(house: House, tmp_path: Path) -> None:
    jar = tmp_path / "jar"
    curl("-c", jar, "-b", "old=1", f"{house.url}/cookies/set")
    done = curl("-b", jar, f"{house.url}/cookies")
    assert json.loads(done.out) == {"session": "s-1", "basket": "b-2"}
    assert house.one("/cookies/set").headers["Cookie"] == "old=1"
    assert set(house.one("/cookies").headers["Cookie"].split("; ")) == {"session=s-1", "basket=b-2"}


def test_curl_follows_a_redirect_and_sends_the_body_again(house: House) -> None:
    done = curl("-L", "--data", "a=1", "-w", " %{num_redirects} %{num_connects}", f"{house.url}/elsewhere/upload")
    body, redirects, _ = done.out.rsplit(b" ", 2)
    assert (json.loads(body)["length"], redirects) == (3, b"1")
    assert house.one("/upload").body == b"a=1"
    assert house.one("/elsewhere/upload").method == "POST"


def test_curl_fetches_two_hundred_things_at_once(house: House, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("".join(f'url = "{house.url}/hello?n={n}"\noutput = "{tmp_path}/{n}.txt"\n' for n in range(200)))
    curl("--parallel", "--parallel-max", "30", "-K", config)
    assert [(tmp_path / f"{n}.txt").read_text() for n in range(200)] == [f"hello from v1: {n}" for n in range(200)]
    assert sorted(int(seen.target.partition("=")[2]) for seen in house.at("/hello")) == list(range(200))


def test_curl_that_offers_http2_is_answered_in_http11(house: House) -> None:
    done = curl("--http2", "-w", " %{http_version}", f"{house.url}/hello")
    assert done.out == b"hello from v1:  1.1"
    headers = house.one("/hello").headers
    assert not {"Upgrade", "HTTP2-Settings"} & set(headers)
    assert "upgrade" not in headers.get("Connection", "").lower()


def test_curl_that_takes_the_router_for_its_proxy_is_served(house: House) -> None:
    done = run("curl", "-q", "-sS", "--max-time", "20", "-x", house.url, f"{house.url}/hello?n=1")
    assert done.out == b"hello from v1: 1"
    assert house.one("/hello").target == "/hello?n=1"
    assert "Proxy-Connection" not in house.one("/hello").headers


def test_curl_moves_to_the_other_version_with_a_header(house: House) -> None:
    done = curl("-D", "/dev/stderr", "-H", "X-Ring: canary", "-T", "-", f"{house.url}/upload", stdin=b"v2?")
    assert json.loads(done.out)["version"] == "v2"
    assert "X-Ring: canary\r\nX-Ring-Version: v2\r\n" in done.err
    assert house.one("/upload").body == b"v2?"

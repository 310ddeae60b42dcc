"""What a client is told when the router answers: one table, complete; text, JSON or the service's own page."""

from __future__ import annotations

import json
from http import HTTPStatus
from pathlib import Path

import pytest

from router.config.load import parse_settings
from router.core.spec import ErrorPageSpec
from router.proxy.failures import Failure, render, wants_json
from tests.house import fixed, header, raw_backend, running_plane, shop, snapshot

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n%bConnection: close\r\n\r\n"


def test_every_failure_has_a_word_of_its_own_a_status_and_a_sentence() -> None:
    answers = [failure.value for failure in Failure]
    assert len({answer.word for answer in answers}) == len(answers) == len(Failure.__members__)
    for name, failure in Failure.__members__.items():
        answer = failure.value
        assert answer.word == answer.word.lower() == name.lower().replace("failed_", "failed_"), name
        assert answer.word.replace("_", "").isalpha()
        assert answer.status == HTTPStatus(answer.status)
        assert 400 <= answer.status < 600
        assert answer.sentence.endswith(".")
        assert answer.sentence[0].isupper()
        if answer.retryable:  # RFC 9110 §9.2.2: only where nothing was done, so never after the backend has begun
            assert failure not in (Failure.UPSTREAM_RESET, Failure.UPSTREAM_PROTOCOL, Failure.UPSTREAM_TIMEOUT)


@pytest.mark.parametrize("failure", list(Failure), ids=lambda failure: failure.value.word)
@pytest.mark.parametrize("head_only", [False, True])
@pytest.mark.parametrize("accept", [b"", b"application/json"])
def test_every_failure_is_a_whole_response(failure: Failure, head_only: bool, accept: bytes) -> None:
    answer = failure.value
    raw = render(failure, b'id-"1', close=answer.closes, head_only=head_only, lines=b"X-Ring: a", accept=accept)
    head, _, body = raw.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % answer.status)
    length = int(header(raw, "content-length")[0])
    assert length > 0
    assert len(body) == (0 if head_only else length)
    assert header(raw, "x-request-id") == ['id-"1']
    assert header(raw, "cache-control") == ["no-store"]
    assert header(raw, "x-ring") == ["a"]
    assert ("close" in header(raw, "connection")) == answer.closes
    assert len(header(raw, "date")) == 1
    if accept:
        assert header(raw, "content-type") == ["application/json"]
        if not head_only:
            assert json.loads(body) == {
                "status": answer.status, "error": answer.word, "message": answer.sentence, "request_id": 'id-"1',
            }  # fmt: skip
    else:
        assert header(raw, "content-type") == ["text/plain; charset=utf-8"]
        assert head_only or body.startswith(f"{answer.status} {answer.word}: {answer.sentence}".encode())


def test_some_statuses_ask_for_a_field() -> None:
    def fields(failure: Failure, name: str) -> list[str]:
        return header(render(failure, b"1", close=True), name)

    assert "GET" in fields(Failure.METHOD_REFUSED, "allow")[0]  # RFC 9110 §15.5.6
    assert fields(Failure.UPGRADE_REQUIRED, "sec-websocket-version") == ["13"]  # RFC 6455 §4.4


def test_upgrade_required_names_the_protocol() -> None:
    """RFC 9110 §15.5.22: the server MUST send Upgrade in a 426; §7.8: and nominate it in Connection."""
    raw = render(Failure.UPGRADE_REQUIRED, b"1", close=True)
    assert header(raw, "upgrade") == ["websocket"]
    assert "upgrade" in ", ".join(header(raw, "connection")).lower()


@pytest.mark.parametrize(
    ("accept", "is_json"),
    [
        (b"", False),
        (b"*/*", False),
        (b"application/json", True),
        (b"Application/JSON; charset=utf-8", True),
        (b"application/problem+json", True),
        (b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", False),
        (b"text/html, application/json", False),
        (b"application/json, text/html", True),
        (b"application/json;q=0", False),
        (b"application/json; q=0.000, */*", False),
        (b"application/json;Q=0, text/html", False),
        (b"application/json;q=0.", False),
        (b"application/json;charset=utf-8;q=0", False),
        (b"application/json ; q=0", False),
        (b"text/html;q=0, application/json", True),
        (b"application/json;q=0.001", True),
        (b"application/jsonp", False),
        (b"\xff, application/json", True),
    ],
)
def test_json_is_for_those_who_ask_for_it_before_text(accept: bytes, is_json: bool) -> None:
    assert wants_json(accept) is is_json


async def test_the_routers_own_words_are_text_json_or_a_page_and_never_name_the_backend() -> None:
    async with raw_backend(fixed(OK)) as gone:
        pass
    pages = (
        ErrorPageSpec(502, "text/html; charset=utf-8", b"<h1>sorry</h1>"),
        ErrorPageSpec(503, "text/html; charset=utf-8", b"<h1>sorry</h1>"),
        ErrorPageSpec(413, "application/json", b"{}"),
    )
    service = shop((gone,), (gone,), error_pages=pages, hosts=("a",), body_bytes=1)
    async with running_plane(snapshot(service)) as router:
        page = await router.ask(GET % b"")
        assert page.endswith(b"\r\n\r\n<h1>sorry</h1>")
        assert header(page, "content-type") == ["text/html; charset=utf-8"]
        assert header(page, "x-ring") == ["everyone"]
        as_json = await router.ask(GET % b"Accept: text/plain;q=0\r\nAccept: application/json\r\nX-Request-Id: 7\r\n")
        assert json.loads(as_json.partition(b"\r\n\r\n")[2])["error"] == "no_endpoint"
        assert header(as_json, "x-request-id") == ["7"]
        head = await router.ask(GET.replace(b"GET", b"HEAD") % b"")
        assert head.endswith(b"\r\n\r\n")
        assert header(head, "content-length") == ["14"]
        large = await router.ask(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab")
        assert large.startswith(b"HTTP/1.1 413 ")
        assert large.endswith(b"\r\n\r\n{}")
        other = await router.ask(GET.replace(b"Host: a", b"Host: b") % b"Accept: application/json\r\n")
        assert header(other, "content-type") == ["application/json"]
        trace = await router.ask(GET.replace(b"GET", b"TRACE") % b"")
        assert trace.startswith(b"HTTP/1.1 405 ")
        assert "GET" in header(trace, "allow")[0]
        for answer in (page, as_json, head, large, other, trace):
            assert str(gone).encode() not in answer
            assert b"127.0.0.1" not in answer


async def test_every_failure_after_the_ring_is_counted_with_its_status_and_its_word() -> None:
    async with raw_backend(fixed(OK)) as gone:
        pass
    async with running_plane(snapshot(shop((gone,), (gone,), hosts=("a",)))) as router:
        await router.ask(GET % b"")
        await router.ask(GET.replace(b"Host: a", b"Host: b") % b"")
        counters = router.plane.collect()
        assert router.plane.tally.meter(("shop", "everyone", "v1")).codes == {502: 1}
        assert counters.router_answers == {"no_service": 1}
        assert counters.failures == {"connect_failed": 1}


CONFIG = """\
services:
  shop:
    versions: {{v1: {{endpoints: ["http://127.0.0.1:1"]}}}}
    rings: [{{name: everyone, version: v1}}]
    error_pages: {{{pages}}}
"""


def test_the_type_of_an_error_page_goes_by_its_suffix(tmp_path: Path) -> None:
    names = {"a.html": "text/html; charset=utf-8", "b.txt": "text/plain; charset=utf-8", "c.json": "application/json",
             "d": "text/html; charset=utf-8"}  # fmt: skip
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    pages = ", ".join(f"{500 + i}: {name}" for i, name in enumerate(names))
    settings = parse_settings(CONFIG.format(pages=pages), str(tmp_path / "router.yaml"))
    found = {path: settings.files.pages[path] for path in names}
    assert {path: kind for path, (kind, _) in found.items()} == names
    assert all(content == path.encode() for path, (_, content) in found.items())

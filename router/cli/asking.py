"""Words of a command line → a request as the proxy would see it."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote, urlsplit

import click

from router.core.identity import described
from router.core.request import Request


@dataclass(frozen=True, slots=True)
class Words:
    """What somebody asks about, as it was typed; empty or None is not said."""

    url: str | None = None
    host: str | None = None
    path: str | None = None
    query: str | None = None
    method: str = "GET"
    headers: tuple[str, ...] = ()
    cookies: tuple[str, ...] = ()
    client: str | None = None
    is_trusted: bool = False
    is_outbound: bool = False
    claims: tuple[str, ...] = ()
    certificate: tuple[str, ...] = ()
    at: str | None = None
    ring: str | None = None
    token: str | None = None
    """A pass."""
    propagated: str | None = None


def request_of(words: Words) -> Request:
    """The request as the proxy would see it: repeated headers joined, cookies apart, host without its port."""
    fields = []
    for line in words.headers:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise click.UsageError(f"a header is written 'Name: value', not {line!r}")
        fields.append((to_bytes(name), to_bytes(value)))
    for cookie in words.cookies:
        if not cookie.partition("=")[1]:
            raise click.UsageError(f"a cookie is written 'name=value', not {cookie!r}")
        fields.append((b"cookie", to_bytes(cookie)))
    named, target = _where(words)
    request = described(to_bytes(named or ""), to_bytes(target), fields, to_bytes(words.method))
    if words.query is not None:
        request.query = to_bytes(words.query.removeprefix("?"))
    request.client = to_bytes(words.client) if words.client is not None else b""
    request.is_trusted = words.is_trusted
    request.now = _moment(words.at)
    request.claims = _pairs(words.claims, "--claim")
    request.certificate = _pairs(words.certificate, "--certificate")
    for forcing, word in ((b"x-ring-override", words.ring), (b"x-ring-pass", words.token)):
        if word is not None:
            request.headers[forcing] = to_bytes(word)
    if words.propagated is not None:
        request.headers[b"baggage"] = b"ring=" + quote(words.propagated, safe="").encode()
    return request


def _where(words: Words) -> tuple[str | None, str]:
    """Host, if it is said, and path with query."""
    if words.url is None:
        return words.host, words.path or "/"
    if words.host is not None or words.path is not None:
        raise click.UsageError("a URL has host and path already: leave out --host and --path")
    try:
        parts = urlsplit(words.url if "://" in words.url else f"//{words.url}")
        host = parts.hostname
    except ValueError:
        raise click.UsageError(f"{words.url!r} is no URL, such as https://shop.example.com/cart?x=1") from None
    return host or None, (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _moment(text: str | None) -> float:
    if text is None:
        return time.time()
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise click.UsageError(f"--at takes a time with its offset (RFC 3339), such as 2026-12-01T09:00Z, not {text!r}")
    return moment.timestamp()


def _pairs(words: tuple[str, ...], option: str) -> dict[str, tuple[bytes, ...]]:
    found: dict[str, tuple[bytes, ...]] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise click.UsageError(f"{option} is written NAME=VALUE, not {word!r}")
        found[name] = (*found.get(name, ()), to_bytes(value))
    return found


def to_bytes(word: str) -> bytes:
    """What was typed, as it would stand on the wire."""
    return os.fsencode(word)

"""The public keys of issuers that have a ``jwks_url``: fetched here and again and again, so that no worker ever asks.

A key set is taken whole (RFC 7517 §5) or not at all: an answer that is none, or that holds a secret (``kty: oct``, with
which everybody who reads it could sign), leaves the last good one in force, in memory and in the state directory.
Redirects are not followed: one could lead from https to http. It must never hold up the loop, and never press an
issuer: tokens that look forged bring the next fetch forward, because a key may be new, but to one in half a minute.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import aiohttp
import structlog

from router.config.files import wrong_key_set
from router.config.settings import Settings
from router.control.check import read_whole, words
from router.control.disk import Rejected, read_own, replace_whole
from router.telemetry.tasks import end, spawn

FETCH_SECONDS: Final = 5.0
FIRST_SECONDS: Final = 0.5
"""How long a start waits for all issuers together; the store gives Redis as long."""
MOST_BYTES: Final = 1024 * 1024
JITTER: Final = 0.1
RETRY_FIRST_SECONDS: Final = 1.0
RETRY_CAP_SECONDS: Final = 60.0
HURRY_SECONDS: Final = 30.0
"""Between two fetches, however many tokens are refused: anybody can send those."""
_FIELDS: Final = {"Accept": "application/jwk-set+json, application/json", "Accept-Encoding": "identity"}


class NoKeysError(Exception):
    """An answer without usable keys. ``reason`` is a stable word: unreachable, status, too_long, not_keys."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


async def fetch(url: str) -> str:
    """The JWK set at an address, as canonical JSON: the same keys in another order are the same text.

    Raises ``NoKeysError``.
    """
    try:
        async with (
            asyncio.timeout(FETCH_SECONDS),
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False) as session,
            session.get(url, headers=_FIELDS, allow_redirects=False) as answer,
        ):
            if 300 <= answer.status < 400:
                raise NoKeysError("status", f"it answers {answer.status}, and redirects are not followed")
            if answer.status != 200:
                raise NoKeysError("status", f"it answers {answer.status}")
            content = await read_whole(answer.content, MOST_BYTES)
            if content is None:
                raise NoKeysError("too_long", f"its answer is longer than {MOST_BYTES // 1024} KiB")
    except TimeoutError:
        raise NoKeysError("unreachable", f"no answer within {FETCH_SECONDS:g} s") from None
    except (OSError, aiohttp.ClientError, ValueError) as error:
        raise NoKeysError("unreachable", words(error)) from None
    text = content.decode("utf-8", "replace")
    if why := wrong_key_set(text):
        raise NoKeysError("not_keys", why)
    keys = sorted(json.loads(text)["keys"], key=_canonical)
    return _canonical({"keys": keys})


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


@dataclass(slots=True)
class KeySet:
    """What is known of one issuer's keys."""

    url: str
    refresh: float
    keys: str = ""
    fetched_at: float = 0.0
    """Unix time of the last good answer; 0: there was none."""
    error: str = ""
    """Why the last fetch brought nothing; empty when it did."""
    results: Counter[str] = field(default_factory=Counter)
    """good, and the reasons of ``NoKeysError`` → fetches."""
    began_at: float = float("-inf")
    hurry: asyncio.Event = field(default_factory=asyncio.Event)
    is_first_done: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class Issuers:
    """``on_change`` is called in the loop when an issuer has other keys than before, from the end of ``start`` on.

    ``chance`` gives numbers in [0, 1); ``hurry_seconds`` and ``retry_seconds`` are for those who cannot wait.
    """

    def __init__(
        self,
        on_change: Callable[[], None],
        state_dir: Path,
        *,
        fetcher: Callable[[str], Awaitable[str]] = fetch,
        chance: Callable[[], float] = random.random,
        hurry_seconds: float = HURRY_SECONDS,
        retry_seconds: float = RETRY_FIRST_SECONDS,
        log: Any = None,
    ) -> None:
        self._on_change = on_change
        self._state_dir = state_dir
        self._fetch = fetcher
        self._chance = chance
        self._hurry_seconds = hurry_seconds
        self._retry_seconds = retry_seconds
        self._log = structlog.get_logger(__name__) if log is None else log
        self._issuers: dict[str, KeySet] = {}
        self._refused_tokens = 0
        self._is_started = False
        self._is_disk_reported = False

    def __repr__(self) -> str:
        return f"<Issuers {sorted(self._issuers)}>"

    # -- what others look at -------------------------------------------------------------------------------------------

    @property
    def found(self) -> Mapping[str, str]:
        """Issuer → its JWK set as JSON text; one whose keys were never had is not in it."""
        return {name: one.keys for name, one in self._issuers.items() if one.keys}

    @property
    def issuers(self) -> Mapping[str, KeySet]:
        """Issuer → what is known; for state and metrics."""
        return self._issuers

    @property
    def missing(self) -> tuple[str, ...]:
        """Issuers without keys: none of their tokens is believed."""
        return tuple(name for name, one in self._issuers.items() if not one.keys)

    def state(self) -> dict[str, Any]:
        """As plain data; the keys themselves are left out."""
        return {
            name: {
                "has_keys": bool(one.keys),
                "keys": len(json.loads(one.keys)["keys"]) if one.keys else 0,
                "fetched_at": one.fetched_at,
                "error": one.error,
            }
            for name, one in self._issuers.items()
        }

    # -- life ----------------------------------------------------------------------------------------------------------

    async def start(self, settings: Settings, within: float = FIRST_SECONDS) -> None:
        """Fetch all of them; return when that is done, at the latest after ``within`` seconds."""
        self.update(settings)
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                for one in list(self._issuers.values()):
                    await one.is_first_done.wait()
        self._is_started = True
        for name in self.missing:
            self._log.warning(f"issuer {name} has no keys yet: none of its tokens is believed until it has")

    def update(self, settings: Settings) -> None:
        """The config has changed: ask whom it names. Does not call ``on_change``.

        To be called before the snapshot is made: keys from another address must not be believed any more.
        """
        wanted = {name: (one.jwks_url, one.refresh) for name, one in settings.tokens.items() if one.jwks_url}
        for name, known in list(self._issuers.items()):
            if name not in wanted or wanted[name][0] != known.url:
                if known.task is not None:
                    spawn(end(known.task), name=f"end of fetching the keys of {name}")
                del self._issuers[name]
        for name, (url, refresh) in wanted.items():
            if name in self._issuers:
                if self._issuers[name].refresh != refresh:
                    self._issuers[name].refresh = refresh
                    self._issuers[name].hurry.set()
                continue
            one = self._issuers[name] = KeySet(str(url), refresh)
            self._load(name, one)
            one.task = spawn(self._follow(name, one), name=f"keys of {name}")

    async def stop(self) -> None:
        """End all fetching."""
        await end(*(one.task for one in self._issuers.values() if one.task is not None))

    def note_refused_tokens(self, total: int) -> None:
        """So many tokens were ever refused for their signature: when there are more, a key may be new."""
        more, self._refused_tokens = total > self._refused_tokens, total
        if more:
            for one in self._issuers.values():
                one.hurry.set()

    async def _follow(self, name: str, one: KeySet) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            one.began_at = loop.time()
            one.hurry.clear()
            failures = 0 if await self._once(name, one) else failures + 1
            one.is_first_done.set()
            wait = one.refresh
            if failures:
                wait = min(wait, RETRY_CAP_SECONDS, self._retry_seconds * 2 ** min(failures - 1, 10))
            wait *= 1 - JITTER + 2 * JITTER * self._chance()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await one.hurry.wait()
                    await asyncio.sleep(max(0.0, one.began_at + self._hurry_seconds - loop.time()))

    async def _once(self, name: str, one: KeySet) -> bool:
        try:
            keys = await self._fetch(one.url)
        except NoKeysError as error:
            one.results[error.reason] += 1
            if str(error) != one.error:
                stays = "its last good keys stay in force" if one.keys else "none of its tokens is believed"
                self._log.warning(f"the keys of issuer {name} were not had from {one.url}: {error}; {stays}")
            one.error = str(error)
            return False
        if self._issuers.get(name) is not one:
            return True  # the config names another address by now
        one.results["good"] += 1
        had_error, one.error, one.fetched_at = one.error, "", time.time()
        if keys != one.keys:
            before, count = (len(json.loads(text)["keys"]) if text else 0 for text in (one.keys, keys))
            one.keys = keys
            self._log.info(f"issuer {name} has other keys, from {one.url}: {before} → {count}")
            if self._is_started:
                self._tell()
            await self._keep(name, one)
        elif had_error:
            self._log.info(f"the keys of issuer {name} are had again from {one.url}; they are the same")
        return True

    def _tell(self) -> None:
        try:
            self._on_change()
        except Exception:  # noqa: BLE001 - whatever this change has met, the next fetch has to come
            self._log.exception("new keys could not be applied; the next ones will be tried")

    # -- on disk -------------------------------------------------------------------------------------------------------

    def _path(self, name: str) -> Path:
        return self._state_dir / f"keys-{quote(name, safe='')}.json"

    def _load(self, name: str, one: KeySet) -> None:
        """What another process had, if it had it from the same address."""
        path = self._path(name)
        try:
            content = read_own(path, 2 * MOST_BYTES)
        except Rejected as error:
            self._log.warning(f"keys not used: {error}")
            return
        if content is None:
            return
        try:
            kept = json.loads(content)
            url, keys, fetched_at = str(kept["url"]), str(kept["keys"]), float(kept["fetched_at"])
        except (ValueError, TypeError, KeyError, RecursionError):
            self._log.warning(f"keys not used: {path} is corrupt: it is not what was written")
            return
        if url == one.url and not wrong_key_set(keys):
            one.keys, one.fetched_at = keys, fetched_at

    async def _keep(self, name: str, one: KeySet) -> None:
        kept = {"url": one.url, "fetched_at": round(one.fetched_at, 3), "keys": one.keys}
        try:
            await asyncio.to_thread(replace_whole, self._path(name), json.dumps(kept, indent=1).encode())
        except OSError as error:
            if not self._is_disk_reported:
                self._is_disk_reported = True
                self._log.warning(
                    f"the keys of issuer {name} cannot be kept in {self._state_dir} ({error.strerror or error}): a "
                    f"restart while the issuer is away would believe none of its tokens"
                )

"""The public keys of issuers, fetched from each ``jwks_url`` (RFC 7517) again and again, so that they may rotate.

What was good last stays, in memory and in the state directory: a bad answer never replaces a good one, and an issuer
that cannot be reached costs nobody who has a token its place. Keys that sign as well as verify (``kty: oct``) are
refused: whoever publishes one has given it away, and a token signed with it proves nothing (RFC 8725 §2.1).
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import aiohttp

from router.config.trust import Issuer
from router.control.disk import replace_whole
from router.telemetry.tasks import end, spawn

FETCH_SECONDS: Final = 5.0
MOST_BYTES: Final = 1 << 20
JITTER: Final = 0.1
AGAIN_SECONDS: Final = (0.5, 30.0)
"""After a failure, the first and the longest wait; an issuer's own ``refresh`` where that is shorter."""
_FIELDS: Final = {"Accept": "application/jwk-set+json, application/json", "User-Agent": "ring-router-jwks"}


class BadKeys(ValueError):
    """Not a key set that tokens may be verified with; the message says why."""


def checked(text: str) -> str:
    """A key set with the keys that verify alone, as JSON text. Raises ``BadKeys``."""
    try:
        keys = json.loads(text)["keys"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BadKeys("it is not a JWK set: JSON with a list of `keys` (RFC 7517 §5)") from None
    if not isinstance(keys, list) or not all(isinstance(key, dict) for key in keys):
        raise BadKeys("its `keys` are no list of keys (RFC 7517 §5)")
    if any(key.get("kty") == "oct" for key in keys):
        raise BadKeys("it has a key of kty `oct`, which is a secret: whoever reads it could sign")
    if any("d" in key for key in keys):
        raise BadKeys("it has a private key: whoever reads it could sign")
    if not keys:
        raise BadKeys("it has no keys")
    return json.dumps({"keys": keys}, sort_keys=True, separators=(",", ":"))


class KeyFetcher:
    """``on_change`` is called in the loop when ``key_sets`` are other ones than before."""

    def __init__(
        self,
        state_dir: Path,
        on_change: Callable[[], None],
        log: Any,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._place = state_dir / "jwks"
        self._on_change = on_change
        self._log = log
        self._uniform = uniform
        self._tasks: dict[str, tuple[Issuer, asyncio.Task[None]]] = {}
        self.key_sets: dict[str, str] = {}
        """Issuer → its keys, as JSON text."""
        self.troubles: dict[str, str] = {}
        """Issuer → why its keys could not be fetched the last time."""

    def __repr__(self) -> str:
        return f"<KeyFetcher {sorted(self.key_sets)}>"

    def update(self, issuers: Mapping[str, Issuer]) -> None:
        """These are the issuers now. Those that are new begin with the keys that were good last."""
        wanted = {name: one for name, one in issuers.items() if one.jwks_url is not None}
        for name in [name for name, (one, _) in self._tasks.items() if wanted.get(name) != one]:
            spawn(end(self._tasks.pop(name)[1]), name=f"end of the keys of {name}")
            self.key_sets.pop(name, None)
            self.troubles.pop(name, None)
        for name, one in wanted.items():
            if name not in self._tasks:
                with suppress(OSError, BadKeys, ValueError):
                    kept = json.loads(self._file(name).read_text())
                    if kept["url"] == one.jwks_url:
                        self.key_sets[name] = checked(json.dumps(kept["set"]))
                self._tasks[name] = (one, spawn(self._follow(name, one), name=f"keys of {name}"))

    async def stop(self) -> None:
        await end(*(task for _, task in self._tasks.values()))

    async def _follow(self, name: str, issuer: Issuer) -> None:
        failures = 0
        first, longest = AGAIN_SECONDS
        while True:
            try:
                await self._fetch(name, issuer.jwks_url or "")
            except (OSError, aiohttp.ClientError, TimeoutError, ValueError) as error:
                self._fail(name, issuer, error)
                waits = min(longest, issuer.refresh, first * 2 ** min(failures, 10))
                failures += 1
            else:
                failures, waits = 0, issuer.refresh
            await asyncio.sleep(waits * self._uniform(1 - JITTER, 1 + JITTER))

    async def _fetch(self, name: str, url: str) -> None:
        # A redirect may lead to http://, or to somebody else's keys.
        async with (
            asyncio.timeout(FETCH_SECONDS),
            aiohttp.ClientSession(headers=_FIELDS) as session,
            session.get(url, allow_redirects=False) as response,
        ):
            if response.status != 200:
                raise BadKeys(f"the answer is {response.status}")
            body = b""
            while len(body) <= MOST_BYTES and (more := await response.content.read(MOST_BYTES)):
                body += more
        if len(body) > MOST_BYTES:
            raise BadKeys(f"it has more than {MOST_BYTES >> 20} MiB")
        keys = checked(body.decode("utf-8"))
        if self.troubles.pop(name, None) is not None:
            self._log.info(f"the keys of the issuer {name} can be fetched again")
        if self.key_sets.get(name) == keys:
            return
        self._log.info(f"the issuer {name} has other keys now: {len(json.loads(keys)['keys'])}")
        self.key_sets[name] = keys
        self._on_change()
        await asyncio.to_thread(self._keep, name, url, keys)

    def _fail(self, name: str, issuer: Issuer, error: BaseException) -> None:
        why = str(error) or (
            f"no answer within {FETCH_SECONDS:g} s" if isinstance(error, TimeoutError) else type(error).__name__
        )
        if self.troubles.get(name) == why:
            return
        self.troubles[name] = why
        then = "those that were good last stay" if name in self.key_sets else "its tokens prove nothing until then"
        self._log.warning(f"the keys of the issuer {name} cannot be fetched from {issuer.jwks_url}: {why}; {then}")

    def _file(self, name: str) -> Path:
        return self._place / f"{name.encode().hex()}.json"

    def _keep(self, name: str, url: str, keys: str) -> None:
        file = self._file(name)
        try:
            replace_whole(file, json.dumps({"url": url, "set": json.loads(keys)}).encode())
        except OSError as error:
            self._log.warning(f"the keys of the issuer {name} cannot be kept in {file}: {error.strerror}")

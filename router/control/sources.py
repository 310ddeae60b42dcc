"""Figures that the router does not count itself: webhooks and PromQL queries are asked for a guardrail once a tick.

Both give four totals, [n_r, x_r, n_b, x_b] (units and outcomes of the ring, then of the control), that only grow; what
came between two asks is evidence. Whatever goes wrong is ``Unasked`` with its reason, and never a number: an error is
evidence for nothing and against nothing. It must never follow a redirect (one could lead from https to http), and never
say a URL or a header's value: either may hold a secret.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from router.control.check import read_whole, words
from router.rollout.guardrail_keys import COUNTS
from router.rollout.plan import Guardrail, Plan, Source
from router.rollout.statistics.two_ring import Tick

MOST_BYTES: Final = 64 * 1024
"""Of an answer; four numbers are some fifty."""
MOST_UNITS: Final = 2.0**53
"""Beyond, a JSON number is not exact any more."""
_FIELDS: Final = {"User-Agent": "ring-router-rollout", "Accept": "application/json", "Accept-Encoding": "identity"}
_NO_TIMEOUT: Final = aiohttp.ClientTimeout(total=None)

Totals = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Unasked:
    """No figures in this tick, and why: a phrase that says the remedy where there is one."""

    reason: str


class Sources:
    """Asks for the guardrails of one plan that have a ``Source``. ``clock`` is Unix time."""

    def __init__(self, plan: Plan, clock: Callable[[], float] = time.time) -> None:
        self._plan = plan
        self._clock = clock
        self._guardrails = tuple(one for one in plan.guardrails if one.source is not None)
        self._session: aiohttp.ClientSession | None = None
        self._ring = ""
        self._last: dict[str, Totals] = {}
        """Guardrail → what it said last about this ring."""

    def __repr__(self) -> str:
        return f"<Sources {[one.name for one in self._guardrails]} of {self._plan.service}>"

    async def stop(self) -> None:
        """Close its connections. Asked again, it opens others."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def ask(self, ring: str) -> dict[str, Tick | Unasked]:
        """Guardrail → what has come since it was asked last, with an answer, about this ring; all are asked at once.

        The first answer about a ring is where counting begins, and nothing has come yet. A total that went down is an
        error in this tick, and counting begins anew there. Outcomes that are counted before their units are waited for.
        """
        if ring != self._ring:
            self._ring, self._last = ring, {}
        found = await asyncio.gather(*(self._one(one, ring) for one in self._guardrails))
        return dict(zip((one.name for one in self._guardrails), found, strict=True))

    async def _one(self, guardrail: Guardrail, ring: str) -> Tick | Unasked:
        source = guardrail.source
        assert source is not None
        totals = await (self._webhook(source, ring) if source.kind == "webhook" else self._promql(source))
        if isinstance(totals, Unasked):
            return totals
        before = self._last.get(guardrail.name, totals)
        if ring != self._ring:
            return Unasked("another ring was asked about meanwhile")
        more = tuple(new - old for new, old in zip(totals, before, strict=True))
        fallen = [name for name, difference in zip(COUNTS, more, strict=True) if difference < 0]
        if not fallen and (more[1] > more[0] or more[3] > more[2]):
            return Unasked("there are more outcomes than units so far: each unit has 1 at the most")
        self._last[guardrail.name] = totals
        if fallen:
            return Unasked(f"{' and '.join(fallen)} went down: totals only grow, counting begins anew")
        return Tick(int(more[0]), more[1], int(more[2]), more[3])

    # -- webhooks ------------------------------------------------------------------------------------------------------

    async def _webhook(self, source: Source, ring: str) -> Totals | Unasked:
        plan = self._plan
        about = {"service": plan.service, "candidate": plan.candidate, "stable": plan.stable, "ring": ring}
        said = await self._get(source, source.url, about)
        if isinstance(said, Unasked):
            return said
        if not isinstance(said, list) or len(said) != len(COUNTS):
            return Unasked(f"the answer is not [{', '.join(COUNTS)}]")
        return _totals(said)

    # -- PromQL --------------------------------------------------------------------------------------------------------

    async def _promql(self, source: Source) -> Totals | Unasked:
        """All four are asked for the same moment, so that they belong together."""
        url, moment = source.url.rstrip("/") + "/api/v1/query", f"{self._clock():.3f}"
        asked = (self._get(source, url, {"query": query, "time": moment}) for query in source.queries)
        values: list[object] = []
        for name, said in zip(COUNTS, await asyncio.gather(*asked), strict=True):
            value = said if isinstance(said, Unasked) else _value(said)
            if isinstance(value, Unasked):
                return Unasked(f"query {name}: {value.reason}")
            values.append(value)
        return _totals(values)

    # -- asking --------------------------------------------------------------------------------------------------------

    async def _get(self, source: Source, url: str, parameters: dict[str, str]) -> Any:
        """The JSON of an answer, or ``Unasked``."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(resolver=aiohttp.ThreadedResolver()),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                timeout=_NO_TIMEOUT,
            )
        fields = {**_FIELDS, **dict(source.headers)}
        try:
            async with (
                asyncio.timeout(source.timeout),
                self._session.get(url, params=parameters, headers=fields, allow_redirects=False) as answer,
            ):
                if answer.status != 200:
                    redirected = ", and redirects are not followed" if 300 <= answer.status < 400 else ""
                    return Unasked(f"it answers {answer.status}{redirected}")
                content = await read_whole(answer.content, MOST_BYTES)
        except TimeoutError:
            return Unasked(f"no answer within {source.timeout:g} s")
        except (OSError, aiohttp.ClientError, ValueError) as error:
            return Unasked(words(error))
        if content is None:
            return Unasked(f"the answer is longer than {MOST_BYTES // 1024} KiB")
        try:
            return json.loads(content)
        except (ValueError, RecursionError):
            return Unasked("the answer is not JSON")


def _value(said: object) -> object:
    """The one value of a PromQL answer (Prometheus HTTP API, "Expression query result formats")."""
    data = said.get("data") if isinstance(said, dict) and said.get("status") == "success" else None
    if not isinstance(data, dict):
        return Unasked("the answer is not one of Prometheus")
    result = data.get("result")
    if data.get("resultType") == "vector" and isinstance(result, list):
        if not result:
            return Unasked("there is no value: end the query with `or vector(0)`, if that means none")
        if len(result) > 1:
            return Unasked(f"there are {len(result)} values: put sum(…) around the query")
        result = result[0].get("value") if isinstance(result[0], dict) else None
    elif data.get("resultType") != "scalar":
        return Unasked("the answer has to be one value: a vector with one element, or a scalar")
    if not isinstance(result, list) or len(result) != 2 or not isinstance(result[1], str):
        return Unasked("the answer is not one of Prometheus")
    try:
        return float(result[1])
    except ValueError:
        return Unasked("the value is not a number")


def _totals(values: list[Any]) -> Totals | Unasked:
    found: list[float] = []
    for name, value in zip(COUNTS, values, strict=True):
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not 0 <= value <= MOST_UNITS:  # which is not so of NaN
            return Unasked(f"{name} is not a count")
        if name[0] == "n" and value != int(value):
            return Unasked(f"{name} counts units, and is not a whole number")
        found.append(float(value))
    return found[0], found[1], found[2], found[3]

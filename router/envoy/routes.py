"""Services as Envoy's routes: the published precedence (docs/audiences.md) as an order of matches. Pure.

Envoy takes the first route that matches. So a service is a list of blocks, each for those whose key is from one source
and whom the same rings deny; a block takes everybody it is for, so that those after it need not exclude them. Inside of
a block: members, rules, hash, or the default ring for those who have no key. Overrides come before all blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any, Final

from router.core.audience import ConditionSpec, IdentitySpec
from router.core.hashing import BUCKETS
from router.core.snapshot import identity_order
from router.core.spec import ServiceSpec
from router.envoy.matches import ALWAYS, Match, both, matches
from router.envoy.messages import Json

MOST_DENYING: Final = 4
"""Rings that deny somebody, of a service: there is a block for each set of them."""
KEYS_AT_ONCE: Final = 200
"""Keys of members in one regular expression: RE2 runs those of this size fast and in bounded memory."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Where requests go that match: to the ring at ``place``, or by the hash of the key from ``source``.

    ``shares`` are (place, basis points) from the inner ring outward, 10000 together; empty: all to ``place``.
    """

    match: Match
    reason: str
    place: int
    source: IdentitySpec | None
    shares: tuple[tuple[int, int], ...] = ()


def service_rules(service: ServiceSpec, *, is_trusted: bool) -> Iterator[Rule]:
    """The whole decision, first match first; ``is_trusted``: of requests of trusted proxies.

    Raises ``CannotSayError`` where a rule is none that a route can ask for.
    """
    rings = service.rings
    last = len(rings) - 1
    killed = set(service.killed) - {rings[last].name}
    is_open = [ring.name not in killed for ring in rings]
    if service.override == "insecure" or (service.override == "trusted" and is_trusted):
        for place, ring in enumerate(rings):
            match = {"headers": [{"name": "x-ring-override", "string_match": {"exact": ring.name}}]}
            yield Rule(match, "override", _landing(place, is_open, ()), None)
    denying = [i for i in range(last) if is_open[i] and rings[i].denied]
    for source in (*known_sources(service, is_trusted=is_trusted), None):
        who = ALWAYS if source is None else has_key(source)
        for count in range(len(denying), -1, -1):
            for denied in combinations(denying, count):
                for parts in product(*(_any_of(rings[i].denied, source) for i in denied)):
                    yield from _block(service, source, both(who, *parts), denied, is_open)


def _block(
    service: ServiceSpec,
    source: IdentitySpec | None,
    who: Match,
    denied: tuple[int, ...],
    is_open: list[bool],
) -> Iterator[Rule]:
    """All of those who match ``who``: the rings in ``denied`` deny them."""
    rings = service.rings
    places = [i for i in range(len(rings)) if is_open[i] and i not in denied]
    if source is not None:
        for place in places:
            for keys in _chunks(rings[place].members):
                listed = ConditionSpec("user", compare="one_of", values=keys)
                for one in matches(listed, source):
                    yield Rule(both(who, one), "member", place, source)
    for place in places:
        for one in _any_of(rings[place].rules, source):
            yield Rule(both(who, one), "rule", place, source)
    last = len(rings) - 1
    if source is None:
        yield Rule(who, "default", last, None)
        return
    weights = [ring.basis_points for ring in rings[:last]]
    shares: dict[int, int] = {}
    for place, weight in enumerate((*weights, BUCKETS - sum(weights))):
        if weight:
            landing = _landing(place, is_open, denied)
            shares[landing] = shares.get(landing, 0) + weight
    yield Rule(who, "hash", last, source, tuple(shares.items()))


def _landing(place: int, is_open: list[bool], denied: tuple[int, ...]) -> int:
    """The ring, or the next one outward that is neither killed nor denies; nobody is kept out of the default ring."""
    return next(i for i in range(place, len(is_open)) if is_open[i] and i not in denied)


def _any_of(rules: tuple[ConditionSpec, ...], source: IdentitySpec | None) -> list[Match]:
    return [one for rule in rules for one in matches(rule, source)]


def _chunks(keys: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for at in range(0, len(keys), KEYS_AT_ONCE):
        yield keys[at : at + KEYS_AT_ONCE]


def known_sources(service: ServiceSpec, *, is_trusted: bool) -> list[IdentitySpec]:
    """The sources that count, in the order in which they are asked."""
    return [one for one in identity_order(service) if is_trusted or not one.is_trusted_only]


def has_key(source: IdentitySpec) -> Match:
    """Whether a source has a key that counts: an empty one is none."""
    kinds = {"header": "headers", "query": "query_parameters"}
    name = source.name.lower() if source.kind == "header" else source.name
    return {kinds.get(source.kind, "cookies"): [{"name": name, "string_match": {"safe_regex": {"regex": "(?s).+"}}}]}


def hash_policy(source: IdentitySpec, salt: str) -> Json:
    """What of a request is hashed. Only headers can have a salt put in front."""
    if source.kind == "query":
        return {"query_parameter": {"name": source.name}, "terminal": True}
    if source.kind != "header":
        return {"cookie": {"name": source.name}, "terminal": True}
    header: dict[str, Any] = {"header_name": source.name.lower()}
    if salt:
        rewritten = salt.replace("\\", "\\\\") + "\\1"
        header["regex_rewrite"] = {"pattern": {"regex": "(?s)^(.*)$"}, "substitution": rewritten}
    return {"header": header, "terminal": True}

"""Rules as matches of Envoy's routes. Pure.

A route matches when all of its matchers do, so a rule becomes the list of its alternatives, each of them a conjunction
(disjunctive normal form); every alternative is a route of its own. What is absent fails every comparison, and
``inverted`` then holds, as in ``core.conditions``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import product
from math import prod
from typing import Final

from router.core.audience import ConditionSpec, IdentitySpec
from router.core.conditions import compile_comparison
from router.core.hashing import BUCKETS
from router.envoy.messages import Json
from router.envoy.refused import CannotSayError

Match = dict[str, list[Json]]
"""A part of a RouteMatch: lists of matchers by ``headers``, ``cookies`` or ``query_parameters``, which all hold."""
ALWAYS: Final[Match] = {}
MOST_ALTERNATIVES: Final = 200
"""Of one rule; a route for each, in each of a few kinds."""

_WAITING: Final = {
    "client": ("Envoy's routes cannot ask for the client's network", "let what is in front say it in a header"),
    "claim": ("claims need Envoy's JWT filter, which is not set up here", "let what verifies the token set a header"),
    "time": ("Envoy's routes know no time", "set a weight, or a kill, when the time has come"),
}
_TAILS: Final = {"path": r"(?:\?.*)?", "host": r"(?::[0-9]+)?"}
"""What may stand behind a path or a host in the fields where Envoy keeps them."""


def both(*parts: Match) -> Match:
    """A match that holds where all of these do."""
    found: Match = {}
    for part in parts:
        for kind, matchers in part.items():
            found[kind] = found.get(kind, []) + matchers
    return found


def matches(spec: ConditionSpec, source: IdentitySpec | None) -> list[Match]:
    """The alternatives of a rule for those whose key is from this source; None: for those who have no key.

    Empty for a rule that cannot hold. Raises ``CannotSayError``.
    """
    return _alternatives(spec, source, is_inverted=False)


def _alternatives(spec: ConditionSpec, source: IdentitySpec | None, *, is_inverted: bool) -> list[Match]:
    if spec.share < BUCKETS:
        raise CannotSayError(
            "a share of those for whom a rule holds takes a second hash", "leave `percent` out, or use a weight"
        )
    is_inverted ^= spec.inverted
    if spec.kind not in ("all_of", "any_of"):
        return _leaf(spec, source, is_inverted)
    children = [_alternatives(child, source, is_inverted=is_inverted) for child in spec.children]
    is_any = (spec.kind == "any_of") is not is_inverted
    count = sum(map(len, children)) if is_any else prod(map(len, children))
    if count > MOST_ALTERNATIVES:
        raise CannotSayError(f"a rule with {count} alternatives", f"{MOST_ALTERNATIVES} are the most; split it")
    return [one for child in children for one in child] if is_any else [both(*parts) for parts in product(*children)]


def _leaf(spec: ConditionSpec, source: IdentitySpec | None, is_inverted: bool) -> list[Match]:
    if spec.kind in _WAITING:
        raise CannotSayError(*_WAITING[spec.kind])
    if spec.compare == "listed":
        raise CannotSayError("a long list of users is a table of hashes", "keep lists of up to 1,000 keys, or a header")
    if spec.compare == "semver":
        raise CannotSayError("Envoy compares no versions of software", "use `regex`, `prefix` or `one_of`")
    match spec.kind:
        case "header":
            return _header(spec.name.lower(), spec, is_inverted)
        case "cookie":
            return [{"cookies": [_named(spec.name, spec, is_inverted)]}]
        case "query":
            return _query(spec.name, spec, is_inverted)
        case "method":
            return [{"headers": [_named(":method", spec, is_inverted)]}]
        case "path" | "host":
            return [{"headers": [_part(spec, is_inverted)]}]
        case _:
            return _user(spec, source, is_inverted)


def _user(spec: ConditionSpec, source: IdentitySpec | None, is_inverted: bool) -> list[Match]:
    """The key is there: a route that is for those of a source has asked for that already."""
    if source is None:
        return [ALWAYS] if is_inverted else []
    if spec.compare == "present":
        return [] if is_inverted else [ALWAYS]
    if source.kind == "header":
        return [{"headers": [_named(source.name.lower(), spec, is_inverted)]}]
    if source.kind == "query":
        return _query(source.name, spec, is_inverted)
    return [{"cookies": [_named(source.name, spec, is_inverted)]}]


def _header(name: str, spec: ConditionSpec, is_inverted: bool) -> list[Match]:
    if spec.compare == "present":
        return [{"headers": [{"name": name, "present_match": not is_inverted}]}]
    matcher = _named(name, spec, is_inverted)
    if not is_inverted:
        return [{"headers": [matcher]}]
    if spec.compare != "regex" and not compile_comparison(spec)(b""):
        # An inverted matcher of Envoy's does not hold for an absent header, unless that counts as empty.
        return [{"headers": [{**matcher, "treat_missing_header_as_empty": True}]}]
    return [{"headers": [{"name": name, "present_match": False}]}, {"headers": [matcher]}]


def _query(name: str, spec: ConditionSpec, is_inverted: bool) -> list[Match]:
    if spec.compare == "present":
        return [{"query_parameters": [{"name": name, "present_match": not is_inverted}]}]
    if is_inverted:
        raise CannotSayError("Envoy has no inverted matches of query parameters", "turn the rule around")
    return [{"query_parameters": [_named(name, spec, False)]}]


def _named(name: str, spec: ConditionSpec, is_inverted: bool) -> Json:
    matcher: Json = {"name": name, "string_match": text_match(spec)}
    return {**matcher, "invert_match": True} if is_inverted else matcher


def _part(spec: ConditionSpec, is_inverted: bool) -> Json:
    """Of a path or a host, which Envoy keeps together with a query or a port."""
    if spec.compare == "regex":
        raise CannotSayError(f"a regular expression of a {spec.kind} sees what stands behind it in Envoy", "use `glob`")
    anything, flags = ("[^?]", "(?s)") if spec.kind == "path" else ("[^:]", "(?is)")
    pattern = _pattern(spec, anything)
    name = ":path" if spec.kind == "path" else ":authority"
    matcher: Json = {"name": name, "string_match": _regex(f"{flags}(?:{pattern}){_TAILS[spec.kind]}")}
    return {**matcher, "invert_match": True} if is_inverted else matcher


def text_match(spec: ConditionSpec) -> Json:
    """How a value is compared, as a StringMatcher; that of a regular expression covers the whole value."""
    if spec.compare == "equals":
        return {"exact": spec.values[0]}
    if spec.compare in ("prefix", "suffix", "contains") and len(spec.values) == 1 and spec.values[0]:
        return {spec.compare: spec.values[0]}
    if spec.compare == "one_of" and len(spec.values) == 1:
        return {"exact": spec.values[0]}
    return _regex(f"(?s)(?:{_pattern(spec, '.')})")


def _pattern(spec: ConditionSpec, anything: str) -> str:
    """The whole of a value as a regular expression of RE2; ``anything`` stands for one byte of it."""
    values, any_of = spec.values, f"{anything}*"
    match spec.compare:
        case "equals":
            return re.escape(values[0])
        case "one_of":
            return _either(map(re.escape, values))
        case "prefix":
            return _either(map(re.escape, values)) + any_of
        case "suffix":
            return any_of + _either(map(re.escape, values))
        case "contains":
            return any_of + _either(map(re.escape, values)) + any_of
        case "glob":
            return _either(_glob(value, anything) for value in values)
        case "regex":
            return any_of + _either(f"(?-s:{value})" for value in values) + any_of
        case _:
            return any_of


def _glob(pattern: str, anything: str) -> str:
    signs = {"*": f"{anything}*", "?": anything}
    return "".join(signs.get(one) or re.escape(one) for one in pattern)


def _either(patterns: Iterable[str]) -> str:
    return f"(?:{'|'.join(patterns)})"


def _regex(pattern: str) -> Json:
    return {"safe_regex": {"regex": pattern}}

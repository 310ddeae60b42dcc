"""Rules as alternatives of single tests, which is how both proxies can ask for them. Pure.

What is absent fails every comparison, and ``is_inverted`` then holds, as in ``core.conditions``.
"""

from __future__ import annotations

import re
from itertools import product
from math import prod
from typing import Final, NamedTuple

from router.core.audience import Comparison, ConditionSpec
from router.core.hashing import BUCKETS
from router.export.lost import CannotSayError

MOST_ALTERNATIVES: Final = 100
"""Of one rule; a line for each."""
PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")
"""What both may be told as the name of a field, without a quote that could end early."""
_CANNOT_ASK: Final = {
    "client": "the client's network is not asked for there",
    "claim": "tokens are not verified there",
    "time": "rules know no time there",
}
_CANNOT_COMPARE: Final = {
    "listed": "a long list of users is a table of hashes",
    "semver": "versions of software are not compared there",
    "regex": "regular expressions are PCRE's there, which say other things than RE2's and may take for ever",
}
_NAMED: Final = ("header", "cookie", "query")


class Test(NamedTuple):
    """One comparison of one field; ``name`` is empty for path, method, host and user. Header names are lower-case."""

    kind: str
    name: str
    compare: Comparison
    values: tuple[str, ...]


class Asked(NamedTuple):
    """Whether a test has to hold, or not to."""

    test: Test
    is_inverted: bool


Alternative = tuple[Asked, ...]
"""All of these."""


def alternatives(spec: ConditionSpec, *, is_inverted: bool = False) -> tuple[Alternative, ...]:
    """A rule in disjunctive normal form; empty for one that cannot hold. Raises ``CannotSayError``."""
    if spec.share < BUCKETS:
        raise CannotSayError("a share of those for whom a rule holds takes a second hash")
    is_inverted ^= spec.inverted
    if spec.kind not in ("all_of", "any_of"):
        return ((Asked(_test(spec), is_inverted),),)
    children = [alternatives(child, is_inverted=is_inverted) for child in spec.children]
    is_any = (spec.kind == "any_of") is not is_inverted
    count = sum(map(len, children)) if is_any else prod(map(len, children))
    if count > MOST_ALTERNATIVES:
        raise CannotSayError(f"a rule with {count} alternatives, where {MOST_ALTERNATIVES} are the most")
    if is_any:
        return tuple(one for child in children for one in child)
    return tuple(sum(parts, ()) for parts in product(*children))


def _test(spec: ConditionSpec) -> Test:
    if spec.kind in _CANNOT_ASK:
        raise CannotSayError(_CANNOT_ASK[spec.kind])
    if spec.compare in _CANNOT_COMPARE:
        raise CannotSayError(_CANNOT_COMPARE[spec.compare])
    if spec.kind in _NAMED and not PLAIN_NAME.fullmatch(spec.name):
        raise CannotSayError(f"the name of a {spec.kind} has other signs than letters, digits and ._-")
    if spec.kind == "header" and ("_" in spec.name or "." in spec.name):
        raise CannotSayError("nginx has no such header: its name has an underscore or a dot")
    values = tuple(one.lower() for one in spec.values) if spec.kind == "host" else spec.values
    return Test(spec.kind, spec.name.lower() if spec.kind == "header" else spec.name, spec.compare, values)


def pattern(test: Test, anything: str = r"[\s\S]") -> str:
    """The whole of a value for which the test holds, as a regular expression of PCRE's; ``anything`` is one byte.

    Whatever is not a letter or a digit is written by its number, so that no value can end a string that this is in.
    """
    any_of = f"{anything}*"
    match test.compare:
        case "equals" | "one_of":
            return _either([literal(value) for value in test.values])
        case "prefix":
            return _either([literal(value) for value in test.values]) + any_of
        case "suffix":
            return any_of + _either([literal(value) for value in test.values])
        case "contains":
            return any_of + _either([literal(value) for value in test.values]) + any_of
        case "glob":
            signs = {"*": any_of, "?": anything}
            return _either(["".join(signs.get(one) or literal(one) for one in value) for value in test.values])
        case _:
            return any_of


def literal(text: str) -> str:
    """Text as a regular expression for it: letters, digits, ``-``, ``/``, ``_`` and numbers of bytes alone."""
    return "".join(
        chr(one) if one < 128 and (chr(one).isalnum() or chr(one) in "-/_") else f"\\x{one:02x}"
        for one in text.encode()
    )


def _either(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"(?:{'|'.join(parts)})"

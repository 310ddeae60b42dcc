"""What one node of a rule asks of a request, compiled into closures when the snapshot changes.

A rule sees a ``Request`` and nothing else. Comparisons are of bytes and exact in case; only header *names* (RFC 9110
§5.1) and hosts are not. What is absent fails every comparison; ``inverted`` then holds. Where there are several values
(claims), one of them that compares is enough. A ``share`` comes last: of whatever the node holds for, inverted or not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from math import inf
from typing import Final, assert_never

from router.core.addresses import address_of, masked, network_of
from router.core.globs import compile_glob
from router.core.hashing import BUCKETS, bucket_of
from router.core.lookup import Tables, no_tables
from router.core.request import Request, cookie_value, fingerprint_of, query_value
from router.core.semver import meets
from router.core.spec import ConditionSpec

Matcher = Callable[[Request], bool]
Compare = Callable[[bytes], bool]

SHARE_SALT: Final = b"share:"
"""Its own: the hash that sorts users into rings would give a share to those alone who are in an inner ring already."""
DENIED_SALT: Final = b"denied share:"
"""Another one, else a denied share would be of just the users that a rule's share of the same size lets in."""
_NEEDS: Final = {"query": "query", "client": "client", "claim": "claims", "time": "time"}


class RuleError(ValueError):
    """A rule that cannot be compiled; the message says which of its values, and what to do."""


def condition_headers(spec: ConditionSpec) -> set[bytes]:
    """The lower-case header names that a rule looks at."""
    if spec.kind == "header":
        return {spec.name.lower().encode()}
    return {name for child in spec.children for name in condition_headers(child)}


def condition_needs(spec: ConditionSpec) -> set[str]:
    """What of a request's extras a rule looks at: a subset of ``Service.needs``."""
    needs = {need for child in spec.children for need in condition_needs(child)}
    if spec.kind in _NEEDS:
        needs.add(_NEEDS[spec.kind])
    return needs


def asks_for_keys(spec: ConditionSpec) -> bool:
    """Whether a rule looks at the user's key: in a comparison, a list or a share."""
    return spec.kind == "user" or spec.share < BUCKETS or any(asks_for_keys(child) for child in spec.children)


def compile_condition(spec: ConditionSpec, tables: Tables = no_tables, salt: bytes = SHARE_SALT) -> Matcher:
    """A rule as one callable.

    ``salt`` is that of the node's share; a child's share has another one, so that a share of a share is what it says.
    It is the same for all rules of a service that stand as deep: whoever edits a rule keeps those it has.

    Raises RuleError for values that mean nothing to their comparison, or that need an extra that is not installed.
    """
    holds = _compile(spec, tables, salt)
    if spec.inverted:
        holds = _inverted(holds)
    return holds if spec.share >= BUCKETS else _shared(holds, spec.share, salt)


def _compile(spec: ConditionSpec, tables: Tables, salt: bytes) -> Matcher:
    match spec.kind:
        case "all_of":
            return _all([compile_condition(child, tables, salt + b"/") for child in spec.children])
        case "any_of":
            return _any([compile_condition(child, tables, salt + b"/") for child in spec.children])
        case "client":
            return _client(spec)
        case "time":
            return _time(spec)
        case "user" if spec.compare == "listed":
            table = tables(spec.values[0])

            def is_listed(request: Request) -> bool:
                key = request.key
                return key is not None and table.has(fingerprint_of(request, key))

            return is_listed
        case "claim":
            return _claim(spec.name, compile_comparison(spec))
        case _:
            return _single(spec, compile_comparison(spec))


def _single(spec: ConditionSpec, compare: Compare) -> Matcher:
    """A comparison of what a request has one of."""
    name = spec.name.encode()
    match spec.kind:
        case "header":
            name = name.lower()

            def in_header(request: Request) -> bool:
                value = request.headers.get(name)
                return value is not None and compare(value)

            return in_header
        case "cookie":

            def in_cookie(request: Request) -> bool:
                value = cookie_value(request.cookie, name)
                return value is not None and compare(value)

            return in_cookie
        case "query":

            def in_query(request: Request) -> bool:
                value = query_value(request.query, name)
                return value is not None and compare(value)

            return in_query
        case "path":
            return lambda request: compare(request.path)
        case "method":
            return lambda request: compare(request.method)
        case "host":
            return lambda request: compare(request.host)
        case _:

            def is_user(request: Request) -> bool:
                key = request.key
                return key is not None and compare(key)

            return is_user


def _claim(name: str, compare: Compare) -> Matcher:
    def in_claim(request: Request) -> bool:
        for value in request.claims.get(name, ()):
            if compare(value):
                return True
        return False

    return in_claim


def _client(spec: ConditionSpec) -> Matcher:
    if spec.compare == "present":
        return lambda request: address_of(request.client) is not None
    networks = networks_of(spec)

    def is_within(request: Request) -> bool:
        found = address_of(request.client)
        if found is None:
            return False
        bits, value = found
        for size, prefix, network in networks:
            if size == bits and masked(bits, value, prefix) == network:
                return True
        return False

    return is_within


def networks_of(spec: ConditionSpec) -> list[tuple[int, int, int]]:
    """The networks of a ``client`` condition: bits, length of the prefix, the bits in front. Raises RuleError."""
    found = []
    for value in spec.values:
        try:
            found.append(network_of(value))
        except ValueError:
            raise RuleError(f"{value!r} is no network; write one like '10.0.0.0/8' or '2001:db8::/32'") from None
    return found


def _time(spec: ConditionSpec) -> Matcher:
    beginning, end = (*spec.values, "", "")[:2]
    start = _unix_time(beginning) if beginning else -inf
    stop = _unix_time(end) if end else inf
    return lambda request: start <= request.now < stop


def _unix_time(text: str) -> float:
    """RFC 3339: a date and a time with an offset."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise RuleError(
            f"{text!r} is no moment; write one as in RFC 3339, with its offset: '2026-12-01T08:00:00+01:00'"
        )
    return moment.timestamp()


def compile_comparison(spec: ConditionSpec) -> Compare:
    """How one present value is judged. Raises RuleError."""
    texts = spec.values
    if spec.kind == "host":
        texts = tuple(text.lower() for text in texts)
    values = tuple(text.encode() for text in texts)
    match spec.compare:
        case "equals":
            return values[0].__eq__
        case "one_of":
            return frozenset(values).__contains__
        case "prefix":
            return lambda value: value.startswith(values)
        case "suffix":
            return lambda value: value.endswith(values)
        case "contains":
            return _any_value([_contains(part) for part in values])
        case "glob":
            return _any_value([compile_glob(pattern) for pattern in values])
        case "regex":
            return _any_value([_regex(pattern) for pattern in texts])
        case "semver":
            try:
                return meets(texts)
            except ValueError as error:
                raise RuleError(str(error)) from None
        case "present":
            return lambda value: True
        case "within" | "listed":
            raise RuleError(f"{spec.compare!r} compares no {spec.kind}; it is for {_FOR[spec.compare]}")
        case _:
            assert_never(spec.compare)


_FOR: Final = {"within": "client and time", "listed": "user"}


def _contains(part: bytes) -> Compare:
    return lambda value: part in value


def _regex(pattern: str) -> Compare:
    """A search: the pattern may stand anywhere in the value; ``^`` and ``$`` tie it to its ends.

    Only RE2 (github.com/google/re2), which takes time by the length of the value whatever the pattern is.
    """
    try:
        import re2
    except ImportError:
        raise RuleError(
            f"the regular expression {pattern!r} needs re2, which is not installed: pip install 'ring-router[re2]'"
        ) from None
    options = re2.Options()
    options.log_errors = False
    try:
        search = re2.compile(pattern.encode(), options).search
    except re2.error as error:
        said = error.args[0] if error.args else error
        said = said.decode(errors="replace") if isinstance(said, bytes) else said
        raise RuleError(f"{pattern!r} is no regular expression that re2 knows: {said}") from None
    return lambda value: search(value) is not None


def _any_value(compares: Sequence[Compare]) -> Compare:
    if len(compares) == 1:
        return compares[0]

    def one_holds(value: bytes) -> bool:
        for compare in compares:
            if compare(value):
                return True
        return False

    return one_holds


def _all(parts: Sequence[Matcher]) -> Matcher:
    def all_hold(request: Request) -> bool:
        for part in parts:
            if not part(request):
                return False
        return True

    return all_hold


def _any(parts: Sequence[Matcher]) -> Matcher:
    def one_holds(request: Request) -> bool:
        for part in parts:
            if part(request):
                return True
        return False

    return one_holds


def _inverted(holds: Matcher) -> Matcher:
    return lambda request: not holds(request)


def _shared(holds: Matcher, share: int, salt: bytes) -> Matcher:
    def holds_for_a_share(request: Request) -> bool:
        bucket = share_bucket(request, salt)
        return bucket < share and holds(request)

    return holds_for_a_share


def share_bucket(request: Request, salt: bytes) -> int:
    """The bucket that a share looks at; that of nobody is beyond all shares. Of two keys the outer one counts."""
    key = request.hashed
    if key is None:
        key = request.key
        if key is None:
            return BUCKETS
    bucket = bucket_of(key, salt)
    if request.outer is not None:
        bucket = max(bucket, bucket_of(request.outer, salt))
    return bucket

"""Many rules, of which the first that holds wins, at the cost of the few that can hold.

Each rule is filed under something that a request must have for it to hold: a header with a certain value, a path that
begins a certain way, an address in a certain network. The index never decides: what is found there is asked whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, Final, Generic, TypeVar

from router.core.addresses import address_of
from router.core.conditions import (
    SHARE_SALT,
    Matcher,
    compile_condition,
    networks_of,
)
from router.core.lookup import Tables, no_tables
from router.core.request import NOTHING as NOTHING
from router.core.request import Request as Request
from router.core.request import cookie_value as cookie_value
from router.core.request import query_value
from router.core.spec import ConditionSpec

Outcome = TypeVar("Outcome")
_Entry = tuple[int, Matcher, Outcome]
_Anchor = tuple[str, bytes, str, bytes, tuple[int, int, int]]
"""What a request must have: the kind of place, its name there, how it compares, with what, or in which network."""
_NO_ORDER: Final = 1 << 30
_NO_NETWORK: Final = (0, 0, 0)
_FEW: Final = 4
"""Names of cookies or parameters that are scanned for one by one; where there are more, the field is split once."""
_NAMED: Final = frozenset({"header", "cookie", "query", "claim"})
_HOW: Final = {"equals": "is", "one_of": "is", "prefix": "prefix", "suffix": "suffix"}


class RuleIndex(Generic[Outcome]):
    """Rules in their order, each with an outcome.

    A thousand rules cost what those cost that fit the request's own values: one look-up for ``equals`` and ``one_of``,
    one for each length of a ``prefix`` or ``suffix`` and each size of a network. What compares in any other way is
    looked at when the request has the header, cookie, … at all; rules that may hold without anything (inverted ones,
    those of a time alone) are asked every time.
    """

    __slots__ = (
        "_always", "_claims", "_cookies", "_headers", "_is_wide", "_networks", "_others", "_queries", "is_empty",
    )  # fmt: skip

    def __init__(
        self,
        rules: Iterable[tuple[ConditionSpec, Outcome]],
        tables: Tables = no_tables,
        salt: bytes = SHARE_SALT,
    ) -> None:
        """Raises RuleError where a rule cannot be compiled."""
        self._headers: dict[bytes, _Shelf[Outcome]] = {}
        self._cookies: dict[bytes, _Shelf[Outcome]] = {}
        self._queries: dict[bytes, _Shelf[Outcome]] = {}
        self._claims: dict[bytes, _Shelf[Outcome]] = {}
        self._others: dict[str, _Shelf[Outcome]] = {}
        """Path, method, host and user, of which a request has one each."""
        self._networks: dict[tuple[int, int], dict[int, list[_Entry[Outcome]]]] = {}
        self._always: list[_Entry[Outcome]] = []
        listed = list(rules)
        counts = Counter(anchor for spec, _ in listed for anchor in _possible(spec))
        for order, (spec, outcome) in enumerate(listed):
            entry = (order, compile_condition(spec, tables, salt), outcome)
            anchors = _anchors(spec, counts)
            if anchors is None:
                self._always.append(entry)
                continue
            for anchor in anchors:
                self._file(anchor, entry)
        self.is_empty = not listed
        self._is_wide = bool(self._queries or self._claims or self._others or self._networks)

    def _file(self, anchor: _Anchor, entry: _Entry[Outcome]) -> None:
        kind, name, how, value, (bits, prefix, network) = anchor
        if how == "network":
            _append(self._networks.setdefault((bits, prefix), {}).setdefault(network, []), entry)
        elif kind in _NAMED:
            shelves = {"header": self._headers, "cookie": self._cookies, "query": self._queries, "claim": self._claims}
            shelves[kind].setdefault(name, _Shelf()).add(how, value, entry)
        else:
            self._others.setdefault(kind, _Shelf()).add(how, value, entry)

    def first(self, request: Request) -> tuple[int, Outcome | None]:
        """Place (from 0) and outcome of the first rule that holds; the outcome is None if none does."""
        found: Outcome | None = None
        best = _NO_ORDER
        shelves = self._headers
        if shelves:
            for name, value in request.headers.items():
                shelf = shelves.get(name)
                if shelf is not None:
                    best, found = shelf.first(value, request, best, found)
        shelves = self._cookies
        if shelves and request.cookie:
            if len(shelves) <= _FEW:
                for name, shelf in shelves.items():
                    cookie = cookie_value(request.cookie, name)
                    if cookie is not None:
                        best, found = shelf.first(cookie, request, best, found)
            else:
                for name in _names(request.cookie, b";"):
                    if name in shelves:
                        cookie = cookie_value(request.cookie, name)
                        if cookie is not None:
                            best, found = shelves[name].first(cookie, request, best, found)
        if self._is_wide:
            best, found = self._elsewhere(request, best, found)
        for order, matches, outcome in self._always:
            if order >= best:
                break
            if matches(request):
                return order, outcome
        return best, found

    def _elsewhere(self, request: Request, best: int, found: Outcome | None) -> tuple[int, Outcome | None]:
        """The same for what only some services ask for."""
        others = self._others
        if others:
            for kind, shelf in others.items():
                value: bytes | None
                if kind == "path":
                    value = request.path
                elif kind == "host":
                    value = request.host
                elif kind == "method":
                    value = request.method
                else:
                    value = request.key
                if value is not None:
                    best, found = shelf.first(value, request, best, found)
        shelves = self._queries
        if shelves and request.query:
            for name in shelves if len(shelves) <= _FEW else _names(request.query, b"&"):
                if name in shelves:
                    value = query_value(request.query, name)
                    if value is not None:
                        best, found = shelves[name].first(value, request, best, found)
        shelves = self._claims
        if shelves:
            for claim, values in request.claims.items():
                shelf_of_claim = shelves.get(claim.encode())
                if shelf_of_claim is not None:
                    for value in values:
                        best, found = shelf_of_claim.first(value, request, best, found)
        if self._networks:
            address = address_of(request.client)
            if address is not None:
                bits, number = address
                for (size, prefix), table in self._networks.items():
                    if size == bits:
                        entries = table.get(number >> (bits - prefix))
                        if entries is not None:
                            best, found = _first_of(entries, request, best, found)
        return best, found


class _Shelf(Generic[Outcome]):
    """The rules that need one header, cookie, …, in their order: by its value or ends where they need certain ones."""

    __slots__ = ("_by_value", "_others", "_prefixes", "_suffixes", "_has_ends")

    def __init__(self) -> None:
        self._by_value: dict[bytes, list[_Entry[Outcome]]] = {}
        self._prefixes: dict[int, dict[bytes, list[_Entry[Outcome]]]] = {}
        self._suffixes: dict[int, dict[bytes, list[_Entry[Outcome]]]] = {}
        self._others: list[_Entry[Outcome]] = []
        self._has_ends = False

    def add(self, how: str, value: bytes, entry: _Entry[Outcome]) -> None:
        if how == "is":
            _append(self._by_value.setdefault(value, []), entry)
        elif how == "any":
            _append(self._others, entry)
        else:
            tables = self._prefixes if how == "prefix" else self._suffixes
            _append(tables.setdefault(len(value), {}).setdefault(value, []), entry)
            self._has_ends = True

    def first(self, value: bytes, request: Request, best: int, found: Outcome | None) -> tuple[int, Outcome | None]:
        """The order and outcome of the first rule here that holds, if it comes before ``best``."""
        entries = self._by_value.get(value)
        if entries is not None:
            best, found = _first_of(entries, request, best, found)
        if self._has_ends:
            size = len(value)
            for length, table in self._prefixes.items():
                entries = table.get(value[:length])
                if entries is not None:
                    best, found = _first_of(entries, request, best, found)
            for length, table in self._suffixes.items():
                if length <= size:
                    entries = table.get(value[size - length :])
                    if entries is not None:
                        best, found = _first_of(entries, request, best, found)
        if self._others:
            best, found = _first_of(self._others, request, best, found)
        return best, found


def _first_of(entries: list[_Entry[Any]], request: Request, best: int, found: Any) -> tuple[int, Any]:
    for order, matches, outcome in entries:
        if order >= best:
            break
        if matches(request):
            return order, outcome
    return best, found


def _append(entries: list[_Entry[Outcome]], entry: _Entry[Outcome]) -> None:
    if not entries or entries[-1] is not entry:
        entries.append(entry)


def _names(field: bytes, separator: bytes) -> set[bytes]:
    """The names in a Cookie field or a query, each of them once."""
    return {part.partition(b"=")[0].lstrip(b" \t") for part in field.split(separator)}


def _leaf(spec: ConditionSpec) -> list[_Anchor] | None:
    """What a request must have one of for a comparison to hold; None if there is no such thing."""
    if spec.kind == "time" or (spec.kind == "client" and spec.compare != "within"):
        return None
    if spec.kind == "client":
        return [("client", b"", "network", b"", network) for network in networks_of(spec)]
    name = spec.name.lower() if spec.kind == "header" else spec.name
    how = _HOW.get(spec.compare)
    if how is None:
        return [(spec.kind, name.encode(), "any", b"", _NO_NETWORK)]
    texts = spec.values[:1] if spec.compare == "equals" else spec.values
    if spec.kind == "host":
        texts = tuple(text.lower() for text in texts)
    return [(spec.kind, name.encode(), how, text.encode(), _NO_NETWORK) for text in texts]


def _possible(spec: ConditionSpec) -> Iterable[_Anchor]:
    """Everything that a rule could be filed under."""
    if spec.inverted:
        return ()
    if spec.kind in ("all_of", "any_of"):
        return [anchor for child in spec.children for anchor in _possible(child)]
    return _leaf(spec) or ()


def _anchors(spec: ConditionSpec, counts: Counter[_Anchor]) -> list[_Anchor] | None:
    """What a request must have one of for the rule to hold; None if it may hold without anything."""
    if spec.inverted:
        return None
    if spec.kind not in ("all_of", "any_of"):
        return _leaf(spec)
    below = [_anchors(child, counts) for child in spec.children]
    if spec.kind == "any_of":
        return None if None in below else [anchor for anchors in below if anchors for anchor in anchors]
    # all_of: any one child's need is the whole rule's; the one that the fewest rules share sorts best.
    known = [anchors for anchors in below if anchors is not None]
    return min(known, key=lambda anchors: _crowd(anchors, counts), default=None)


def _crowd(anchors: list[_Anchor], counts: Counter[_Anchor]) -> tuple[int, bool, int]:
    """How many rules are asked where one of these is met, at the most."""
    most = max((counts[anchor] for anchor in anchors), default=0)
    return most, any(how == "any" for _, _, how, _, _ in anchors), len(anchors)

"""A thousand rules cost what the matching header costs: counted in lines of Python, alike on every machine."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import FrameType
from typing import Any

import pytest

from loadtests.replay import SERVICE
from router.core import rules
from router.core.audience import ConditionSpec
from router.core.decide import decide, identify
from router.core.hashing import UserKey
from router.core.request import Request
from router.core.rules import RuleIndex
from router.core.snapshot import Service, compile_service
from router.core.spec import RingSpec
from tests.core_services import TABLES, request

pytestmark = pytest.mark.skipif(not rules.__file__.endswith(".py"), reason="native code has no lines to count")
MANY = 1_000


def steps(work: Any, *arguments: Any) -> int:
    """How many lines run, in everything that is called."""
    count = 0

    def trace(_frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work(*arguments)
    finally:
        sys.settrace(before)
    return count


def named(kind: str, compare: str, text: str, name: str = "X-Tenant") -> Any:
    """Rules of one kind, each with a value of its own."""
    return lambda n: ConditionSpec(kind, name, compare, (text.format(n),))


def busy() -> Request:
    """A request that has something everywhere, and is what rule 700 asks for."""
    asked = Request(
        b"t0700.example.com", b"/t0700/cart", {b"x-tenant": b"t0700", b"x-beta": b"1"}, b"X-Tenant=t0700; a=1"
    )
    asked.query = b"a=1&X-Tenant=t0700"
    asked.claims = {"X-Tenant": (b"t0700", b"other"), "sub": (b"alice",)}
    asked.client = b"10.2.188.7"  # 700 = 2 * 256 + 188
    asked.key = UserKey(b"t0700")
    asked.method = b"T0700"
    return asked


def network(n: int) -> ConditionSpec:
    return ConditionSpec("client", "", "within", (f"10.{n // 256}.{n % 256}.0/24", f"2001:db8:{n:x}::/48"))


def with_others(n: int) -> ConditionSpec:
    """What every rule asks for beside its own value must not be what they are filed under."""
    common = (
        ConditionSpec("method", "", "equals", ("T0700",)),
        ConditionSpec("header", "X-Beta", "one_of", ("1", "2")),
        ConditionSpec("header", "X-Tenant"),
        ConditionSpec("client", "", "within", ("10.0.0.0/8",)),
        ConditionSpec("header", "X-Banned", inverted=True),
    )
    return ConditionSpec("all_of", children=(*common, named("header", "equals", "t{:04}")(n)))


def either(n: int) -> ConditionSpec:
    return ConditionSpec(
        "any_of", children=(named("header", "equals", "t{:04}")(n), named("cookie", "equals", "{}")(n))
    )


def shared(n: int) -> ConditionSpec:
    return ConditionSpec("all_of", children=(named("header", "equals", "t{:04}")(n),), share=9_999)


INDEXED = {
    "header equals": named("header", "equals", "t{:04}"),
    "header one_of": lambda n: ConditionSpec("header", "X-Tenant", "one_of", (f"t{n:04}", f"other{n}")),
    "header prefix": named("header", "prefix", "t{:04}"),
    "header suffix": named("header", "suffix", "{:04}"),
    "headers by the thousand": lambda n: ConditionSpec("header", f"X-Other-{n}" if n != 700 else "X-Tenant"),
    "cookie equals": named("cookie", "equals", "t{:04}"),
    "cookies by the thousand": lambda n: ConditionSpec("cookie", f"other-{n}" if n != 700 else "X-Tenant"),
    "query equals": named("query", "equals", "t{:04}"),
    "parameters by the thousand": lambda n: ConditionSpec("query", f"other-{n}" if n != 700 else "X-Tenant"),
    "claim equals": named("claim", "equals", "t{:04}"),
    "path equals": named("path", "equals", "/t{:04}/cart", ""),
    "path prefix": named("path", "prefix", "/t{:04}/", ""),
    "path suffix": named("path", "suffix", "{:04}/cart", ""),
    "host equals": named("host", "equals", "t{:04}.example.com", ""),
    "host suffix": named("host", "suffix", "{:04}.example.com", ""),
    "method equals": named("method", "equals", "T{:04}", ""),
    "user equals": named("user", "equals", "t{:04}", ""),
    "client within": network,
    "all_of with much in common": with_others,
    "any_of": either,
    "a share": shared,
}


@pytest.mark.parametrize("kind", INDEXED)
def test_a_thousand_rules_cost_what_the_one_that_fits_costs(kind: str) -> None:
    make = INDEXED[kind]
    one, many = RuleIndex([(make(700), 700)]), RuleIndex([(make(n), n) for n in range(MANY)])
    asked = busy()
    assert one.first(asked)[1] == many.first(asked)[1] == 700
    assert steps(many.first, asked) <= steps(one.first, asked) + 20
    nobody = request(x_tenant="none")
    assert one.first(nobody)[1] == many.first(nobody)[1]  # and what is kept of an address is kept for both
    assert steps(many.first, nobody) <= steps(one.first, nobody) + 20


@pytest.mark.parametrize("compare", ["contains", "glob", "semver", "regex"])
def test_other_comparisons_are_asked_only_of_the_header_they_are_about(compare: str) -> None:
    values = {"contains": "{}!", "glob": "{}!*", "semver": "={}.999.0", "regex": "^{}!"}
    many = RuleIndex([(named("header", compare, values[compare])(n), n) for n in range(MANY)])
    assert steps(many.first, request(x_other="x")) < 20
    assert steps(many.first, request(x_tenant="x")) > MANY  # they stay linear, and this count can see such things


def of_rings(*rings: RingSpec, **changes: Any) -> Service:
    return compile_service(replace(SERVICE, rings=rings, **changes), 0, TABLES.__getitem__)


def whole(shop: Service, asked: Request) -> int:
    return steps(lambda: decide(shop, asked, identify(shop, asked)))


def test_a_service_that_uses_nothing_of_this_pays_a_look_each() -> None:
    """Before there were audiences it took 23 lines, and what is new may take one each: noting the key, looking for a
    forced ring, for what makes a service intricate, for rules that are not about headers or cookies.
    """
    asked = request(x_user_id="user-1")
    assert whole(compile_service(SERVICE), asked) <= 23 + 5


def test_tables_and_denied_lists_cost_the_same_whoever_is_in_them() -> None:
    everyone = RingSpec("everyone", "v1", 10_000)
    asked = request(x_user_id="user-1")
    deny = [named("user", "equals", "t{}", "")(n) for n in range(MANY)]
    few = of_rings(RingSpec("canary", "v2", tables=("/tables/one",), denied=tuple(deny[:1])), everyone)
    many = of_rings(RingSpec("canary", "v2", tables=("/tables/one",), denied=tuple(deny)), everyone)
    assert whole(many, asked) <= whole(few, asked) + 5

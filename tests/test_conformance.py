"""RFC 9110 and RFC 9112, case by case: client, router and backend agree on every message, however its bytes are cut."""

from __future__ import annotations

import collections

import pytest

from tests.conformance import REQUESTS, RESPONSES
from tests.conformance.case import RequestCase, ResponseCase
from tests.conformance.memory import in_memory
from tests.conformance.runner import complaints, in_every_slicing, on_the_wire
from tests.conformance.wire import on_sockets
from tests.native import IS_RUN_AGAIN

CASES: list[RequestCase | ResponseCase] = [*REQUESTS, *RESPONSES]
every_case = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
CUT = CASES[::4] if IS_RUN_AGAIN else CASES
every_case_cut = pytest.mark.parametrize("case", CUT, ids=[case.name for case in CUT])


@every_case
async def test_on_sockets(case: RequestCase | ResponseCase) -> None:
    async with on_sockets(getattr(case, "hosts", ())) as stage:
        if wrong := await complaints(stage, case, on_the_wire(case.raw)):
            pytest.fail(wrong, pytrace=False)


@every_case_cut
async def test_cut_at_every_position(case: RequestCase | ResponseCase) -> None:
    async with in_memory(getattr(case, "hosts", ())) as stage:
        if wrong := await complaints(stage, case, in_every_slicing(case.raw)):
            pytest.fail(wrong, pytrace=False)


def test_every_case_has_a_name_of_its_own() -> None:
    names = collections.Counter(case.name for case in CASES)
    assert [name for name, times in names.items() if times > 1] == []
    assert len(REQUESTS) >= 350
    assert len(RESPONSES) >= 200

"""The OpenAPI document says what there is: every route is in it, and what it allows is what the API takes and gives."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings

from router.admin.app import create_app
from router.admin.openapi import ENDPOINTS, PREFIX, ROLLOUT, document
from router.admin.trouble import CODES
from router.admin.view import View
from router.admin.writes import LEVERS
from router.rollout.observation import VERBS
from router.telemetry.catalogue import ADMIN_PATHS
from tests.admin import OPERATOR, administered
from tests.redis_fixture import Server

DOCS = (Path(__file__).parent.parent / "docs" / "admin-api.md").read_text("utf-8")


def test_every_route_is_documented_and_every_documented_one_is_there() -> None:
    app = create_app(cast("View", object()))  # nobody asks it anything
    routes = {
        (route.method.lower(), route.resource.canonical)
        for route in app.router.routes()
        if route.resource is not None and route.resource.canonical.startswith(PREFIX)
    }
    assert routes == {(endpoint.method, PREFIX + endpoint.path) for endpoint in ENDPOINTS}


def test_whoever_writes_is_an_operator() -> None:
    operators = {endpoint.path for endpoint in ENDPOINTS if endpoint.access == "operator"}
    orders = {ROLLOUT, *(f"{ROLLOUT}/{verb}" for verb in VERBS)}
    assert operators == set(LEVERS) | orders
    assert {endpoint.path for endpoint in ENDPOINTS if endpoint.method == "post"} - operators == {
        "/login", "/logout", "/explain",
    }  # fmt: skip


def test_every_reference_in_it_leads_somewhere() -> None:
    made = document()
    references: list[str] = []

    def walk(part: Any) -> None:
        if isinstance(part, dict):
            references.extend([part["$ref"]] if isinstance(part.get("$ref"), str) else [])
            for value in part.values():
                walk(value)
        elif isinstance(part, list):
            for value in part:
                walk(value)

    walk(made)
    assert references
    for reference in set(references):
        here: Any = made
        for step in reference.removeprefix("#/").split("/"):
            here = here[step]
    failures = {int(status) for status in made["components"]["responses"]}
    assert {status for status, _ in CODES.values()} - {500} <= failures


def test_the_manual_names_every_path_and_every_code() -> None:
    assert [endpoint.path for endpoint in ENDPOINTS if f"`{endpoint.path}" not in DOCS
            and f" {endpoint.path}" not in DOCS] == []  # fmt: skip
    assert [code for code in CODES if f"`{code}`" not in DOCS] == []


async def test_what_the_document_allows_is_taken_and_what_it_forbids_is_refused(
    redis_server: Server, tmp_path: Path
) -> None:
    """Made-up requests, half of them wrong on purpose: no answer is a 5xx, and each is one that is documented."""
    schemathesis = pytest.importorskip("schemathesis")
    from schemathesis import checks

    held = [
        checks.not_a_server_error, checks.status_code_conformance, checks.content_type_conformance,
        checks.response_schema_conformance, checks.negative_data_rejection,
    ]  # fmt: skip
    async with administered(tmp_path, redis_server.url) as house:
        made = msgspec.json.decode((await house.call("GET", "/openapi.json")).text)
        refusals = {"negative_data_rejection": {"expected-statuses": [400, 404, 409, 413]}}
        config = schemathesis.Config.from_dict({"checks": refusals})
        operations = [
            result.ok() for result in schemathesis.openapi.from_dict(made, config=config).get_all_operations()
        ]
        asked = 0

        def ask(operation: Any, mode: Any) -> None:
            @settings(
                max_examples=12, deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=True
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def one(case: Any) -> None:
                nonlocal asked
                asked += 1
                case.call_and_validate(
                    base_url=house.base, headers={"Authorization": f"Bearer {OPERATOR}"}, checks=held, timeout=20
                )

            one()

        streams = {PREFIX + endpoint.path for endpoint in ENDPOINTS if endpoint.streams}
        for operation in operations:
            # A made-up login is a failed one, and ten of them close the door for everybody who comes from here.
            if operation.path in streams | {PREFIX + "/login"}:
                continue
            takes = operation.body or operation.query
            for mode in schemathesis.GenerationMode:
                if takes or mode is schemathesis.GenerationMode.POSITIVE:
                    await asyncio.to_thread(ask, operation, mode)
        assert asked > 100


def test_every_path_of_the_admin_side_is_one_that_metrics_know() -> None:
    app = create_app(cast("View", object()))
    routed = {route.resource.canonical for route in app.router.routes() if route.resource is not None}
    assert routed == set(ADMIN_PATHS) - {"none"}

"""The API as an OpenAPI 3.1 document, made of the very types that are decoded and encoded.

``ENDPOINTS`` is the list of everything under ``/api/v1``; a test holds it against the routes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec

from router import __version__
from router.admin import bodies, shapes
from router.rollout.observation import VERBS, Verb
from router.rollout.progress import Progress
from router.rollout.report import Report
from router.telemetry import picture

PREFIX: Final = "/api/v1"
ROLLOUT: Final = "/rollouts/{service}"
Access = Literal["anybody", "viewer", "operator"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One of a query's. ``shape`` is its JSON Schema."""

    name: str
    shape: dict[str, Any]
    says: str
    is_required: bool = False
    is_list: bool = False


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method of one path, and who may use it. ``gives`` None: no body; ``streams``: an event stream's events."""

    method: Literal["get", "post"]
    path: str
    says: str
    access: Access
    gives: Any = None
    takes: Any = None
    parameters: tuple[Parameter, ...] = ()
    status: int = 200
    streams: tuple[tuple[str, Any], ...] = ()
    text: str = ""
    """The media type that it can give instead of JSON."""


_SERVICE: Final = Parameter("service", {"type": "string", "pattern": bodies.SERVICE}, "A service's name.")
_SERVICES: Final = Parameter("service", {"type": "string", "pattern": bodies.SERVICE}, "One service alone.")
_RING: Final = {"type": "string", "pattern": bodies.NAME}
_SCOPE: Final = Parameter(
    "scope", {"enum": ["fleet", "instance"]}, "fleet (where there is a Redis) or this instance alone. Default: fleet."
)


_ORDERS: Final[dict[Verb, str]] = {
    "pause": "It stands still; rings and weights stay.",
    "resume": "A paused one goes on.",
    "approve": "Yes to the step that waits for it.",
    "promote": "The next step now, proven or not.",
    "rollback": "The stable version for all its rings, at once.",
    "abort": "It ends here; rings and weights stay.",
}


def _needed(parameter: Parameter) -> Parameter:
    return Parameter(parameter.name, parameter.shape, parameter.says, is_required=True)


ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    Endpoint("get", "/openapi.json", "This document.", "anybody", dict[str, Any]),
    Endpoint("get", "/session", "Who is asking, and what that allows.", "anybody", bodies.Session),
    Endpoint("post", "/login", "A session for a token.", "anybody", bodies.Session, bodies.Login),
    Endpoint("post", "/logout", "The session ends.", "viewer", None, status=204),
    Endpoint("get", "/state", "Everything about this instance.", "viewer", dict[str, Any]),
    Endpoint("get", "/rings", "The picture of the rings.", "viewer", picture.Picture, None, (_SERVICES, _SCOPE)),
    Endpoint(
        "get", "/series", "One metric of one ring over time.", "viewer", picture.Series, None,
        (
            _needed(_SERVICE),
            Parameter("ring", _RING, "A ring of the service.", is_required=True),
            Parameter("version", _RING, "One version. Default: all of them together."),
            Parameter("metric", {"enum": ["rps", "success", "share", "p50", "p95", "p99"]}, "What.", is_required=True),
            Parameter("from", {"type": "number", "minimum": 0}, "Unix seconds. Default: as far back as there is."),
            Parameter("step", {"enum": [1, 60]}, "Seconds: 1 for the last 15 minutes, 60 for the last 24 hours."),
        ),
    ),
    Endpoint("get", "/backends", "Every endpoint, and how it is.", "viewer", shapes.Backends, None, (_SERVICES,)),
    Endpoint("get", "/config", "The config in force, redacted, and where it comes from.", "viewer", shapes.ConfigState),
    Endpoint(
        "get", "/audit", "Who changed what, when and why.", "viewer", shapes.Trail, None,
        (
            _SERVICES,
            Parameter("count", {"type": "integer", "minimum": 1, "maximum": 1000}, "At the most, per service: 100."),
            Parameter("before", {"type": "string", "pattern": r"^[0-9]{1,20}(-[0-9]{1,20})?$"}, "Older than this id."),
        ),
    ),
    Endpoint("get", "/fleet", "All instances, and who is behind.", "viewer", picture.Fleet),
    Endpoint(
        "get", "/explain", "Why a request gets its ring.", "viewer", dict[str, Any], None,
        (
            _SERVICE,
            Parameter("host", {"type": "string", "maxLength": 255}, "The request's host."),
            Parameter("path", {"type": "string", "maxLength": 1000}, "Its path, with or without a query."),
            Parameter("method", {"type": "string", "maxLength": 32}, "Its method. Default: GET."),
            Parameter("header", {"type": "string", "maxLength": 250}, "`Name: value`; may be repeated.", is_list=True),
            Parameter("cookie", {"type": "string", "maxLength": 250}, "`name=value`; may be repeated.", is_list=True),
            Parameter("user", {"type": "string", "maxLength": 512}, "Sets the first identity header or cookie."),
            Parameter("client", {"type": "string", "maxLength": 64}, "The client's address."),
        ),
    ),
    Endpoint("post", "/explain", "Why a request gets its ring.", "viewer", dict[str, Any], bodies.Asked),
    Endpoint(
        "get", "/events", "What happens, as it happens.", "viewer",
        streams=(
            ("snapshot", shapes.Snapshot), ("tick", picture.Picture), ("change", shapes.News),
            ("audit", shapes.AuditEntry),
        ),
    ),
    Endpoint(
        "get", "/tap", "Sampled requests, as they come.", "viewer", None, None,
        (
            _SERVICES,
            Parameter("ring", _RING, "One ring alone."),
            Parameter("rate", {"type": "integer", "minimum": 1, "maximum": 1000}, "A second, at the most: 10."),
        ),
        streams=(("message", shapes.Tapped), ("dropped", shapes.Dropped)),
    ),
    Endpoint("post", "/weights", "Another weight for some rings.", "operator", bodies.Done, bodies.SetWeights),
    Endpoint("post", "/versions", "Another version for some rings.", "operator", bodies.Done, bodies.SetVersions),
    Endpoint("post", "/kill", "Rings that nobody may be in.", "operator", bodies.Done, bodies.SetKilled),
    Endpoint("post", "/freeze", "No widening, or widening again.", "operator", bodies.Done, bodies.SetFrozen),
    Endpoint("post", "/members", "Users who are in a ring by name.", "operator", bodies.Done, bodies.ChangeMembers),
    Endpoint("post", "/drain", "An endpoint out of service, or back.", "operator", bodies.Done, bodies.SetDrained),
    Endpoint("post", "/undo", "The last change of weights, taken back.", "operator", bodies.Done, bodies.Undo),
    Endpoint("post", "/reload", "The config file, read now.", "operator", bodies.Done, bodies.Reload),
    Endpoint("get", "/rollouts", "Each service's rollout, or its last one, in a line.", "viewer", shapes.Rollouts),
    Endpoint("get", ROLLOUT, "How one rollout stands, or how the last one ended.", "viewer", Progress),
    Endpoint(
        "get", f"{ROLLOUT}/report", "What came of it, to keep.", "viewer", Report, None,
        (Parameter("format", {"enum": ["json", "markdown"]}, "Default: json."),), text="text/markdown",
    ),
    Endpoint("post", ROLLOUT, "Begin a rollout.", "operator", Progress, bodies.StartRollout),
    *(
        Endpoint("post", f"{ROLLOUT}/{verb}", _ORDERS[verb], "operator", Progress, bodies.ORDERS[verb])
        for verb in VERBS
    ),
)  # fmt: skip

_FAILURES: Final = {
    400: "What was asked cannot be understood, or is refused by the rules of the config.",
    401: "No token, or none that is known. Never a redirect.",
    403: "The role does not allow it; or the CSRF token or the origin is wrong.",
    404: "There is no such service, ring or version.",
    405: "Another method.",
    408: "The body did not come within ten seconds.",
    409: "Somebody has changed it since, or it cannot be done now. `current` is how it is now.",
    413: "The body is larger than 64 KiB.",
    415: "The body is not application/json.",
    421: "This Host is not served here.",
    422: "Redis holds something that has to be mended first.",
    429: "Too many failed attempts from this address; Retry-After says when.",
    503: "Redis is away, or there are too many listeners.",
}


def document() -> dict[str, Any]:
    """OpenAPI 3.1, as plain data."""
    types = [bodies.Problem]
    for endpoint in ENDPOINTS:
        types += [kind for kind in (endpoint.gives, endpoint.takes) if kind is not None and kind is not dict[str, Any]]
        types += [kind for _, kind in endpoint.streams]
    unique = list(dict.fromkeys(types))
    references, schemas = msgspec.json.schema_components(unique, ref_template="#/components/schemas/{name}")
    known = dict(zip(unique, references, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in ENDPOINTS:
        paths.setdefault(PREFIX + endpoint.path, {})[endpoint.method] = _operation(endpoint, known)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ring-router admin",
            "version": __version__,
            "description": "What each ring experiences, and the levers that move it. See docs/admin-api.md.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": {str(status): _failure(says, known) for status, says in _FAILURES.items()},
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "A token of `admin.tokens`."},
                "session": {
                    "type": "apiKey", "in": "cookie", "name": "ring_session",
                    "description": "From POST /login; writes need X-CSRF-Token too. On TLS: `__Host-ring_session`.",
                },
            },
        },
    }  # fmt: skip


def _failure(says: str, known: dict[Any, Any]) -> dict[str, Any]:
    return {"description": says, "content": {"application/problem+json": {"schema": known[bodies.Problem]}}}


def _operation(endpoint: Endpoint, known: dict[Any, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": endpoint.says}
    if endpoint.streams:
        events = [
            {"type": "object", "title": name, "properties": {"event": {"const": name}, "data": known[kind]}}
            for name, kind in endpoint.streams
        ]
        answer["content"] = {"text/event-stream": {"schema": {"type": "string"}}}
        answer["x-events"] = events
    elif endpoint.gives is not None:
        schema = {"type": "object"} if endpoint.gives is dict[str, Any] else known[endpoint.gives]
        answer["content"] = {"application/json": {"schema": schema}}
        if endpoint.text:
            answer["content"][endpoint.text] = {"schema": {"type": "string"}}
    made: dict[str, Any] = {
        "operationId": f"{endpoint.method}_{re.sub(r'[^a-z]+', '_', endpoint.path).strip('_')}",
        "summary": endpoint.says,
        "responses": {
            str(endpoint.status): answer,
            **{str(status): {"$ref": f"#/components/responses/{status}"} for status in _FAILURES},
        },
        "security": [] if endpoint.access == "anybody" else [{"token": []}, {"session": []}],
        "x-role": endpoint.access,
    }
    parameters = [_parameter(one) for one in endpoint.parameters]
    if "{service}" in endpoint.path:
        parameters.insert(0, {**_parameter(_needed(_SERVICE)), "in": "path"})
    if parameters:
        made["parameters"] = parameters
    if endpoint.takes is not None:
        made["requestBody"] = {"required": True, "content": {"application/json": {"schema": known[endpoint.takes]}}}
    return made


def _parameter(one: Parameter) -> dict[str, Any]:
    shape = {"type": "array", "items": one.shape, "maxItems": 5} if one.is_list else one.shape
    return {"name": one.name, "in": "query", "description": one.says, "required": one.is_required, "schema": shape}

"""Every way a request can fail here, as one table: status, reason word, and what the client is told.

The backend's address and anything it said stay inside: a client gets the status, the word and the request id.
"""

from __future__ import annotations

from dataclasses import dataclass
from email.utils import formatdate
from enum import Enum
from http import HTTPStatus
from typing import Final

import msgspec

from router.core.spec import ErrorPageSpec
from router.proxy import ends
from router.proxy.grammar import (
    ExpectationError,
    FramingError,
    RefusedMethodError,
    TargetTooLongError,
    TooManyFieldsError,
    UnknownCodingError,
    UnknownVersionError,
)

ALLOW: Final = b"Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a failure turns into.

    ``closes``: the connection to the client cannot be used again. ``retryable``: nothing was done, so the client may
    ask again as it is. ``line`` is a field line that the status asks for. ``cause`` is the access log's (``ends``).
    """

    status: int
    word: str
    sentence: str
    cause: str
    closes: bool = False
    retryable: bool = False
    line: bytes = b""


class Failure(Enum):
    """Why the router, not the backend, answered."""

    BAD_REQUEST = Answer(400, "bad_request", "The request is malformed.", ends.REFUSED, closes=True)
    BAD_HANDSHAKE = Answer(400, "bad_handshake", "This is not a WebSocket handshake.", ends.REFUSED, closes=True)
    NO_SERVICE = Answer(404, "no_service", "No service is configured for this host and path.", ends.REFUSED)
    METHOD_REFUSED = Answer(
        405, "method_refused", "This method is not served here.", ends.REFUSED, closes=True, line=ALLOW
    )
    REQUEST_TIMEOUT = Answer(
        408, "request_timeout", "The request did not arrive in time.", ends.CLIENT_SLOW, closes=True, retryable=True
    )
    SLOW_READER = Answer(408, "slow_reader", "The response was not taken in time.", ends.CLIENT_SLOW, closes=True)
    BODY_TOO_LARGE = Answer(413, "body_too_large", "The request body is too large.", ends.LIMIT, closes=True)
    URI_TOO_LONG = Answer(414, "uri_too_long", "The request target is too long.", ends.LIMIT, closes=True)
    EXPECTATION_FAILED = Answer(
        417, "expectation_failed", "Only 100-continue can be expected.", ends.REFUSED, closes=True
    )
    UPGRADE_REQUIRED = Answer(
        426, "upgrade_required", "Only version 13 of WebSocket is spoken.", ends.REFUSED, closes=True,
        line=b"Sec-WebSocket-Version: 13\r\nUpgrade: websocket\r\nConnection: Upgrade",  # RFC 9110 §15.5.22
    )  # fmt: skip
    TOO_MANY_OF_CLIENT = Answer(
        429, "too_many_of_client", "This client has too many connections.", ends.LIMIT, closes=True, retryable=True
    )
    HEAD_TOO_LARGE = Answer(431, "head_too_large", "The request head is too large.", ends.LIMIT, closes=True)
    UNKNOWN_CODING = Answer(501, "unknown_coding", "The transfer coding is not implemented.", ends.REFUSED, closes=True)
    CONNECT_FAILED = Answer(502, "connect_failed", "The backend could not be reached.", ends.UPSTREAM, retryable=True)
    TLS_FAILED = Answer(502, "tls_failed", "The backend could not be trusted.", ends.UPSTREAM, retryable=True)
    UPSTREAM_RESET = Answer(
        502, "upstream_reset", "The backend closed the connection before it answered.", ends.UPSTREAM
    )
    UPSTREAM_PROTOCOL = Answer(
        502, "upstream_protocol", "The backend sent an answer that is not valid HTTP.", ends.UPSTREAM
    )
    NO_ENDPOINT = Answer(
        503, "no_endpoint", "No backend is available.", ends.NOBODY, retryable=True, line=b"Retry-After: 5"
    )
    OVERLOADED = Answer(
        503, "overloaded", "The backends have too much to do.", ends.LIMIT, retryable=True, line=b"Retry-After: 1"
    )
    NOT_READY = Answer(503, "not_ready", "The router has no routing table yet.", ends.NOBODY, retryable=True)
    TOO_MANY_CONNECTIONS = Answer(
        503, "too_many_connections", "The router has too many connections.", ends.LIMIT, closes=True, retryable=True,
        line=b"Retry-After: 1",
    )  # fmt: skip
    NO_DESCRIPTORS = Answer(
        503,
        "no_descriptors",
        "The router has no connection to spare.",
        ends.LIMIT,
        retryable=True,
        line=b"Retry-After: 1",
    )
    CONNECT_TIMEOUT = Answer(
        504, "connect_timeout", "The backend did not accept the connection in time.", ends.UPSTREAM_SLOW, retryable=True
    )
    UPSTREAM_TIMEOUT = Answer(504, "upstream_timeout", "The backend did not answer in time.", ends.UPSTREAM_SLOW)
    DEADLINE = Answer(504, "deadline", "The request as a whole took too long.", ends.DEADLINE)
    VERSION_REFUSED = Answer(
        505, "version_refused", "Only HTTP/1.1 and HTTP/1.0 are spoken here.", ends.REFUSED, closes=True
    )


_OF_HEADS: Final[dict[type[FramingError], Failure]] = {
    UnknownCodingError: Failure.UNKNOWN_CODING,
    UnknownVersionError: Failure.VERSION_REFUSED,
    RefusedMethodError: Failure.METHOD_REFUSED,
    TooManyFieldsError: Failure.HEAD_TOO_LARGE,
    TargetTooLongError: Failure.URI_TOO_LONG,
    ExpectationError: Failure.EXPECTATION_FAILED,
}


def failure_of(error: FramingError) -> Failure:
    """What a head that was refused turns into: malformed, unless it is something better known."""
    return _OF_HEADS.get(type(error), Failure.BAD_REQUEST)


def wants_json(accept: bytes) -> bool:
    """Whether an Accept value (RFC 9110 §12.5.1) names JSON before any text."""
    for part in accept.lower().split(b","):
        kind, _, parameters = part.strip(b" \t").partition(b";")
        weights = [one.strip(b" \t") for one in parameters.split(b";")]
        if any(one[:3] == b"q=0" and not one[3:].strip(b".0") for one in weights):
            continue
        kind = kind.strip(b" \t")
        if kind == b"application/json" or kind.endswith(b"+json"):
            return True
        if kind.startswith(b"text/"):
            return False
    return False


def render(
    failure: Failure,
    request_id: bytes,
    *,
    close: bool,
    head_only: bool = False,
    lines: bytes = b"",
    accept: bytes = b"",
    pages: tuple[ErrorPageSpec, ...] = (),
) -> bytes:
    """The whole response to a failed request. ``lines`` are further field lines (ring headers)."""
    answer = failure.value
    shown = request_id.decode("latin-1")
    kind = b"text/plain; charset=utf-8"
    page = next((page for page in pages if page.status == answer.status), None)
    if wants_json(accept):
        kind = b"application/json"
        body = msgspec.json.encode(
            {"status": answer.status, "error": answer.word, "message": answer.sentence, "request_id": shown}
        )
    elif page is not None:
        kind, body = page.content_type.encode(), page.body
    else:
        body = f"{answer.status} {answer.word}: {answer.sentence} (request {shown})\n".encode()
    head = [
        b"HTTP/1.1 %d %b" % (answer.status, HTTPStatus(answer.status).phrase.encode()),
        b"Date: " + formatdate(usegmt=True).encode(),
        b"Content-Type: " + kind,
        b"Content-Length: %d" % len(body),
        b"Cache-Control: no-store",
        b"X-Request-Id: " + request_id,
    ]
    head += [line for line in (answer.line, lines, b"Connection: close" if close else b"") if line]
    return b"\r\n".join([*head, b"", b"" if head_only else body])

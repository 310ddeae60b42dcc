"""Every way a request can fail here, as one table: status, reason word, and what the client is told.

The backend's address and anything it said stay inside: a client gets the status, the word and the request id.
"""

from __future__ import annotations

from dataclasses import dataclass
from email.utils import formatdate
from enum import Enum
from http import HTTPStatus


@dataclass(frozen=True, slots=True)
class Answer:
    """What a failure turns into. ``closes``: the downstream connection cannot be used again."""

    status: int
    word: str
    sentence: str
    closes: bool = False


class Failure(Enum):
    """Why the router, not the backend, answered."""

    BAD_REQUEST = Answer(400, "bad_request", "The request is malformed.", closes=True)
    NO_SERVICE = Answer(404, "no_service", "No service is configured for this host and path.")
    METHOD_REFUSED = Answer(405, "method_refused", "This method is not served here.", closes=True)
    REQUEST_TIMEOUT = Answer(408, "request_timeout", "The request did not arrive in time.", closes=True)
    HEAD_TOO_LARGE = Answer(431, "head_too_large", "The request head is too large.", closes=True)
    VERSION_REFUSED = Answer(505, "version_refused", "Only HTTP/1.1 and HTTP/1.0 are spoken here.", closes=True)
    UNKNOWN_CODING = Answer(501, "unknown_coding", "The transfer coding is not implemented.", closes=True)
    CONNECT_FAILED = Answer(502, "connect_failed", "The backend could not be reached.")
    UPSTREAM_RESET = Answer(502, "upstream_reset", "The backend closed the connection before it answered.")
    UPSTREAM_PROTOCOL = Answer(502, "upstream_protocol", "The backend sent an answer that is not valid HTTP.")
    NO_ENDPOINT = Answer(503, "no_endpoint", "No backend is available.")
    NOT_READY = Answer(503, "not_ready", "The router has no routing table yet.")
    CONNECT_TIMEOUT = Answer(504, "connect_timeout", "The backend did not accept the connection in time.")
    UPSTREAM_TIMEOUT = Answer(504, "upstream_timeout", "The backend did not answer in time.")


def render(failure: Failure, request_id: bytes, *, close: bool, head_only: bool, lines: bytes = b"") -> bytes:
    """The whole response to a failed request. ``lines`` are further field lines (ring headers)."""
    answer = failure.value
    body = f"{answer.status} {answer.word}: {answer.sentence} (request {request_id.decode('latin-1')})\n".encode()
    head = (
        b"HTTP/1.1 %d %b\r\nDate: %b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n"
        b"Cache-Control: no-store\r\nX-Request-Id: %b\r\n%b%b\r\n"
    ) % (
        answer.status,
        HTTPStatus(answer.status).phrase.encode(),
        formatdate(usegmt=True).encode(),
        len(body),
        request_id,
        lines and lines + b"\r\n",
        b"Connection: close\r\n" if close else b"",
    )
    return head if head_only else head + body

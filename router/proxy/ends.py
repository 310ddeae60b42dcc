"""How a request ended when it did not end as it should: two letters, who ended it and what was going on then.

The access log says them, ``-`` for a request that ended as it should. docs/access-log.md has the same tables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from router.proxy.exchange import Exchange

CLIENT: Final = "C"
CLIENT_SLOW: Final = "c"
UPSTREAM: Final = "U"
UPSTREAM_SLOW: Final = "u"
NOBODY: Final = "N"
REFUSED: Final = "R"
LIMIT: Final = "L"
DEADLINE: Final = "D"
IDLE: Final = "I"
MOVED: Final = "M"
KILLED: Final = "K"

CAUSES: Final = {
    CLIENT: "the client left",
    CLIENT_SLOW: "the client took too long to send, or to read",
    UPSTREAM: "the backend could not be reached, broke off, or sent what is not HTTP",
    UPSTREAM_SLOW: "the backend took too long",
    NOBODY: "there was no backend to ask, or no routing table yet",
    REFUSED: "the router refused it: malformed, or not served here",
    LIMIT: "a limit of the router's: of sizes, connections, requests at a time, descriptors",
    DEADLINE: "`timeouts.request` was over",
    IDLE: "nothing came from either side for `timeouts.tunnel`",
    MOVED: "its user got another ring or version, and is to come back there",
    KILLED: "the worker stopped before it was over",
}
"""The first letter: a time-out is a small one."""

REQUEST: Final = "R"
QUEUE: Final = "Q"
CONNECT: Final = "C"
HEAD: Final = "H"
DATA: Final = "D"
TUNNEL: Final = "T"

PHASES: Final = {
    REQUEST: "the request was still coming in",
    QUEUE: "it waited in the queue of its version (`overload`)",
    CONNECT: "it had no connection to a backend yet",
    HEAD: "it was sent, and waited for the head of the response",
    DATA: "the head of the response had gone out",
    TUNNEL: "it was a WebSocket",
}
"""The second letter."""


def flags(exchange: Exchange, cause: str) -> bytes:
    """What a request that ends now, for this cause, has in the log."""
    if exchange.tunnel is not None:
        phase = TUNNEL
    elif exchange.status:
        phase = DATA
    elif not exchange.is_request_complete:
        phase = REQUEST
    elif exchange.is_queued:
        phase = QUEUE
    elif exchange.outgoing is not None:
        phase = CONNECT
    else:
        phase = HEAD
    return (cause + phase).encode()

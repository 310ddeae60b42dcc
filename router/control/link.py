"""Connections to Redis: from a URL (redis://, rediss://, unix://) to a connection or a client with our limits.

The watcher's connection never retries on its own (the watcher reconnects, and knows that it did); a client for single
commands retries once, because an idle pooled connection is dead after a restart of the server.
"""

from __future__ import annotations

import inspect
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    NoPermissionError,
    RedisError,
    ResponseError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError

REPLY_SECONDS: Final = 1.0
"""How long a reply may take; with the heartbeat of 1 s this bounds staleness to about 2 s."""
SCHEMES: Final = ("redis", "rediss", "unix")


class BadURL(ValueError):
    """The URL is not one of a Redis; the message names the remedy."""


TROUBLE: Final = (RedisError, OSError, RuntimeError, BadURL)
"""What a command may raise when Redis is away: uvloop says RuntimeError on a dead connection."""


def _quiet() -> dict[str, Any]:
    """Keeps redis-py ≥ 8 from sending CLIENT MAINT_NOTIFICATIONS and CLIENT SETINFO: they end up in ACL logs."""
    known = inspect.signature(AbstractConnection.__init__).parameters
    quiet: dict[str, Any] = {}
    if "maint_notifications_config" in known:
        from redis.maint_notifications import MaintNotificationsConfig

        quiet["maint_notifications_config"] = MaintNotificationsConfig(enabled=False)
    if "driver_info" in known:
        quiet["driver_info"] = None
    return quiet


def _pool(url: str, *, retries: int, protocol: int, reply_seconds: float) -> ConnectionPool:
    if urlsplit(url).scheme not in SCHEMES:
        raise BadURL(f"{safe_url(url)} is not a Redis URL: it begins with redis://, rediss:// or unix://")
    try:
        pool: ConnectionPool = ConnectionPool.from_url(
            url, protocol=protocol, socket_timeout=reply_seconds, socket_connect_timeout=REPLY_SECONDS,
            retry=Retry(NoBackoff(), retries), **_quiet(),
        )  # fmt: skip
    except (ValueError, TypeError, RedisError) as error:
        raise BadURL(f"{safe_url(url)} is not a Redis URL: {error}") from None
    return pool


def make_connection(url: str, *, protocol: int = 3, reply_seconds: float = REPLY_SECONDS) -> AbstractConnection:
    """A fresh connection that is not connected yet and never retries. Raises ``BadURL``."""
    pool = _pool(url, retries=0, protocol=protocol, reply_seconds=reply_seconds)
    connection: AbstractConnection = pool.make_connection()  # type: ignore[no-untyped-call]
    return connection


def make_client(url: str) -> Redis:
    """A pooled client for single commands: one retry, one second. Close it with ``aclose``. Raises ``BadURL``."""
    return Redis.from_pool(_pool(url, retries=1, protocol=3, reply_seconds=REPLY_SECONDS))


def safe_url(url: str) -> str:
    """The URL as it may be shown: without its password."""
    try:
        parts = urlsplit(url)
        if parts.password is None:
            return url
    except ValueError:
        return "(a URL that cannot be read)"
    where = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{parts.username or ''}:***@{where}"))


def error_kind(error: BaseException) -> str:
    """A stable word for metrics: loading, auth, permission, timeout, reply, connection, url or other."""
    match error:
        case BusyLoadingError():
            return "loading"
        case AuthenticationError() | AuthorizationError():
            return "auth"
        case NoPermissionError():
            return "permission"
        case TimeoutError() | RedisTimeoutError():
            return "timeout"
        case ResponseError():
            return "reply"
        case BadURL():
            return "url"
        case RedisError() | OSError():
            return "connection"
        case _:
            return "other"


def error_text(error: BaseException) -> str:
    """One line about an error, never empty."""
    return " ".join(str(error).split())[:300] or type(error).__name__

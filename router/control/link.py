"""Connections to Redis: from a URL of any kind (``redis_url``) to a connection or a client with our limits.

The watcher's connection never retries on its own (the watcher reconnects, and knows that it did); a client for single
commands retries once, because an idle pooled connection is dead after a restart of the server.
"""

from __future__ import annotations

import contextlib
import inspect
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Connection, ConnectionPool, Redis, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    NoPermissionError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from router.config.redis_url import Account, Address, RedisTarget, parse_redis_url
from router.config.redis_url import safe_url as safe_url
from router.control.cluster import ClusterClient
from router.control.directory import ASK_SECONDS, Ask, Directory, Sentinels, Slots

REPLY_SECONDS: Final = 1.0
"""How long a reply may take; with the heartbeat of 1 s this bounds staleness to about 2 s."""
_NO_FILES: Final[Mapping[str, str]] = {}
_CLI_FILES: Final = {"ssl_ca_certs": "--cacert", "ssl_certfile": "--cert", "ssl_keyfile": "--key"}
"""redis-py's options as redis-cli calls them."""


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


class FileCredentials(CredentialProvider):
    """User and password, read at each connect where they are in files: a rotated secret is taken without a restart."""

    def __init__(self, account: Account) -> None:
        self._account = account

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        one = self._account
        user = _secret("username_file", one.username_file) if one.username_file else one.username
        password = _secret("password_file", one.password_file) if one.password_file else one.password
        return (user, password) if user else (password,)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        """redis-py's own logs a warning each time."""
        return self.get_credentials()


def _secret(option: str, path: str) -> str:
    text = _readable(option, path).decode("utf-8", "replace").rstrip("\r\n")
    if not text:
        raise RedisConnectionError(f"{option} {path} of the Redis URL is empty: write the secret into it")
    return text


def _readable(option: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise RedisConnectionError(
            f"{option} {path} of the Redis URL cannot be read ({error.strerror}): name a file that the router may read"
        ) from None


class _Found(Connection):
    """A connection that learns at each connect where to go, and looks at its files."""

    def __init__(
        self, *, directory: Directory | None = None, key: str = "", files: Mapping[str, str] = _NO_FILES, **more: Any
    ) -> None:
        super().__init__(**more)
        self.directory, self.key, self.files = directory, key, files

    async def _connect(self) -> None:
        for option, path in self.files.items():
            _readable(option, path)
        if self.directory is not None:
            self.host, self.port = await self.directory.find(self.key)
        await super()._connect()  # type: ignore[no-untyped-call]


class _FoundTls(_Found, SSLConnection):
    """The same over TLS; the certificate has to name the address that was found."""


class _FollowingPool(ConnectionPool):
    """A pool for writers behind Sentinels: no connection to yesterday's primary is used for longer than a second."""

    async def get_connection(self, *_: Any, **__: Any) -> AbstractConnection:
        connection: Any = await super().get_connection()  # type: ignore[no-untyped-call]
        try:
            if await has_moved(connection):
                await connection.disconnect()
                await connection.connect()
        except BaseException:
            await self.release(connection)
            raise
        return connection  # type: ignore[no-any-return]


async def has_moved(connection: AbstractConnection) -> bool:
    """Whether its directory (Sentinels, Cluster) names another server now than the one it is connected to."""
    if not isinstance(connection, _Found) or connection.directory is None:
        return False
    return await connection.directory.find(connection.key) != (connection.host, connection.port)


def doubt(connection: AbstractConnection) -> None:
    """The connection broke: who is the primary is asked again before the next one."""
    if isinstance(connection, _Found) and connection.directory is not None:
        connection.directory.forget()


def _options(target: RedisTarget, account: Account, *, retries: int, protocol: int, seconds: float) -> dict[str, Any]:
    options: dict[str, Any] = {
        "db": target.db, "protocol": protocol, "socket_timeout": seconds, "socket_connect_timeout": REPLY_SECONDS,
        "retry": Retry(NoBackoff(), retries), **_quiet(),
    }  # fmt: skip
    if account != Account():
        options["credential_provider"] = FileCredentials(account)
    if target.tls is not None:
        options |= {name: value for name, value in target.tls.items() if name != "ssl_check_hostname"}
        is_checked = target.tls.get("ssl_check_hostname", "true").lower() == "true"
        options["ssl_check_hostname"] = is_checked and target.tls.get("ssl_cert_reqs") != "none"
    return options


def _target(url: str) -> RedisTarget:
    try:
        return parse_redis_url(url)
    except ValueError as error:
        raise BadURL(f"{safe_url(url)} is not a Redis URL: {error}") from None


@cache
def directory_of(url: str) -> Sentinels | Slots | None:
    """One for each URL, so that all clients of this process ask once. Raises ``BadURL``."""
    target = _target(url)
    if target.kind == "sentinel":
        return Sentinels(target.addresses, target.primary, _asking(replace(target, db=0), target.sentinel))
    if target.kind == "cluster":
        return Slots(target.addresses, _asking(target, target.account))
    return None


def _asking(target: RedisTarget, account: Account) -> Ask:
    async def ask(address: Address, commands: Sequence[tuple[str, ...]]) -> list[Any]:
        options = _options(target, account, retries=0, protocol=2, seconds=ASK_SECONDS)
        kind = _Found if target.tls is None else _FoundTls
        connection = kind(host=address[0], port=address[1], files=target.tls_files, **options)
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
            answers = []
            for _ in commands:
                try:
                    answers.append(await connection.read_response())
                except NoPermissionError:
                    raise
                except ResponseError as error:
                    answers.append(error)
            return answers
        finally:
            await connection.disconnect(nowait=True)

    return ask


def _pool(url: str, *, retries: int, protocol: int, seconds: float, key: str = "", at: Address | None = None) -> Any:
    target = _target(url)
    options = _options(target, target.account, retries=retries, protocol=protocol, seconds=seconds)
    if target.kind == "unix":
        return ConnectionPool(connection_class=UnixDomainSocketConnection, path=target.path, **options)
    kind = _Found if target.tls is None else _FoundTls
    host, port = at or target.addresses[0]
    options |= {"host": host, "port": port, "files": target.tls_files}
    if at is None and target.kind != "one":
        options |= {"directory": directory_of(url), "key": key}
    pool = _FollowingPool if target.kind == "sentinel" else ConnectionPool
    return pool(connection_class=kind, **options)


def make_connection(
    url: str, key: str = "", *, protocol: int = 3, reply_seconds: float = REPLY_SECONDS
) -> AbstractConnection:
    """A fresh connection that is not connected yet and never retries; in a cluster to the owner of ``key``'s slot.

    Raises ``BadURL``.
    """
    pool = _pool(url, retries=0, protocol=protocol, seconds=reply_seconds, key=key)
    connection: AbstractConnection = pool.make_connection()
    return connection


def make_client(url: str) -> Redis:
    """A pooled client for single commands: one retry, one second. Close it with ``hang_up``. Raises ``BadURL``."""
    directory = directory_of(url)
    if isinstance(directory, Slots):
        return ClusterClient(
            directory, lambda address: _pool(url, retries=1, protocol=3, seconds=REPLY_SECONDS, at=address)
        )
    return Redis.from_pool(_pool(url, retries=1, protocol=3, seconds=REPLY_SECONDS))


async def hang_up(client: Redis) -> None:
    """Close it. What that fails with, a second of silence for one, undoes nothing that was done."""
    with contextlib.suppress(Exception):  # a dead transport may raise TypeError or AttributeError as well
        await client.aclose()


def by_hand(url: str, command: str) -> str:
    """What a person may type instead. redis-cli knows no Sentinels, and nothing of what stands behind the ``?``.

    A password is asked for, or read from its file; it is never shown.
    """
    target = _target(url)
    if target.kind == "sentinel":
        return f"ring-router redis {command}"
    words = [shlex.quote(word) for word in ("redis-cli", *_place(target), *_encryption(target))]
    typed = " ".join([*words, *_account(target.account), command])
    secret = target.account.password_file
    return f"REDISCLI_AUTH={_content(secret)} {typed}" if secret else typed


def _place(target: RedisTarget) -> list[str]:
    if target.kind == "unix":
        return ["-s", target.path, "-n", str(target.db)]
    host, port = target.addresses[0]
    if target.kind == "cluster":
        return ["-c", "-h", host, "-p", str(port)]
    scheme = "redis" if target.tls is None else "rediss"
    return ["-u", f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/{target.db}"]


def _encryption(target: RedisTarget) -> list[str]:
    if target.tls is None:
        return []
    files = [word for option, path in target.tls_files.items() for word in (_CLI_FILES[option], path)]
    return ["--tls", *files, *(["--insecure"] if target.tls.get("ssl_cert_reqs") == "none" else [])]


def _account(account: Account) -> list[str]:
    words = ["--askpass"] if account.password else []
    if account.username_file:
        return ["--user", _content(account.username_file), *words]
    return ["--user", shlex.quote(account.username), *words] if account.username else words


def _content(path: str) -> str:
    """What is in a file, for a shell."""
    return f'"$(cat {shlex.quote(path)})"'


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

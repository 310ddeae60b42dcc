"""What a Redis URL says: which kind of Redis, where, and with what credentials. Pure; nothing is connected or read.

``redis://host:6379/0``, ``rediss://`` (TLS), ``unix:///path``, ``redis+sentinel://host1:p,host2:p/NAME/0`` and
``redis+cluster://host1:p,host2:p``, the last two with ``rediss`` for TLS to every server, the sentinels too.
No message repeats the URL: it may hold a password.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

Kind = Literal["one", "unix", "sentinel", "cluster"]
Address = tuple[str, int]
"""Host and port."""

_KINDS: Final[Mapping[str, tuple[Kind, bool]]] = {
    "redis": ("one", False), "rediss": ("one", True), "unix": ("unix", False),
    "redis+sentinel": ("sentinel", False), "rediss+sentinel": ("sentinel", True),
    "redis+cluster": ("cluster", False), "rediss+cluster": ("cluster", True),
}  # fmt: skip
SCHEMES: Final = ", ".join(f"{scheme}://" for scheme in _KINDS)
_TLS_FILES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_TLS: Final = (*_TLS_FILES, "ssl_cert_reqs", "ssl_check_hostname")
_ACCOUNT: Final = ("username", "password", "username_file", "password_file")
_SENTINEL: Final = tuple(f"sentinel_{name}" for name in _ACCOUNT)
_SECRET: Final = ("password", "sentinel_password")
_REQUIRED: Final = ("required", "optional", "none")
_SENTINEL_PORT: Final = 26379
_PORT: Final = 6379


@dataclass(frozen=True, slots=True)
class Account:
    """Who asks. What is in files is read at each connect, so that a rotated secret is taken."""

    username: str = ""
    password: str = ""
    username_file: str = ""
    password_file: str = ""


@dataclass(frozen=True, slots=True)
class RedisTarget:
    """``addresses`` are the server, the sentinels or some nodes of the cluster."""

    kind: Kind
    addresses: tuple[Address, ...] = ()
    path: str = ""
    primary: str = ""
    db: int = 0
    tls: Mapping[str, str] | None = None
    """redis-py's ``ssl_*`` options; None: no TLS."""
    account: Account = field(default_factory=Account, repr=False)
    sentinel: Account = field(default_factory=Account, repr=False)

    @property
    def tls_files(self) -> dict[str, str]:
        """Option → path."""
        return {name: self.tls[name] for name in _TLS_FILES if self.tls and name in self.tls}


def parse_redis_url(url: str) -> RedisTarget:
    """Raises ``ValueError`` with the remedy."""
    try:
        parts = urlsplit(url)
        user, at, where = parts.netloc.rpartition("@")
    except ValueError:
        raise ValueError("this Redis URL cannot be read: an address in brackets is an IPv6 address") from None
    if parts.scheme not in _KINDS:
        raise ValueError(f"a Redis URL begins with one of {SCHEMES}, such as redis://127.0.0.1:6379/0")
    kind, has_tls = _KINDS[parts.scheme]
    options = _options(parts.query, kind, has_tls)
    name, _, password = user.partition(":")
    account = _account({"username": unquote(name), "password": unquote(password)} if at else {}, options, "")
    tls: dict[str, str] | None = {key: options[key] for key in _TLS if key in options} if has_tls else None
    if kind == "unix":
        if not parts.path:
            raise ValueError("a unix:// Redis URL names a socket file, such as unix:///run/redis/redis.sock")
        return RedisTarget(kind, path=unquote(parts.path), db=_db(options.get("db", "")), account=account)
    addresses = _addresses(where, kind)
    words = [unquote(word) for word in parts.path.split("/") if word]
    primary = ""
    if kind == "sentinel":
        if not words:
            raise ValueError(
                "a Sentinel URL names the primary as the sentinels do: redis+sentinel://host1:26379,host2:26379/NAME"
            )
        primary, *words = words
    if len(words) > 1:
        raise ValueError("this Redis URL has too long a path: behind the host only the number of the database may be")
    db = _db(options.get("db", words[0] if words else ""))
    if kind == "cluster" and db:
        raise ValueError("a cluster has no databases but 0: take the number off the URL")
    sentinel = _account({}, options, "sentinel_")
    return RedisTarget(kind, addresses, primary=primary, db=db, tls=tls, account=account, sentinel=sentinel)


def safe_url(url: str) -> str:
    """The URL as it may be shown: without its passwords."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "(a URL that cannot be read)"
    user, at, where = parts.netloc.rpartition("@")
    if at and ":" in user:
        parts = parts._replace(netloc=f"{user.partition(':')[0]}:***@{where}")
    query = parse_qsl(parts.query, keep_blank_values=True)
    if any(key in _SECRET for key, _ in query):
        hidden = [(key, "***" if key in _SECRET else value) for key, value in query]
        parts = parts._replace(query=urlencode(hidden, safe="*/:"))
    return parts.geturl()


def _options(query: str, kind: Kind, has_tls: bool) -> dict[str, str]:
    known = ("db", *_ACCOUNT, *(_TLS if has_tls else ()), *(_SENTINEL if kind == "sentinel" else ()))
    found = dict(parse_qsl(query, keep_blank_values=True))
    for key, value in found.items():
        if key in _TLS and not has_tls:
            raise ValueError(f"{key} is for TLS: begin the URL with rediss")
        if key not in known:
            raise ValueError(f"a Redis URL of this kind has no option {key[:40]!r}: it knows {', '.join(known)}")
        if not value:
            raise ValueError(f"{key} is empty in this Redis URL: give it a value or leave it away")
    if ("ssl_certfile" in found) != ("ssl_keyfile" in found):
        raise ValueError("a client certificate needs both ssl_certfile and ssl_keyfile")
    if found.get("ssl_cert_reqs", "none") not in _REQUIRED:
        raise ValueError(f"ssl_cert_reqs is one of {', '.join(_REQUIRED)}")
    if found.get("ssl_check_hostname", "true").lower() not in ("true", "false"):
        raise ValueError("ssl_check_hostname is true or false")
    return found


def _account(given: Mapping[str, str], options: Mapping[str, str], prefix: str) -> Account:
    said = {name: given.get(name) or options.get(prefix + name, "") for name in _ACCOUNT}
    for name in ("username", "password"):
        if said[name] and said[f"{name}_file"]:
            raise ValueError(f"give {prefix}{name} or {prefix}{name}_file in a Redis URL, not both")
    if (said["username"] or said["username_file"]) and not (said["password"] or said["password_file"]):
        raise ValueError(f"a Redis URL with a user needs a password too: {prefix}password_file=/run/secrets/redis")
    return Account(**said)


def _addresses(where: str, kind: Kind) -> tuple[Address, ...]:
    usual = _SENTINEL_PORT if kind == "sentinel" else _PORT
    found = []
    for one in where.split(","):
        try:
            parts = urlsplit(f"//{one}")
            port = parts.port
        except ValueError:
            raise ValueError("this Redis URL has a port that cannot be read: it is a number up to 65535") from None
        if not parts.hostname:
            raise ValueError("this Redis URL has no host: redis://127.0.0.1:6379/0")
        found.append((parts.hostname, usual if port is None else port))
    if kind == "one" and len(found) > 1:
        raise ValueError("several hosts need redis+sentinel:// or redis+cluster://")
    return tuple(found)


def _db(text: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdecimal()):
        raise ValueError("the database of a Redis URL is a number: redis://127.0.0.1:6379/0")
    return int(text)

"""The small languages inside config values: percents, durations, addresses, hosts, header names.

Each function takes one plain value and returns it parsed, or raises ``ValueError`` with a sentence that says the
remedy. No function here looks anything up: a host name is checked for its form only.
"""

from __future__ import annotations

import ipaddress
import math
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Final
from urllib.parse import SplitResult, urlsplit

from router.config.redis_url import parse_redis_url
from router.core.hashing import BUCKETS
from router.core.spec import ClientTlsSpec, EndpointSpec

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h)")
_LONG: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d)")
_RATE: Final = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,20})?)\s*(?:%|pp)")
_CLOCK: Final = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")
_BYTES: Final = re.compile(r"([0-9]{1,15})\s*(KiB|MiB|GiB|B)")
_BYTE_UNITS: Final = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
LONGEST_SOCKET_PATH: Final = 107
LONGEST_LABEL: Final = 63
"""Bytes between two dots of a name (RFC 1035 §2.3.4)."""
LONGEST_SECONDS: Final = 86_400.0
LONGEST_LONG: Final = 90 * 86_400.0
LARGEST_SHOWN: Final = 10**18
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 §5.6.2; cookie names too, RFC 6265 §4.1.1
_HOST_NAME: Final = re.compile(
    r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*\.?"
)
_STATUSES: Final = re.compile(r"([1-5][0-9]{2})(?:\s*-\s*([1-5][0-9]{2}))?")
_RETRIED: Final = (408, 425, 429)
_TARGET: Final = re.compile(r"/[\x21\x22\x24-\x7e]*")
_PATH: Final = re.compile(r"/[^\s?#*\x00-\x1f\x7f]*")


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen: ``host`` is an IP address or a name, IPv6 without brackets; or the ``path`` of a unix socket."""

    host: str
    port: int
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_percent(value: object) -> int:
    """A percent with at most two decimals, 0 … 100, as whole basis points."""
    if isinstance(value, str) and value.strip().endswith("%"):
        raise ValueError(f"write the percent as a plain number: {value.strip().rstrip('%').strip()}")
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise ValueError("a percent is a number from 0 to 100, such as 5 or 0.25")
    if not 0 <= value <= 100:  # before anything is made of it: JSON has integers that are no float
        shown = f", not {value}" if abs(value) < LARGEST_SHOWN else ""
        raise ValueError(f"a percent is a number from 0 to 100{shown}")
    points = Decimal(str(value)) * (BUCKETS // 100)  # str, so that 0.29 is 29 basis points and not 28.999…
    if points != points.to_integral_value():
        raise ValueError(f"a percent has at most two decimals (0.01 is one in ten thousand), {value} has more")
    return int(points)


def parse_duration(value: object) -> float:
    """Seconds: a number, or text such as 500ms, 10s, 1m."""
    seconds = math.nan
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str) and (found := _DURATION.fullmatch(value.strip())):
        seconds = float(found[1]) * _UNITS[found[2]]
    if math.isnan(seconds):
        raise ValueError("a duration is a number of seconds, or text such as 500ms, 10s or 1m")
    if not 0 < seconds <= LONGEST_SECONDS:
        raise ValueError("a duration is more than 0 and at most 24 hours: write a large one instead of none")
    return seconds


def parse_duration_or_none(value: object) -> float:
    """Seconds as ``parse_duration`` takes them, or 0, which means none."""
    if not isinstance(value, bool) and value in (0, "0", "0s", "0ms"):
        return 0.0
    return parse_duration(value)


def parse_long(value: object) -> float:
    """Seconds of something that people wait for: as ``parse_duration`` takes them, but in days as well (7d)."""
    seconds = parse_long_or_none(value)
    if seconds == 0:
        raise ValueError("this duration has to be more than 0")
    return seconds


def parse_long_or_none(value: object) -> float:
    """The same, or 0, which means none."""
    seconds = math.nan
    if isinstance(value, int | float) and not isinstance(value, bool):
        # JSON has integers that are no float.
        seconds = float(value) if abs(value) <= LONGEST_LONG or value != value else math.inf
    elif isinstance(value, str) and (found := _LONG.fullmatch(value.strip())):
        seconds = float(found[1]) * {**_UNITS, "d": 86_400.0}[found[2]]
    if math.isnan(seconds):
        raise ValueError("a duration is a number of seconds, or text such as 30s, 10m, 24h or 7d")
    if not 0 <= seconds <= LONGEST_LONG:
        raise ValueError(f"a duration is at most {LONGEST_LONG / 86_400:g} days, and not below 0")
    return seconds


def parse_rate(value: object) -> float:
    """A share of what happens, with its unit: ``5%``, or ``0.1pp`` where it is a difference; 0 to 1."""
    if isinstance(value, int | float) and not isinstance(value, bool) and value == 0:
        return 0.0
    found = _RATE.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        raise ValueError("a rate has its unit: 5% of all, or 0.5pp (percentage points) where it is a difference")
    rate = float(Decimal(found[1]) / 100)  # Decimal, so that what is written as 0.1 is read as it was
    if rate > 1:
        raise ValueError(f"a rate is at most 100%, not {value}")
    return rate


def parse_clock(value: object) -> int:
    """A time of day as minutes since midnight; 24:00 is the end of the day."""
    if value == "24:00":
        return 24 * 60
    found = _CLOCK.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError("a time of day is HH:MM from 00:00 to 24:00, such as 16:00")
    return int(found[1]) * 60 + int(found[2])


def parse_statuses(value: object) -> tuple[int, int]:
    """One HTTP status, or text with two of them: ``200``, ``"300-399"``; the ends of a range, both included."""
    found = _STATUSES.fullmatch(str(value).strip()) if isinstance(value, int | str) else None
    if found is None:
        raise ValueError('a status is a number from 100 to 599, or a range of them in quotes, such as "300-399"')
    low, high = int(found[1]), int(found[2] or found[1])
    if low > high:
        raise ValueError(f'a range of statuses begins with the lower one: "{high}-{low}"')
    return low, high


def check_retried(value: int) -> int:
    """A status that another attempt may change."""
    if value not in _RETRIED and not 500 <= value <= 599:
        raise ValueError(
            f"{value} would be the same at the second try: what can be tried again is 500 to 599, 408, 425, 429"
        )
    return value


def check_method(value: str) -> str:
    """A request method by RFC 9110 §9.1, which is exact in case."""
    if not _TOKEN.fullmatch(value) or value.upper() == "CONNECT":
        raise ValueError(f"{value!r} is not a method of requests that can be copied, such as GET")
    if value != value.upper():
        raise ValueError(f"a method is written in capitals: {value.upper()}")
    return value


def check_target(value: str) -> str:
    """What a health check asks for: a path, with a query if it has to be."""
    if not _TARGET.fullmatch(value):
        raise ValueError("a path to ask for begins with a slash, such as /healthz, and has neither spaces nor a #")
    return value


def check_authority(value: str) -> str:
    """A Host field: a name or an address, and a port if it has to be."""
    try:
        _address_host(re.sub(r":[0-9]{1,5}\Z", "", value))
    except ValueError:
        raise ValueError(f"{value!r} is not a Host, such as shop.internal or shop.internal:8080") from None
    return value


def parse_address(value: object) -> Address:
    """``host:port`` to listen on; IPv6 in brackets, port 0 for any free one."""
    if not isinstance(value, str):
        raise ValueError(f"an address is host:port, such as 0.0.0.0:{value if isinstance(value, int) else 8080}")
    host, colon, port = value.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("an address is host:port, such as 0.0.0.0:8080 or [::]:8080, with a port up to 65535")
    return Address(_address_host(host), int(port))


def parse_socket(value: object) -> Address:
    """``host:port`` or ``unix:/path``."""
    if isinstance(value, str) and value.startswith("unix:"):
        return Address("", 0, _socket_path(value))
    return parse_address(value)


def _socket_path(value: str) -> str:
    path = value.removeprefix("unix:").removeprefix("//")
    if not path.startswith("/") or len(path.encode()) > LONGEST_SOCKET_PATH or "\0" in path:
        raise ValueError(f"a unix socket is unix:/path/to.sock, at most {LONGEST_SOCKET_PATH} bytes long")
    return path


def parse_bytes(value: object) -> int:
    """A number of bytes, or text such as 64KiB, 1MiB, 2GiB; 0 is no limit."""
    size = -1
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    elif isinstance(value, str) and (found := _BYTES.fullmatch(value.strip())):
        size = int(found[1]) * _BYTE_UNITS[found[2]]
    if not 0 <= size <= 1 << 50:
        raise ValueError("a size is a whole number of bytes, or text such as 64KiB, 1MiB or 2GiB")
    return size


def _address_host(host: str) -> str:
    if host.startswith("[") and host.endswith("]"):
        try:
            return str(ipaddress.IPv6Address(host[1:-1]))
        except ValueError:
            raise ValueError(f"{host} is not an IPv6 address") from None
    if ":" in host:
        raise ValueError(f"put an IPv6 address in brackets: [{host}]:port")
    if not _HOST_NAME.fullmatch(host):
        raise ValueError(f"{host!r} is neither an IP address nor a host name")
    return host


def parse_endpoint(value: object) -> EndpointSpec:
    """``http://host:port``, ``https://host:port`` or ``unix:/path``."""
    if not isinstance(value, str):
        raise ValueError("an endpoint is a URL such as http://127.0.0.1:9001")
    if value.startswith("/"):
        raise ValueError(f"a unix socket is written unix:{value}")
    if value.startswith("unix:"):
        return EndpointSpec("", 0, _socket_path(value))
    scheme, separator, _ = value.partition("://")
    is_tls = scheme.lower() == "https"
    if not separator or not (is_tls or scheme.lower() == "http"):
        raise ValueError(
            f"an endpoint is a URL such as http://{value if _looks_like_address(value) else '127.0.0.1:9001'}"
        )
    parts, port = _split(value)
    if parts.username is not None or parts.query or parts.fragment or parts.path not in ("", "/"):
        raise ValueError("an endpoint is http://host:port alone, without user, path or query")
    if port == 0 or not parts.hostname:
        raise ValueError("an endpoint needs a host and a port from 1 to 65535, such as http://127.0.0.1:9001")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    default = 443 if is_tls else 80
    return EndpointSpec(_address_host(host), default if port is None else port, tls=ClientTlsSpec() if is_tls else None)


def _looks_like_address(value: str) -> bool:
    try:
        parse_address(value)
    except ValueError:
        return False
    return True


def _split(url: str) -> tuple[SplitResult, int | None]:
    try:
        parts = urlsplit(url)
        return parts, parts.port
    except ValueError:
        raise ValueError(
            "this URL has a port or an address that cannot be read: the port is a number up to 65535"
        ) from None


def check_http_url(value: str) -> str:
    """Where something is asked or told over HTTP. No message repeats the value: it may hold a secret."""
    parts, _ = _split(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"[\s\x00-\x1f]", value):
        raise ValueError("a URL begins http:// or https:// and names a host, such as https://kpi.example/orders")
    return value


def check_redis_url(value: str) -> str:
    """A Redis URL of any kind (``redis_url``). No message repeats the value: it may hold a password."""
    parse_redis_url(value)
    return value


def check_network(value: str) -> str:
    """A CIDR such as 10.0.0.0/8, or one address."""
    try:
        return str(ipaddress.ip_network(value))
    except ValueError:
        pass
    try:
        network = ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise ValueError(f"{value!r} is not a network: write a CIDR such as 10.0.0.0/8, or an address") from None
    raise ValueError(f"{value} has host bits set: the network is written {network}")


def check_proxy(value: str) -> str:
    """A network whose forwarding headers are believed, or ``unix:`` for whoever comes over a unix socket."""
    return value if value == "unix:" else check_network(value)


def check_host(value: str) -> str:
    """A host to match: a name, ``*.name``, or ``*`` for any; without scheme and port. Lower-cased."""
    if "://" in value or "/" in value:
        raise ValueError(f"a host is a name alone, without scheme and path: not {value!r}")
    bare = value.removeprefix("*.")
    if value == "*" or _HOST_NAME.fullmatch(bare):
        return value.lower()
    if value.startswith("[") and value.endswith("]"):
        return f"[{_address_host(value)}]"
    if re.search(r":[0-9]*\Z", value):
        raise ValueError(f"a host is written without its port: {value.rpartition(':')[0]}")
    raise ValueError(f"{value!r} is not a host name; a wildcard is written *.example.com")


def check_name(value: str) -> str:
    """A host name or address that a certificate can be for."""
    try:
        ipaddress.ip_address(value)
    except ValueError:
        if not _HOST_NAME.fullmatch(value) or any(len(label) > LONGEST_LABEL for label in value.split(".")):
            raise ValueError(f"{value!r} is not a host name, such as shop.internal") from None
    return value


def check_path(value: str) -> str:
    """A path prefix: begins with a slash, matches whole segments."""
    if not value.startswith("/"):
        raise ValueError(f"a path begins with a slash: /{value}")
    if not _PATH.fullmatch(value):
        raise ValueError("a path is a plain prefix such as /api: without *, ?, # and spaces; it matches whole segments")
    return value


def check_header_name(value: str) -> str:
    """A field name by RFC 9110 §5.1."""
    if not _TOKEN.fullmatch(value):
        raise ValueError(f"{value!r} is not a header name: letters, digits and hyphens, such as X-User-Id")
    if value.lower() == "cookie":
        raise ValueError("use `cookie:` with the name of one cookie instead of the Cookie header")
    return value


def check_cookie_name(value: str) -> str:
    """A cookie's name by RFC 6265 §4.1.1."""
    if not _TOKEN.fullmatch(value):
        raise ValueError(f"{value!r} is not a cookie name: letters, digits, hyphens and underscores, such as uid")
    return value

"""Small pieces of Envoy's messages that more than one resource has. Pure."""

from __future__ import annotations

from typing import Any, Final

Json = dict[str, Any]
"""A message of Envoy's API (v3) in the JSON form of protocol buffers."""
UNLIMITED: Final = 4294967295
"""Of Envoy's limits that cannot be switched off: the most that their type holds."""
_TYPES: Final = "type.googleapis.com/envoy"


def typed(message: str, /, **fields: Any) -> Json:
    """An ``Any``; ``message`` is its name behind ``envoy.``."""
    return {"@type": f"{_TYPES}.{message}", **fields}


def extension(name: str, message: str, /, **fields: Any) -> Json:
    """A filter, or another extension, by its name and its message."""
    return {"name": name, "typed_config": typed(message, **fields)}


def duration(seconds: float) -> str:
    """``1.5s``; never in an exponent's form."""
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"


def put(name: str, value: str, action: str = "OVERWRITE_IF_EXISTS_OR_ADD") -> Json:
    """A HeaderValueOption; ``value`` may have command operators."""
    return {"header": {"key": name, "value": value}, "append_action": action}


def socket_address(text: str) -> Json:
    """``host:port`` or ``unix:/path`` as an Address."""
    if text.startswith("unix:"):
        return {"pipe": {"path": text.removeprefix("unix:")}}
    host, _, port = text.rpartition(":")
    return {"socket_address": {"address": host.strip("[]") or "0.0.0.0", "port_value": int(port)}}  # noqa: S104


def watched_file(directory: str, name: str) -> Json:
    """A ConfigSource: a file that is read again when something is moved into its directory."""
    return {
        "resource_api_version": "V3",
        "path_config_source": {"path": f"{directory}/{name}", "watched_directory": {"path": directory}},
    }

"""Any Redis command against the configured Redis, printed as redis-cli prints it: for machines without redis-cli.

It passes words through and invents none. It keeps no connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from redis.exceptions import ResponseError

from router.control.cluster import key_in
from router.control.link import TROUBLE, error_text, make_connection, safe_url
from router.control.weights import Unreachable

COMMAND_SECONDS: Final = 60.0
"""A person may wait for a slow command, but not for ever."""


async def execute(url: str, words: Sequence[str]) -> Any:
    """The raw reply: int, bytes, None, a list of such, or a ``ResponseError`` (returned). Raises ``Unreachable``."""
    try:
        # RESP2: what redis-cli prints by default are lists, not maps.
        connection = make_connection(url, key_in(words), protocol=2, reply_seconds=COMMAND_SECONDS)
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                await connection.connect()  # type: ignore[no-untyped-call]
                await connection.send_command(*words, check_health=False)
                return await connection.read_response()
        finally:
            await connection.disconnect(nowait=True)
    except ResponseError as error:
        return error
    except TROUBLE as error:
        raise Unreachable(f"Redis {safe_url(url)} cannot be reached: {error_text(error)}") from None


def for_people(reply: Any, indent: str = "") -> str:
    """As redis-cli shows a reply on a terminal: ``(integer) 1``, ``1) "a"``."""
    match reply:
        case Exception():
            return f"(error) {reply}"
        case None:
            return "(nil)"
        case bool() | int():
            return f"(integer) {int(reply)}"
        case bytes():
            return _quoted(reply)
        case list() | tuple() | set():
            items = list(reply)
            if not items:
                return "(empty array)"
            width = len(str(len(items)))
            lines = []
            for number, item in enumerate(items, 1):
                head = f"{number:>{width}}) "
                lines.append((indent if number > 1 else "") + head + for_people(item, indent + " " * len(head)))
            return "\n".join(lines)
        case _:
            return str(reply)


def for_programs(reply: Any) -> str:
    """As redis-cli shows a reply in a pipe: bare values, one per line."""
    match reply:
        case None:
            return ""
        case bytes():
            return reply.decode("utf-8", "surrogateescape")
        case list() | tuple() | set():
            return "\n".join(for_programs(item) for item in reply)
        case _:
            return str(reply)


def _quoted(value: bytes) -> str:
    if value in (b"OK", b"PONG"):  # simple strings; redis-py does not keep them apart from bulk strings
        return value.decode()
    escapes = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    text = value.decode("latin-1")
    return '"' + "".join(escapes.get(c, c if 32 <= ord(c) < 127 else f"\\x{ord(c):02x}") for c in text) + '"'

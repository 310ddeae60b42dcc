"""A WebSocket server behind the router, by the library ``websockets``: each path is one manner of talking."""

from __future__ import annotations

import http
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from multidict import CIMultiDict
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from tests.clients.house import Seen, sha256

PUSHED = 2_000
BIGGEST = 8 << 20


@asynccontextmanager
async def chatroom(version: str, seen: list[Seen]) -> AsyncIterator[int]:
    """Serves on a port of its own; pings of its own accord never, so that each ping in a test is the test's."""
    sessions: dict[ServerConnection, Seen] = {}

    def enter(connection: ServerConnection, request: Request) -> Response | None:
        headers = CIMultiDict(request.headers.raw_items())
        sessions[connection] = Seen(version, "GET", request.path, headers)
        seen.append(sessions[connection])
        if request.path == "/refuse":
            return connection.respond(http.HTTPStatus.FORBIDDEN, "members only")
        return None

    async def talk(connection: ServerConnection) -> None:
        noted = sessions[connection]
        try:
            await MANNERS[noted.path](connection, noted.notes)
            await connection.wait_closed()
        except ConnectionClosed:
            pass
        finally:
            noted.notes.append(f"closed {connection.close_code} {connection.close_reason}")

    async with serve(
        talk, "127.0.0.1", 0, process_request=enter, select_subprotocol=_choose, max_size=BIGGEST,
        ping_interval=None, close_timeout=5,
    ) as server:  # fmt: skip
        yield server.sockets[0].getsockname()[1]


def _choose(_: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """The second version of the protocol, for whoever speaks it."""
    return next((protocol for protocol in offered if protocol == "chat.v2"), None)


async def _echo(connection: ServerConnection, notes: list[str]) -> None:
    async for message in connection:
        notes.append(f"{type(message).__name__} {len(message)}")
        await connection.send(message)


async def _pieces(connection: ServerConnection, notes: list[str]) -> None:
    """Reads a message by fragments and sends it back in as many."""
    while True:
        pieces = [piece async for piece in connection.recv_streaming()]
        whole = b"".join(piece.encode() if isinstance(piece, str) else piece for piece in pieces)
        notes.append(f"{len(pieces)} {sha256(whole)}")
        await connection.send(pieces)


async def _ping(connection: ServerConnection, notes: list[str]) -> None:
    """Pings the client for each message, and says that the pong has come."""
    async for message in connection:
        await (await connection.ping(message))
        notes.append("pong")
        await connection.send("pong")


async def _push(connection: ServerConnection, notes: list[str]) -> None:
    for n in range(PUSHED):
        await connection.send(f"{n}")
    await connection.close(1000, "that is all")


async def _leave(connection: ServerConnection, notes: list[str]) -> None:
    """Closes with the code and the reason it is told."""
    code, _, reason = str(await connection.recv()).partition(" ")
    await connection.close(int(code), reason)


async def _break_off(connection: ServerConnection, notes: list[str]) -> None:
    await connection.recv()
    connection.transport.abort()


MANNERS = {
    "/echo": _echo,
    "/pieces": _pieces,
    "/ping": _ping,
    "/push": _push,
    "/leave": _leave,
    "/break-off": _break_off,
}

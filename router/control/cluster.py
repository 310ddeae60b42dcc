"""A client of a Redis Cluster: each command goes to the owner of its key's slot, and what moved is looked up again.

One plain redis-py client for each owner, so limits and errors are those of a single server. Commands without a key go
to the owner of slot 0, whoever asks: so all instances read the same clock. A transaction stays on one owner, as all
keys of one service do; a pipeline of several services is split, and one dead owner costs only its own answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import AskError, MovedError, RedisError, WatchError

from router.config.redis_url import Address
from router.control.directory import Slots
from router.control.keys import PREFIX

MakePool = Callable[[Address], ConnectionPool]
_TURNS: Final = 3
_AWAY: Final = (RedisError, OSError, RuntimeError)


def key_in(words: Sequence[Any]) -> str:
    """The key that decides where a command goes: one of ours wherever it stands, or else the first argument."""
    texts = [word.decode("utf-8", "replace") if isinstance(word, bytes) else str(word) for word in words[1:4]]
    ours = next((text for text in texts if text.startswith(PREFIX)), None)
    return ours or next(iter(texts), "")


class ClusterClient(Redis):
    """What ``make_client`` gives for a cluster."""

    def __init__(self, slots: Slots, make_pool: MakePool) -> None:
        super().__init__(connection_pool=make_pool(("", 0)))  # never connected: it knows the protocol
        self._slots = slots
        self._make_pool = make_pool
        self._nodes: dict[Address, Redis] = {}

    def _at(self, address: Address) -> Redis:
        if address not in self._nodes:
            self._nodes[address] = Redis.from_pool(self._make_pool(address))
        return self._nodes[address]

    async def owner(self, words: Sequence[Any]) -> Redis:
        """Raises redis-py's ConnectionError when nobody of the cluster answers."""
        key = "" if len(words) == 1 else key_in(words)
        return self._at(await self._slots.find(key))

    def forget(self) -> None:
        self._slots.forget()

    async def execute_command(self, *words: Any, **options: Any) -> Any:
        at: Address | None = None
        for turn in range(_TURNS):
            node = self._at(at) if at else await self.owner(words)
            try:
                return await node.execute_command(*words, **options)  # type: ignore[no-untyped-call]
            except AskError as error:
                return await self._ask(error, words)
            except MovedError as error:
                self.forget()
                at = (error.host, error.port) if error.host else None
                if turn == _TURNS - 1:
                    raise
            except _AWAY:
                self.forget()
                raise
        raise AssertionError("unreachable")

    async def _ask(self, error: AskError, words: Sequence[Any]) -> Any:
        async with self._at((error.host, error.port)).pipeline(transaction=False) as pipe:
            pipe.execute_command("ASKING")
            pipe.execute_command(*words)
            return (await pipe.execute())[1]

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        return ClusterPipeline(self, transaction)

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        nodes, self._nodes = self._nodes, {}
        await asyncio.gather(*(node.aclose() for node in nodes.values()), return_exceptions=True)
        await super().aclose(close_connection_pool)


class ClusterPipeline(Pipeline):
    """A transaction on one owner, or commands that are split between owners."""

    def __init__(self, client: ClusterClient, transaction: bool) -> None:
        super().__init__(client.connection_pool, client.response_callbacks, transaction, None)
        self._client = client

    async def immediate_execute_command(self, *words: Any, **options: Any) -> Any:
        """WATCH, and what is read under it. A key that moved counts as changed: whoever watches tries again."""
        if self.connection is None:
            self.connection_pool = (await self._client.owner(words)).connection_pool
        try:
            return await super().immediate_execute_command(*words, **options)  # type: ignore[no-untyped-call]
        except (AskError, MovedError) as error:
            self._client.forget()
            raise WatchError(str(error)) from None
        except _AWAY:
            self._client.forget()
            raise

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        stack = list(self.command_stack)
        if self.watching:
            return await super().execute(raise_on_error)
        await self.reset()  # type: ignore[no-untyped-call]
        if not stack:
            return []
        if self.is_transaction or self.explicit_transaction:
            node = await self._client.owner(stack[0][0])
            return await self._together(node, stack, raise_on_error)
        return await self._split(stack, raise_on_error)

    async def _together(self, node: Redis, stack: list[Any], raise_on_error: bool) -> list[Any]:
        try:
            return await self._run(node, stack, raise_on_error, transaction=True)
        except MovedError:
            self._client.forget()
            return await self._run(await self._client.owner(stack[0][0]), stack, raise_on_error, transaction=True)
        except _AWAY:
            self._client.forget()
            raise

    async def _split(self, stack: list[Any], raise_on_error: bool) -> list[Any]:
        answers: list[Any] = [None] * len(stack)
        groups: dict[int, tuple[Redis, list[int]]] = {}
        for place, (words, _) in enumerate(stack):
            node = await self._client.owner(words)
            groups.setdefault(id(node), (node, []))[1].append(place)

        async def one(node: Redis, places: list[int]) -> None:
            try:
                said = await self._run(node, [stack[place] for place in places], False, transaction=False)
            except _AWAY as error:
                self._client.forget()
                said = [error] * len(places)
            for place, answer in zip(places, said, strict=True):
                answers[place] = answer

        await asyncio.gather(*(one(node, places) for node, places in groups.values()))
        for place, answer in enumerate(answers):
            if isinstance(answer, (AskError, MovedError)):  # it was not done there: it is safe to do it once more
                words, options = stack[place]
                try:
                    answers[place] = await self._client.execute_command(*words, **options)
                except _AWAY as error:
                    answers[place] = error
        if raise_on_error and (failed := next((one for one in answers if isinstance(one, Exception)), None)):
            raise failed
        return answers

    @staticmethod
    async def _run(node: Redis, stack: list[Any], raise_on_error: bool, *, transaction: bool) -> list[Any]:
        async with node.pipeline(transaction=transaction) as pipe:
            for words, options in stack:
                pipe.execute_command(*words, **options)
            found: list[Any] = await pipe.execute(raise_on_error)
            return found

"""Who may write for a rollout: a lease in Redis, and one script that refuses whoever has lost it.

``rings:{shop}:leader`` holds ``owner|epoch`` for ten seconds at a time; ``rings:{shop}:leader:epoch`` counts those who
took it. Whatever a leader writes, routing, state, evidence and audit, goes in one script that looks first whether it
still leads, whether the state is the one that it knows, and whether what it changes is as it has read it. So of two who
think that they lead one is refused, nothing is written by halves, and a person who was faster is not overwritten.

The owner is a name that nobody had before (``uuid``): a Redis that has lost its memory counts epochs from the start.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from redis.asyncio import Redis

from router.control.audit import AUDIT_LENGTH
from router.control.keys import key_of

LEASE_SECONDS: Final = 10.0
RENEW_SECONDS: Final = 3.0
OBSERVATIONS: Final = 20_000
"""More than two days of ticks of ten seconds; packed, a tick takes about a kilobyte."""
ROLLOUT: Final = "rollout"
COMMANDS: Final = "rollout:commands"
SEEN: Final = "rollout:seen"
OBSERVED: Final = "rollout:observations"
Answer = Literal["OK", "FENCED", "MOVED", "CONFLICT"]
Field = tuple[Literal["weights", "versions", "control"], str, str]
"""Hash, field and text; empty: the field is not there."""

_LEASE: Final = """
local held = redis.call('GET', KEYS[1])
if held == ARGV[1] and held then redis.call('PEXPIRE', KEYS[1], ARGV[3]) return held end
if held then return held end
local mine = ARGV[2] .. '|' .. redis.call('INCR', KEYS[2])
redis.call('SET', KEYS[1], mine, 'PX', ARGV[3])
return mine
"""
_RELEASE: Final = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"
_STEP: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'FENCED' end
local more = cjson.decode(ARGV[2])
if redis.call('HGET', KEYS[2], 'n') ~= more.n then return 'MOVED' end
local hashes = {weights = KEYS[3], versions = KEYS[4], control = KEYS[5]}
for _, one in ipairs(more.expect) do
  if (redis.call('HGET', hashes[one[1]], one[2]) or '') ~= one[3] then return 'CONFLICT' end
end
for _, one in ipairs(more.set) do
  if one[3] == '' then redis.call('HDEL', hashes[one[1]], one[2])
  else redis.call('HSET', hashes[one[1]], one[2], one[3]) end
end
redis.call('HSET', KEYS[2], 'n', more.next, 'leader', ARGV[1], 'state', ARGV[3], 'cohorts', ARGV[4],
           'progress', ARGV[5])
if ARGV[6] ~= '' then
  redis.call('XADD', KEYS[7], 'MAXLEN', '~', more.observations, '*', 'n', more.next, 'observation', ARGV[6],
             'outcome', ARGV[7])
end
for _, entry in ipairs(more.audit) do
  redis.call('XADD', KEYS[6], 'MAXLEN', '~', more.entries, '*', unpack(entry))
end
for at = 1, #more.notes, 500 do
  redis.call('HSET', KEYS[8], unpack(more.notes, at, math.min(at + 499, #more.notes)))
end
if more.commands > 0 then redis.call('LTRIM', KEYS[9], more.commands, -1) end
return 'OK'
"""


@dataclass(slots=True)
class Write:
    """All that one turn writes."""

    number: int
    """Of the state that it goes on from."""
    state: bytes
    cohorts: bytes
    progress: bytes
    observation: bytes = b""
    """Empty: nothing came of it that has to be kept."""
    outcome: bytes = b""
    expect: Sequence[Field] = ()
    set: Sequence[Field] = ()
    audit: Sequence[Mapping[str, str]] = ()
    notes: Sequence[str] = field(default_factory=list)
    """User and note, one after the other."""
    commands: int = 0
    """How many of those that wait have been dealt with."""


class Lease:
    """One service's, as one instance has it."""

    def __init__(self, client: Redis, service: str, owner: str) -> None:
        self._client = client
        self._service = service
        self._owner = owner
        self.token = ""
        """Empty: somebody else leads, or nobody."""
        self.holder = ""

    async def hold(self) -> bool:
        """Take the lease if it is free, or keep it for ten seconds more. Whether it is held now."""
        keys = [key_of(self._service, "leader"), key_of(self._service, "leader:epoch")]
        held: Any = await self._client.eval(_LEASE, 2, *keys, self.token, self._owner, int(1000 * LEASE_SECONDS))
        self.holder = held.decode() if isinstance(held, bytes) else str(held)
        self.token = self.holder if self.holder.startswith(f"{self._owner}|") else ""
        return bool(self.token)

    async def release(self) -> None:
        """Let somebody else have it at once."""
        if self.token:
            await self._client.eval(_RELEASE, 1, key_of(self._service, "leader"), self.token)
            self.token = ""

    async def write(self, what: Write) -> Answer:
        """One turn, whole or not at all. ``FENCED``: somebody else leads; ``MOVED``: the state is another one;
        ``CONFLICT``: what was to be changed is not what it was."""
        keys = [
            key_of(self._service, name)
            for name in ("leader", ROLLOUT, "weights", "versions", "control", "audit", OBSERVED, SEEN, COMMANDS)
        ]
        more = {
            "n": str(what.number), "next": str(what.number + 1), "expect": list(what.expect), "set": list(what.set),
            "audit": [[word for pair in entry.items() for word in pair] for entry in what.audit],
            "notes": list(what.notes), "commands": what.commands, "observations": OBSERVATIONS, "entries": AUDIT_LENGTH,
        }  # fmt: skip
        answer: Any = await self._client.eval(
            _STEP, len(keys), *keys, self.token, json.dumps(more), what.state, what.cohorts, what.progress,
            what.observation, what.outcome,
        )  # fmt: skip
        said: Answer = answer.decode()
        if said == "FENCED":
            self.token = ""
        return said

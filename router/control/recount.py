"""Every verdict of a rollout once more: from the observations that are kept, by the same fold, compared with what was
done and with what the audit says.
"""

from __future__ import annotations

import zlib
from dataclasses import asdict
from typing import Any, Final

import msgspec
from redis.asyncio import Redis

from router.control.audit import AuditEntry, history
from router.control.keys import key_of
from router.control.leading import OBSERVED, ROLLOUT
from router.control.rollouts import decode_state, load
from router.control.rules import ServiceRules
from router.control.weights import Refused
from router.rollout import machine
from router.rollout.observation import Observation
from router.rollout.progress import Event
from router.rollout.state import State

AT_ONCE: Final = 500
FIRST: Final = 2
"""The number of the first turn: what it goes on from is 1."""
_observation: Final = msgspec.json.Decoder(Observation)


def pack(seen: Observation) -> bytes:
    """As it is kept."""
    return zlib.compress(msgspec.json.encode(seen), 1)


def unpack(data: bytes) -> Observation:
    """Raises ``zlib.error`` or ``msgspec.DecodeError`` for what is none."""
    return _observation.decode(zlib.decompress(data))


def outcome(after: State) -> bytes:
    """What came of an observation: phase, step, verdict, ln E of harm and of proof, and what was said."""
    return msgspec.json.encode(
        {
            "phase": after.phase,
            "why": after.why,
            "step": after.step,
            "judged": after.judged,
            "log_e": {
                name: [round(guard.peak, 6), round(guard.proof.evidence.peak, 6)]
                for name, guard in after.guards.items()
            },
            "events": [asdict(one) for one in news(after)],
        }
    )


def entry_of(state: State, event: Event, host: str) -> dict[str, str]:
    """What the audit has of a transition."""
    return {
        "actor": event.actor or "rollout", "host": host, "source": "rollout", "action": ROLLOUT, "field": "phase",
        "from": event.before.replace(" ", "_") or "-", "to": event.after.replace(" ", "_"), "reason": event.sentence,
        "rev": state.id, "at": f"{event.at:.3f}",
    }  # fmt: skip


def news(after: State) -> list[Event]:
    """What was said in the last turn."""
    return [event for event in after.events if event.at == after.at]


async def verify(client: Redis, rules: ServiceRules) -> list[str]:
    """What does not come out the same, as sentences; nothing: everything does.

    Raises ``weights.Refused`` where nothing is kept, or not from the beginning.
    """
    stored = await load(client, rules)
    if stored is None:
        raise Refused(f"{rules.name} has had no rollout: there is nothing to verify")
    first: Any = await client.hget(key_of(rules.name, ROLLOUT), "first")
    state, wrong, said = decode_state(first), list[str](), list[str]()
    last, count, expected = "-", 0, FIRST
    while True:
        entries: Any = await client.xrange(key_of(rules.name, OBSERVED), min=last, count=AT_ONCE)
        if not entries:
            break
        for _, fields in entries:
            count += 1
            number = int(fields[b"n"])
            if number != expected:
                if count == 1:
                    raise Refused(f"{stored.id} is kept from turn {number} on, not from its beginning ({FIRST})")
                wrong.append(f"turn {expected} is not kept: {number} comes after it")
            expected = number + 1
            seen = unpack(fields[b"observation"])
            state, _ = machine.advance(stored.plan, state, seen)
            said += [_line(entry_of(state, one, "")) for one in news(state) if one.kind == "transition"]
            found = outcome(state)
            if found != fields[b"outcome"]:
                wrong.append(f"turn {number}: {found.decode()} comes out, and {fields[b'outcome'].decode()} was done")
        last = f"({entries[-1][0].decode()}"
    if not count:
        raise Refused(f"no observation of {stored.id} is kept")
    return [*wrong, *_in_audit(said, [one async for one in _audit(client, rules.name, stored.id)])]


async def _audit(client: Redis, service: str, id_: str) -> Any:
    """The audit's entries of this rollout, the oldest first."""
    found: list[AuditEntry] = []
    before = ""
    while page := await history(client, service, AT_ONCE, before):
        found += page
        before = page[-1].id
    for entry in reversed(found):
        if entry.action == ROLLOUT and entry.revision == id_:
            yield entry


def _line(entry: dict[str, str]) -> str:
    return f"{entry['actor']}, {entry['from']} → {entry['to']}: {entry['reason']}"


def _in_audit(derived: list[str], entries: list[AuditEntry]) -> list[str]:
    audited = [
        _line({"actor": one.actor, "from": " ".join(one.before), "to": " ".join(one.after), "reason": one.reason})
        for one in entries
    ]
    if derived == audited:
        return []
    return [
        *(f"the audit says what does not follow from the observations: {one}" for one in audited if one not in derived),
        *(f"the audit does not say: {one}" for one in derived if one not in audited),
    ] or ["the audit says the same in another order"]

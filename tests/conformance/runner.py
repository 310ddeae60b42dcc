"""Plays a case on a stage in one slicing of its bytes, and says what was not as it must be."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from tests.conformance.case import RequestCase, ResponseCase, Seen
from tests.conformance.reader import Message, ProtestError, read_responses
from tests.conformance.wire import PROBE_TARGET, RESET, Client, Stage, send

LONG = 1_000
"""Bytes of a message that is not cut at every position: around its ends, and now and then between."""
PLAY_SECONDS = 15.0
"""How long one play may take before it is given up; it takes milliseconds."""
PING = b"\x81\x00 ping"
_HOP_BY_HOP = (b"connection", b"keep-alive", b"proxy-connection", b"proxy-authorization", b"te", b"upgrade")
_ONCE = (b"host", b"x-ring", b"x-ring-version", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host",
         b"x-request-id")  # fmt: skip
_ALWAYS_NEW = (b"x-request-id", b"date")

Complaints = list[str]


@dataclass(slots=True)
class Outcome:
    """What client and backend saw of one play. ``prober`` is None if there was no probe."""

    responses: list[Message]
    behind: bytes
    seen: list[Message]
    is_ended: bool
    protests: list[str]
    probed: bool = False
    is_reused: bool = False

    def summary(self) -> object:
        """What must be the same however the bytes were cut."""
        return (
            [(_stable(m), m.is_whole) for m in self.responses],
            [_stable(m) for m in self.seen],
            self.is_ended,
            self.is_reused,
        )


def _stable(message: Message) -> object:
    """All of a message but what is new in each play; the router's own answers have their id in the text.

    A request that goes wrong in its body has a ring or has none, according to when it does.
    """
    is_own = any(number in message.body for number in message.values(b"x-request-id"))
    fields = [
        (name, value)
        for name, value in message.fields
        if name not in _ALWAYS_NEW and not (is_own and name in (b"content-length", b"x-ring", b"x-ring-version"))
    ]
    return message.start, fields, b"" if is_own else message.body, message.trailers, message.framing


def whole(raw: bytes) -> list[bytes]:
    return [raw]


def byte_by_byte(raw: bytes) -> list[bytes]:
    """Each byte by itself; of a long message, pieces of a size that falls anywhere."""
    step = 1 if len(raw) <= LONG else 997
    return [raw[i : i + step] for i in range(0, len(raw), step)]


def cuts(raw: bytes) -> Iterator[list[bytes]]:
    """In two, at every position."""
    positions: set[int] | range = range(1, len(raw))
    if len(raw) > LONG:
        positions = {*range(1, 60), *range(60, len(raw), len(raw) // 40), *range(len(raw) - 60, len(raw))}
    for at in sorted(positions):
        yield [raw[:at], raw[at:]]


# -- playing -----------------------------------------------------------------------------------------------------------


def _responses(client: Client, methods: tuple[bytes, ...]) -> tuple[list[Message], bytes]:
    state = (len(client.data), client.is_ended, client.is_reset)
    if client.read is None or client.read[0] != state:
        found = read_responses(bytes(client.data), methods, ended=client.is_ended, reset=client.is_reset)
        client.read = (state, found)
    return client.read[1]


def _count(client: Client, methods: tuple[bytes, ...]) -> int:
    """Whole responses so far; what cannot be read is not waited for."""
    try:
        return sum(message.is_whole for message in _responses(client, methods)[0])
    except ProtestError:
        return 1_000


def _is_as_expected(client: Client, methods: tuple[bytes, ...], case: RequestCase) -> bool:
    """Whether these are the responses: a probe behind others would tell nothing."""
    try:
        statuses = [message.status for message in _responses(client, methods)[0]]
    except ProtestError:
        return False
    return _agree(statuses, case)


def _says_close(client: Client, methods: tuple[bytes, ...]) -> bool:
    try:
        responses = _responses(client, methods)[0]
    except ProtestError:
        return False
    return bool(responses) and b"close" in responses[-1].values(b"connection")


def _agree(statuses: list[int], case: RequestCase) -> bool:
    return len(statuses) == len(case.statuses) and all(
        got in wanted for got, wanted in zip(statuses, case.statuses, strict=True)
    )


async def _send_apart(stage: Stage, transport: asyncio.Transport, pieces: list[bytes]) -> None:
    """Send pieces so that each arrives by itself."""
    for i, piece in enumerate(pieces):
        if i:
            await stage.breathe()
        send(transport, piece)


async def play_request(stage: Stage, case: RequestCase, pieces: list[bytes]) -> Outcome:
    """Send the pieces, then a probe that shows whether everybody agrees on where they ended."""
    methods = case.methods or ((b"HEAD",) if case.raw.startswith(b"HEAD ") else ())
    stage.is_quick, stage.answers_early = True, False
    expected = len(case.statuses)
    client = await stage.connect()

    def is_over() -> bool:
        return client.is_ended or _count(client, methods) >= expected

    await _send_apart(stage, client.transport, pieces)
    if case.later:
        await stage.settle(lambda: client.is_ended or _count(client, methods) >= 1)
        send(client.transport, case.later)
    if case.is_half_closed:
        if not client.transport.is_closing():
            client.transport.write_eof()
        await stage.settle(lambda: client.is_ended)
    await stage.settle(is_over)
    if case.is_tunnel and _is_as_expected(client, methods, case):
        send(client.transport, PING)
        await stage.settle(lambda: client.data.endswith(PING))
    probed = False
    if case.closed is True or _says_close(client, methods):
        if _is_as_expected(client, methods, case):
            await stage.settle(lambda: client.is_ended)
    elif not client.is_ended and not case.is_tunnel and _is_as_expected(client, methods, case):
        probed = True
        host = case.hosts[0].encode() if case.hosts else b"a"
        send(client.transport, b"GET %b HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % (PROBE_TARGET, host))
        await stage.settle(lambda: client.is_ended)
    return _outcome(stage, client, methods, probed)


def _outcome(stage: Stage, client: Client, methods: tuple[bytes, ...], probed: bool) -> Outcome:
    protests = list(stage.protests)
    responses: list[Message] = []
    behind = b""
    try:
        responses, behind = _responses(client, methods)
    except ProtestError as protest:
        protests.append(f"client: {protest} in {_short(bytes(client.data))}")
    client.transport.abort()
    return Outcome(responses, behind, list(stage.seen), client.is_ended, protests, probed)


async def play_response(stage: Stage, case: ResponseCase, pieces: list[bytes]) -> Outcome:
    """Ask, answer with the pieces, then see by a probe of another client whether the connection is used again."""
    methods = (b"HEAD",) if case.ask.startswith(b"HEAD ") else ()
    stage.is_quick, stage.answers_early = False, case.is_early
    client = await stage.connect()
    send(client.transport, case.ask)
    await stage.settle(lambda: stage.pending is not None or client.is_ended)
    backend = stage.pending
    if backend is not None:
        await _send_apart(stage, backend.transport, pieces)
        if case.closes == "reset":
            if case.raw:
                await stage.settle(lambda: len(client.data) > 0)
            if not backend.transport.is_closing():
                peer = backend.transport.get_extra_info("socket")
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                backend.transport.abort()
        elif case.closes:
            backend.transport.close()
    finals = len(case.interim) + 1
    tunnelled = case.body if case.status == 101 else b""

    def is_over() -> bool:
        return client.is_ended or (_count(client, methods) >= finals and client.data.endswith(tunnelled))

    await stage.settle(is_over)
    if case.stays is False or (case.ending != "whole" and _count(client, methods) < finals):
        await stage.settle(lambda: client.is_ended)
    outcome = _outcome(stage, client, methods, False)
    outcome.probed = True
    if backend is not None and backend.transport.is_closing():
        return outcome  # no need to ask whether it is used again
    stage.is_quick, stage.answers_early = True, False
    prober = await stage.connect()
    send(prober.transport, b"GET %b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % PROBE_TARGET)
    await stage.settle(lambda: prober.is_ended)
    probe = _outcome(stage, prober, (), True)
    if [m.first for m in probe.responses] != [b"200"] or probe.responses[0].body != b"ok" or probe.behind:
        outcome.protests.append(f"the next response is {_short(bytes(prober.data))}")
    outcome.is_reused = backend is not None and bool(stage.seen) and stage.seen[-1].connection == backend.number
    outcome.protests += [protest for protest in probe.protests if protest not in outcome.protests]
    return outcome


# -- judging -----------------------------------------------------------------------------------------------------------


def judge_request(case: RequestCase, outcome: Outcome) -> Complaints:
    """What was not as it must be, as sentences; empty if all is well."""
    wrong = list(outcome.protests)
    responses, seen = list(outcome.responses), list(outcome.seen)
    if outcome.probed:
        if seen and seen[-1].second == PROBE_TARGET:
            seen.pop()
        else:
            wrong.append("the backend did not see the probe as a request of its own")
        if responses and len(responses) > len(case.statuses) and responses[-1].first == b"200":
            responses.pop()
        else:
            wrong.append("the probe has no response")
    statuses = [message.status for message in responses]
    wanted = () if case.seen is None else case.seen
    if not _agree(statuses, case):
        saw = "" if len(seen) == len(wanted) else f", and the backend saw {[_short(m.start) for m in seen]}"
        return [*wrong, f"expected {_words(case.statuses)}, got {statuses}{saw}"]
    if not all(message.is_whole for message in responses):
        wrong.append("a response is not whole")
    elif case.closed is True and not outcome.is_ended:
        wrong.append("the connection is left open")
    elif case.closed is True and responses and b"close" not in responses[-1].values(b"connection"):
        wrong.append("the connection is closed without a word")
    elif case.closed is False and not outcome.probed and not case.is_tunnel:
        wrong.append("the connection is closed")
    tunnelled = case.raw.partition(b"\r\n\r\n")[2] + PING if case.is_tunnel else b""
    if outcome.behind != tunnelled:
        wrong.append(f"behind the last response came {_short(outcome.behind)}")
    if case.seen is not None and len(seen) != len(wanted):
        wrong.append(
            f"the backend saw {len(seen)} requests instead of {len(wanted)}: {[_short(m.start) for m in seen]}"
        )
    for message, expected in zip(seen, wanted, strict=False):
        wrong += _forwarded(message, expected)
    if responses:
        wrong += _fields("the response", responses[-1], case.has, case.lacks, case.present)
    return wrong


def _forwarded(message: Message, expected: Seen) -> Complaints:
    wrong = []
    if (message.first, message.second) != (expected.method, expected.target):
        wrong.append(f"the backend saw {message.start!r}")
    if message.body != expected.body:
        wrong.append(f"the backend saw the body {_short(message.body)}")
    wrong += _trailers("the backend", message, expected.trailers)
    is_upgrade = any(line.lower().startswith(b"upgrade:") for line in expected.has)
    wrong += [f"the backend saw {name!r}" for name in _HOP_BY_HOP if message.values(name) and not is_upgrade]
    wrong += [f"the backend saw {message.values(name)} as {name!r}" for name in _ONCE if len(message.values(name)) != 1]
    return wrong + _fields("the backend", message, expected.has, expected.lacks, ())


def judge_response(case: ResponseCase, outcome: Outcome) -> Complaints:
    """What was not as it must be, as sentences; empty if all is well."""
    wrong = list(outcome.protests)
    if not outcome.responses:
        return [*wrong, f"expected {case.status}, the client saw nothing of a response"]
    *interim, last = outcome.responses
    if case.ending == "broken" and last.status == 502 and last.is_whole:
        return wrong
    if [message.status for message in outcome.responses] != [*case.interim, case.status]:
        got = [message.status for message in outcome.responses]
        return [*wrong, f"expected {[*case.interim, case.status]}, got {got}"]
    if case.ending == "whole":
        if not last.is_whole:
            wrong.append("the response is not whole")
        body, behind = (outcome.behind, b"") if case.status == 101 else (last.body, outcome.behind)
        if body != case.body and case.status != 502:
            wrong.append(f"the client saw the body {_short(body)}")
        if behind:
            wrong.append(f"behind the response came {_short(outcome.behind)}")
    elif last.is_whole:
        wrong.append("the client sees a whole response")
    elif not outcome.is_ended:
        wrong.append("the client waits for the rest of the response")
    if case.framing and last.framing != case.framing:
        wrong.append(f"the body is framed by {last.framing}, not by {case.framing}")
    if case.reason is not None and last.second != case.reason:
        wrong.append(f"the reason is {last.second!r}")
    if case.stays is not None and case.stays == outcome.is_ended:
        wrong.append("the client's connection is closed" if case.stays else "the client's connection is left open")
    if case.reused is not None and case.reused != outcome.is_reused:
        wrong.append("the backend's connection is " + ("used again" if outcome.is_reused else "not used again"))
    if last.status not in (101, 426):
        wrong += [f"the client saw {name!r}" for name in _HOP_BY_HOP[1:] if last.values(name)]
    wrong += _trailers("the client", last, case.trailers)
    return wrong + _fields("the response", last, case.has, case.lacks, case.present)


def _trailers(who: str, message: Message, expected: tuple[bytes, ...]) -> Complaints:
    wanted = [_split(line) for line in expected]
    return [] if message.trailers == wanted else [f"{who} saw the trailers {message.trailers}"]


def _fields(
    who: str, message: Message, has: tuple[bytes, ...], lacks: tuple[bytes, ...], present: tuple[bytes, ...]
) -> Complaints:
    wanted: dict[bytes, list[bytes]] = {}
    for name, value in map(_split, has):
        wanted.setdefault(name, []).append(value)
    wrong = []
    for name, values in wanted.items():
        got = message.values(name)
        if got != values and (name == b"set-cookie" or b", ".join(got) != b", ".join(values)):
            wrong.append(f"{who} has {got} as {name!r} instead of {values}")
    wrong += [f"{who} has no {name!r}" for name in present if not message.values(name.lower())]
    return wrong + [f"{who} has {name!r}: {message.values(name.lower())}" for name in lacks if message.values(name)]


def _split(line: bytes) -> tuple[bytes, bytes]:
    name, _, value = line.partition(b":")
    return name.lower(), value.strip(b" \t")


def _words(statuses: tuple[frozenset[int], ...]) -> str:
    return "[" + ", ".join("|".join(map(str, sorted(some))) for some in statuses) + "]"


def _short(data: bytes) -> str:
    return repr(data) if len(data) <= 300 else f"{data[:200]!r} … {data[-60:]!r} ({len(data)} bytes)"


# -- the whole of a case -----------------------------------------------------------------------------------------------


async def _played(stage: Stage, case: RequestCase | ResponseCase, pieces: list[bytes]) -> tuple[Outcome, Complaints]:
    if isinstance(case, RequestCase):
        outcome = await play_request(stage, case, pieces)
        return outcome, judge_request(case, outcome)
    outcome = await play_response(stage, case, pieces)
    return outcome, judge_response(case, outcome)


async def complaints(stage: Stage, case: RequestCase | ResponseCase, modes: list[tuple[str, list[bytes]]]) -> str:
    """Play a case in every mode and report the first that goes wrong; the outcome must be the same in all."""
    first: object = None
    for mode, pieces in modes:
        try:
            async with asyncio.timeout(PLAY_SECONDS):
                outcome, wrong = await _played(stage, case, pieces)
        except TimeoutError:
            return f"{case.name}: no end in sight\n  RFC {case.section}, sent {mode}\n  raw: {_short(case.raw)}"
        await stage.clear()
        summary = outcome.summary()
        if not wrong and first is not None and summary != first and getattr(case, "ending", "whole") == "whole":
            wrong = [f"differs from the whole message:\n    {summary}\n    {first}"]
        first = first or summary
        if wrong:
            text = "; ".join(wrong)
            return f"{case.name}: {text}\n  RFC {case.section}, sent {mode}\n  raw: {_short(case.raw)}"
    return ""


def on_the_wire(raw: bytes) -> list[tuple[str, list[bytes]]]:
    """The modes for real sockets."""
    return [("whole", whole(raw)), ("byte by byte", byte_by_byte(raw))]


def in_every_slicing(raw: bytes) -> list[tuple[str, list[bytes]]]:
    """The modes for the wire in memory."""
    sliced = [(f"cut at {len(pieces[0])}", pieces) for pieces in cuts(raw)]
    return [*on_the_wire(raw), *sliced]

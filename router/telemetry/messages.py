"""What control and workers say to each other, and to nobody else: length-prefixed MessagePack over a unix socket."""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from router.core.spec import SnapshotSpec
from router.telemetry.counters import WorkerCounters
from router.telemetry.evidence import Finished, Pending

LENGTH: Final = struct.Struct("!I")


class Hello(msgspec.Struct, tag="hello"):
    """Worker → control, first: which slot, which process."""

    slot: int
    pid: int
    journal: int = -1
    """The descriptor of its journal (``journal``), as the process itself has it."""


class Applied(msgspec.Struct, tag="applied"):
    """Worker → control: this generation routes now. ``at`` is Unix time in seconds."""

    generation: int
    at: float


class Report(msgspec.Struct, tag="report"):
    """Worker → control, once a second: cumulative counters."""

    counters: bytes
    epoch: int = 0
    at: int = 0
    """The place in the journal before which this report knows everything; ``at`` above 0: of its own rings alone."""


class Leaving(msgspec.Struct, tag="leaving"):
    """Worker → control: it drains, and takes nobody new; or, at last, this was the last report."""

    is_gone: bool = False


class Troubled(msgspec.Struct, tag="troubled"):
    """Bridge to Envoy → control: all that is wrong now, as sentences; none: nothing."""

    sentences: tuple[str, ...] = ()


class Install(msgspec.Struct, tag="install"):
    """Control → worker: route by this snapshot from now on."""

    snapshot: SnapshotSpec


class Wanted(msgspec.Struct, frozen=True):
    """One who listens to requests; ``service`` and ``ring`` empty: to those of all. ``rate`` a second at the most."""

    number: int
    rate: int
    service: str = ""
    ring: str = ""


class Tap(msgspec.Struct, tag="tap"):
    """Control → worker: these want to see requests from now on; nobody: no more. ``key`` is that of identities."""

    wanted: tuple[Wanted, ...] = ()
    key: bytes = b""


class Sample(msgspec.Struct):
    """A request that is over. ``at`` is Unix time, ``duration`` in seconds; of a WebSocket until it was open.

    ``identity`` is a keyed hash of the user's key, empty where nobody is known.
    """

    at: float
    service: str
    method: str
    path: str
    ring: str
    version: str
    reason: str
    status: int
    duration: float
    identity: str


class Tapped(msgspec.Struct, tag="tapped"):
    """Worker → control: requests, each with the numbers of those who want it; and how many each does not get."""

    samples: list[tuple[Sample, tuple[int, ...]]]
    dropped: dict[int, int]


class Span(msgspec.Struct):
    """A request that is over and was sampled. Ids in hexadecimal, ``at`` is Unix time, ``duration`` in seconds.

    ``flags`` are the access log's, empty where it ended as it should.
    """

    trace_id: str
    span_id: str
    parent_id: str
    at: float
    duration: float
    method: str
    scheme: str
    authority: str
    path: str
    status: int
    flags: str
    service: str
    ring: str
    version: str
    reason: str
    endpoint: str
    request_id: str


class Traced(msgspec.Struct, tag="traced"):
    """Worker → control: spans, and how many more there would have been."""

    spans: list[Span]
    dropped: int = 0


class Seen(msgspec.Struct, tag="seen"):
    """Worker → control, once a second: users whom the hash sorted by this snapshot, service → digest → ring's place.

    A digest is what the bucket was taken from; places count from the innermost ring, 0.
    """

    generation: int
    users: dict[str, dict[int, int]]


class Watched(msgspec.Struct, frozen=True):
    """A service under a rollout: all users of the candidate are counted, of the others so many of a million."""

    service: str
    candidate: str
    keep_ppm: int


class Watch(msgspec.Struct, tag="watch"):
    """Control → worker: count the users of these services by name from now on, and of no others."""

    services: tuple[Watched, ...] = ()


class Users(msgspec.Struct, tag="users"):
    """Worker → control, once a second while something is watched; by service.

    ``finished``: requests that ended since the last such message. ``pending``: those that are under way for long, all
    of them each time. ``dropped``: requests of users who would have been too many.
    """

    finished: dict[str, Finished]
    pending: dict[str, Pending]
    dropped: dict[str, int] = {}


FromWorker = Hello | Applied | Report | Leaving | Seen | Tapped | Traced | Troubled | Users
FromControl = Install | Tap | Watch


_encoder: Final = msgspec.msgpack.Encoder()
_from_worker: Final[msgspec.msgpack.Decoder[FromWorker]] = msgspec.msgpack.Decoder(FromWorker)
_from_control: Final[msgspec.msgpack.Decoder[FromControl]] = msgspec.msgpack.Decoder(FromControl)
_counters: Final = msgspec.msgpack.Decoder(WorkerCounters)


def frame(message: msgspec.Struct) -> bytes:
    """A message as it goes over the socket."""
    body = _encoder.encode(message)
    return LENGTH.pack(len(body)) + body


def pack_counters(counters: WorkerCounters) -> bytes:
    return _encoder.encode(counters)


def unpack_counters(data: bytes) -> WorkerCounters:
    """Raises msgspec.DecodeError."""
    return _counters.decode(data)


def decode_from_worker(body: bytes) -> FromWorker:
    """Raises msgspec.DecodeError."""
    return _from_worker.decode(body)


def decode_from_control(body: bytes) -> FromControl:
    """Raises msgspec.DecodeError."""
    return _from_control.decode(body)

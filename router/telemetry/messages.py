"""What control and workers say to each other, and to nobody else: length-prefixed MessagePack over a unix socket."""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from router.core.spec import SnapshotSpec
from router.telemetry.counters import WorkerCounters

LENGTH: Final = struct.Struct("!I")


class Hello(msgspec.Struct, tag="hello"):
    """Worker → control, first: which slot, which process."""

    slot: int
    pid: int


class Applied(msgspec.Struct, tag="applied"):
    """Worker → control: this generation routes now. ``at`` is Unix time in seconds."""

    generation: int
    at: float


class Report(msgspec.Struct, tag="report"):
    """Worker → control, once a second: cumulative counters."""

    counters: bytes


class Leaving(msgspec.Struct, tag="leaving"):
    """Worker → control: it drains, and takes nobody new; or, at last, this was the last report."""

    is_gone: bool = False


class Install(msgspec.Struct, tag="install"):
    """Control → worker: route by this snapshot from now on."""

    snapshot: SnapshotSpec


FromWorker = Hello | Applied | Report | Leaving


_encoder: Final = msgspec.msgpack.Encoder()
_from_worker: Final[msgspec.msgpack.Decoder[FromWorker]] = msgspec.msgpack.Decoder(FromWorker)
_install: Final = msgspec.msgpack.Decoder(Install)
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


def decode_install(body: bytes) -> Install:
    """Raises msgspec.DecodeError."""
    return _install.decode(body)

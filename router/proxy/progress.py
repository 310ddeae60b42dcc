"""Whether a slow peer takes anything at all: looked at when a deadline has passed, never before."""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import socket
import struct
import termios
from typing import Final

_BYTES_ACKED: Final = 120
"""Where Linux's struct tcp_info holds tcpi_bytes_acked, a u64 that only grows (RFC 4898's ThruOctetsAcked)."""
_TCP_INFO_BYTES: Final = 128


def taken(transport: asyncio.Transport) -> int:
    """A number that changes as the peer takes what was written; -1 when there is nothing left to take.

    The sizes of buffers say too little: the kernel says that a socket is writable again in steps of a third of its
    buffer, which may be a megabyte, and TLS keeps bytes that nobody counts. So it is asked what was acknowledged.
    """
    peer = transport.get_extra_info("socket")
    queued = array.array("i", [0])
    with contextlib.suppress(OSError, AttributeError, TypeError, ValueError):
        fcntl.ioctl(peer.fileno(), termios.TIOCOUTQ, queued)
    waiting = transport.get_write_buffer_size() + queued[0]
    if not waiting:
        return -1
    with contextlib.suppress(OSError, AttributeError, TypeError, ValueError, struct.error):
        info = peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        return int(struct.unpack_from("Q", info, _BYTES_ACKED)[0])
    return waiting  # a unix socket

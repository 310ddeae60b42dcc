"""Whether a slow peer takes anything at all: looked at when a deadline has passed, never before."""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import termios


def untaken(transport: asyncio.Transport) -> int:
    """Bytes written that the peer has not received: those that wait here, and those in the kernel (SIOCOUTQ).

    The kernel tells a socket to be writable again in steps of a third of its buffer, which may be a megabyte; a peer that
    takes a kilobyte a second would seem to stand still for many minutes.
    """
    waiting = transport.get_write_buffer_size()
    peer = transport.get_extra_info("socket")
    queued = array.array("i", [0])
    with contextlib.suppress(OSError, AttributeError, TypeError, ValueError):
        fcntl.ioctl(peer.fileno(), termios.TIOCOUTQ, queued)
    return waiting + queued[0]

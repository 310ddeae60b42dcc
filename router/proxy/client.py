"""Who the client is: what is passed on about it, what a trusted proxy says of it, and the PROXY protocol. Pure.

Whatever a stranger says of itself is not repeated; what a trusted proxy says is kept and appended to. The client is
the rightmost address that is not a trusted proxy's: everything left of it could have been written by anybody.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Callable
from typing import Final

from router.proxy.grammar import FramingError

UNIX: Final = b"unix:"
"""The address of a peer on a unix socket, which has none; ``trusted_proxies`` may name it."""

_SAYS_HERE: Final = frozenset({b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"forwarded"})
_V1_LONGEST: Final = 107
_V1: Final = b"PROXY "
_V2: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_V2_HEAD: Final = struct.Struct("!12sBBH")
_V2_PROXY: Final = 0x21
_V2_LOCAL: Final = 0x20
_V2_SIZES: Final = {0x11: 4, 0x21: 16}
"""Family and transport → bytes of one address: TCP over IPv4, TCP over IPv6."""


def forwarded_by_stranger(address: bytes, scheme: bytes) -> bytes:
    """X-Forwarded-* and Forwarded (RFC 7239) for a client that is no trusted proxy; the host is to be put behind."""
    return b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nForwarded: %b\r\nX-Forwarded-Host: " % (
        address,
        scheme,
        _element(address, scheme),
    )


def forwarded_by_trusted(said: dict[bytes, bytes], address: bytes, scheme: bytes, host: bytes) -> bytes:
    """The same, appended to what a trusted proxy says. ``said`` has its fields by their lower-case names."""
    chain, elements = said.get(b"x-forwarded-for"), said.get(b"forwarded")
    element = _element(address, scheme)
    lines = [
        b"X-Forwarded-For: " + (b"%b, %b" % (chain, address) if chain else address),
        b"X-Forwarded-Proto: " + (last_said(said.get(b"x-forwarded-proto")) or scheme),
        b"X-Forwarded-Host: " + (last_said(said.get(b"x-forwarded-host")) or host),
        b"Forwarded: " + (b"%b, %b" % (elements, element) if elements else element),
    ]
    lines += [b"%b: %b" % (name.title(), value) for name, value in said.items() if name not in _SAYS_HERE]
    return b"\r\n".join(lines)


def _element(address: bytes, scheme: bytes) -> bytes:
    """One element of Forwarded; IPv6 in brackets and quotes (RFC 7239 §6)."""
    node = b'"[%b]"' % address if b":" in address else address
    return b"for=%b;proto=%b" % (b"unknown" if address == UNIX else node, scheme)


def last_said(said: bytes | None) -> bytes:
    """The nearest proxy's word, where several speak."""
    return said.rpartition(b",")[2].strip(b" \t") if said else b""


def client_behind(chain: bytes, peer: bytes, trusts: Callable[[bytes], bool]) -> bytes:
    """The rightmost address of an X-Forwarded-For that is not a trusted proxy's; ``peer`` said it.

    Where an entry is no address, nothing left of it counts: the one who said it is the client.
    """
    client = peer
    for entry in reversed(chain.split(b",")):
        address = _bare_address(entry.strip(b" \t"))
        if not address:
            break
        client = address
        if not trusts(client):
            break
    return client


def _bare_address(entry: bytes) -> bytes:
    """An address without its port and brackets, in its usual form; empty if it is none."""
    if entry[:1] == b"[":
        entry = entry[1:].partition(b"]")[0] if b"]" in entry else b""
    elif entry.count(b":") == 1:
        entry = entry.partition(b":")[0]
    try:
        return _usual(_address(entry))
    except ValueError:
        return b""


def proxy_header(data: bytes) -> tuple[int, bytes] | None:
    """Length and client address of a PROXY protocol header (versions 1 and 2) at the beginning of a connection.

    The address is empty where the header says that there is none (LOCAL, UNKNOWN, UNSPEC). None: not all of it is there
    yet. Raises FramingError when it is no such header.
    """
    if data[:1] == b"P":
        return _version1(data)
    if not data.startswith(_V2[: len(data)]):
        raise FramingError("no PROXY header")
    if len(data) < _V2_HEAD.size:
        return None
    _, command, family, length = _V2_HEAD.unpack_from(data)
    if command not in (_V2_PROXY, _V2_LOCAL):
        raise FramingError("unknown PROXY version or command")
    end = _V2_HEAD.size + length
    if len(data) < end:
        return None
    if command == _V2_LOCAL or family not in _V2_SIZES:
        return end, b""
    size = _V2_SIZES[family]
    if length < 2 * size + 4:
        raise FramingError("PROXY addresses are cut off")
    return end, _usual(ipaddress.ip_address(data[_V2_HEAD.size : _V2_HEAD.size + size]))


def _version1(data: bytes) -> tuple[int, bytes] | None:
    end = data.find(b"\r\n", 0, _V1_LONGEST)
    if end < 0:
        if not data.startswith(_V1[: len(data)]) or len(data) >= _V1_LONGEST:
            raise FramingError("no PROXY header")
        return None
    words = data[:end].split(b" ")
    if words[:2] == [b"PROXY", b"UNKNOWN"]:
        return end + 2, b""
    try:
        _, family, source, destination, *ports = words
        version = {b"TCP4": 4, b"TCP6": 6}[family]
        addresses = [_address(word) for word in (source, destination)]
        is_good = words[0] == b"PROXY" and all(address.version == version for address in addresses) and len(ports) == 2
        if not is_good or not all(port.isdigit() and int(port) <= 65535 for port in ports):
            raise ValueError
    except (KeyError, ValueError):
        raise FramingError("malformed PROXY header") from None
    return end + 2, _usual(addresses[0])


def _address(text: bytes) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Raises ValueError; also for a scope (``%eth0``), which may be any text and means nothing elsewhere."""
    if b"%" in text:
        raise ValueError("an address with a scope")
    return ipaddress.ip_address(text.decode("latin-1"))


def _usual(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bytes:
    """As text; an IPv4 address that came as IPv6 is one of IPv4."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address).encode()

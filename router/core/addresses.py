"""Addresses of clients as numbers: for networks in rules, and for prefixes as keys."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

_MOST: Final = 4096
"""Addresses that are remembered: parsing one takes some microseconds, and clients ask more than once."""
_known: Final[dict[bytes, tuple[int, int] | None]] = {}


def address_of(text: bytes) -> tuple[int, int] | None:
    """Bits (32 or 128) and value of an address in its text form; None if it is none, as for a unix socket.

    An IPv4 address inside of IPv6 (``::ffff:192.0.2.7``, RFC 4291 §2.5.5.2) is that IPv4 address.
    """
    if text in _known:
        return _known[text]
    if len(_known) >= _MOST:
        _known.clear()
    _known[text] = found = _parse(text)
    return found


def _parse(text: bytes) -> tuple[int, int] | None:
    try:
        address = ip_address(text.decode("ascii"))
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        mapped = address.ipv4_mapped
        if mapped is None:
            return 128, int(address)
        address = mapped
    return 32, int(address)


def masked(bits: int, value: int, prefix: int) -> int:
    """The network of an address, as the bits in front."""
    return value >> (bits - prefix) if prefix < bits else value


def prefix_text(text: bytes, prefix4: int, prefix6: int) -> bytes | None:
    """The first bits of an address as an address, in its usual form (RFC 5952); None if ``text`` is none."""
    found = address_of(text)
    if found is None:
        return None
    bits, value = found
    prefix = prefix4 if bits == 32 else prefix6
    hidden = max(bits - prefix, 0)
    value = value >> hidden << hidden
    address = IPv4Address(value) if bits == 32 else IPv6Address(value)
    return str(address).encode()


def network_of(text: str) -> tuple[int, int, int]:
    """Bits, length of the prefix, and the bits in front of a network; an address alone is one.

    Raises ValueError for anything else.
    """
    network = ip_network(text, strict=False)
    bits, prefix, value = network.max_prefixlen, network.prefixlen, int(network.network_address)
    if bits == 128 and prefix >= 96 and value >> 32 == 0xFFFF:
        bits, prefix, value = 32, prefix - 96, value & 0xFFFFFFFF
    return bits, prefix, masked(bits, value, prefix)

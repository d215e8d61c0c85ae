"""The TCP connections of this process: how many bytes each has received, as the kernel counts them; ending one.

gRPC hands over a message once it is whole and does not say what it holds of those that are not. Linux alone says it for
a socket (TCP_INFO); elsewhere nothing is known.
"""

from __future__ import annotations

import socket
import struct
import sys
import urllib.parse
from pathlib import Path
from typing import Final

_DESCRIPTORS: Final = Path("/proc/self/fd")
_RECEIVED: Final = struct.Struct("128xQ")
"""The start of the kernel's struct tcp_info, up to tcpi_bytes_received."""


class Sockets:
    """The sockets of gRPC's connections, found by the peer that gRPC names: `ipv4:127.0.0.1:40000`."""

    def __init__(self) -> None:
        self._descriptors: dict[str, int] = {}

    def received(self, peer: str) -> int | None:
        """Bytes received from `peer` since it connected; None where that is not known."""
        address = _address(peer)
        if address is None:
            return None
        if (found := _received(self._descriptors.get(address), address)) is not None:
            return found
        self._descriptors = _connections()
        return _received(self._descriptors.get(address), address)

    def shut(self, peer: str) -> None:
        """Ends the connection to `peer`, if it is found: gRPC sees that and ends its calls."""
        address = _address(peer)
        if address is None or (descriptor := _connections().get(address)) is None:
            return
        borrowed = socket.socket(fileno=descriptor)
        try:
            borrowed.shutdown(socket.SHUT_RDWR)
        finally:
            borrowed.detach()


def _address(peer: str) -> str | None:
    """`HOST port` of a TCP peer as gRPC names it; None for another kind of peer."""
    family, _, rest = peer.partition(":")
    host, _, port = rest.rpartition(":")
    if sys.platform != "linux" or family not in {"ipv4", "ipv6"}:
        return None
    return f"{urllib.parse.unquote(host).strip('[]').removeprefix('::ffff:')} {port}"


def _connections() -> dict[str, int]:
    """The descriptor of each connected TCP socket of this process, by its peer's address."""
    found = {}
    for entry in _DESCRIPTORS.iterdir():
        descriptor = int(entry.name)
        if address := _peer_of(descriptor):
            found[address] = descriptor
    return found


def _peer_of(descriptor: int) -> str | None:
    """Whom a descriptor is connected to; None for no TCP socket, or one that is not connected."""
    try:
        borrowed = socket.socket(fileno=descriptor)
    except OSError:
        return None
    try:
        if borrowed.family not in {socket.AF_INET, socket.AF_INET6}:
            return None
        host, port, *_ = borrowed.getpeername()
    except OSError:
        return None
    finally:
        borrowed.detach()
    return f"{host.removeprefix('::ffff:')} {port}"


def _received(descriptor: int | None, address: str) -> int | None:
    """Bytes that the connection to `address` received, if `descriptor` is still that connection."""
    if descriptor is None or _peer_of(descriptor) != address:
        return None
    try:
        borrowed = socket.socket(fileno=descriptor)
    except OSError:
        return None
    try:
        info = borrowed.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RECEIVED.size)
    except OSError:
        return None
    finally:
        borrowed.detach()
    return int(_RECEIVED.unpack(info)[0]) if len(info) == _RECEIVED.size else None

"""Finds gRPC's TCP sockets, to read how many bytes each has received, and to close one.

gRPC delivers complete messages and does not say how much it buffers of incomplete ones. On Linux the kernel does
(TCP_INFO); elsewhere the count is unknown.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
import sys
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

_DESCRIPTORS: Final = Path("/proc/self/fd")
_RECEIVED: Final = struct.Struct("128xQ")
"""The head of the kernel's struct tcp_info, up to tcpi_bytes_received."""


class Sockets:
    """Looks up sockets by the peer as gRPC names it: `ipv4:127.0.0.1:40000`."""

    def __init__(self) -> None:
        self._descriptors: dict[str, int] = {}

    def received(self, peer: str) -> int | None:
        """Return the bytes received from `peer` since it connected; None where unknown."""
        address = _address(peer)
        if address is None:
            return None
        received = _received(self._descriptors.get(address), address)
        if received is None:
            self._descriptors = _connections()
            received = _received(self._descriptors.get(address), address)
        return received

    def shut(self, peer: str) -> None:
        """Shut down the connection to `peer`, if there is one; gRPC notices and ends its calls."""
        address = _address(peer)
        if address is None or (descriptor := _connections().get(address)) is None:
            return
        try:
            with _borrowed(descriptor) as connection:
                if _peer_of(connection) == address:  # still
                    connection.shutdown(socket.SHUT_RDWR)
        except OSError as error:
            log.info("peer=%s is gone already: %s", peer, error)


def _address(peer: str) -> str | None:
    """Return `HOST PORT` of a TCP peer; None for another kind of peer."""
    family, _, rest = peer.partition(":")
    host, _, port = rest.rpartition(":")
    if sys.platform != "linux" or family not in {"ipv4", "ipv6"}:
        return None
    return f"{urllib.parse.unquote(host).strip('[]').removeprefix('::ffff:')} {port}"


@contextlib.contextmanager
def _borrowed(descriptor: int) -> Iterator[socket.socket]:
    """Make a socket object of gRPC's socket for the duration of a `with`. OSError where the descriptor is no socket."""
    borrowed = socket.socket(fileno=descriptor)
    try:
        yield borrowed
    finally:
        borrowed.detach()


def _connections() -> dict[str, int]:
    """Return the descriptor of each connected TCP socket of this process, by its peer's address."""
    descriptors = {}
    for descriptor in (int(entry.name) for entry in _DESCRIPTORS.iterdir()):
        with contextlib.suppress(OSError), _borrowed(descriptor) as connection:
            if address := _peer_of(connection):
                descriptors[address] = descriptor
    return descriptors


def _peer_of(connection: socket.socket) -> str | None:
    """Return the peer's address; None for a socket that is not TCP. OSError where it is not connected."""
    if connection.family not in {socket.AF_INET, socket.AF_INET6}:
        return None
    host, port, *_ = connection.getpeername()
    return f"{host.removeprefix('::ffff:')} {port}"


def _received(descriptor: int | None, address: str) -> int | None:
    """Return the bytes received from `address`; None if `descriptor` is no longer its connection."""
    if descriptor is None:
        return None
    with contextlib.suppress(OSError), _borrowed(descriptor) as connection:
        if _peer_of(connection) == address:
            info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RECEIVED.size)
            return int(_RECEIVED.unpack(info)[0]) if len(info) == _RECEIVED.size else None
    return None

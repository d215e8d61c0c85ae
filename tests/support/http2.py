"""The part of HTTP/2 that tests need to break gRPC's rules: frames, header blocks, and a bare connection."""

from __future__ import annotations

import select
import socket

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
ACK = END_STREAM = 1
END_HEADERS = 4
INITIAL_WINDOW_SIZE = 4
"""Identifier of the setting in a SETTINGS frame."""


def frame(kind, flags, number, data=b"") -> bytes:
    """Encode one frame."""
    return len(data).to_bytes(3) + bytes((kind, flags)) + number.to_bytes(4) + data


def headers(path, metadata=()) -> bytes:
    """Encode the header block of a gRPC call as literals without indexing. Names and values are str or bytes."""
    fields = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "convlens"),
              ("content-type", "application/grpc"), ("te", "trailers"), *metadata]  # fmt: skip
    return b"".join(
        _literal(*(part if isinstance(part, bytes) else part.encode() for part in field)) for field in fields
    )


def _literal(name: bytes, value: bytes) -> bytes:
    assert max(len(name), len(value)) < 127
    return b"\0" + bytes((len(name),)) + name + bytes((len(value),)) + value


class Connection:
    """One connection. It acknowledges SETTINGS and PING frames and passes every frame to on_frame()."""

    def __init__(self, target, first: bytes, wrap=lambda plain: plain) -> None:
        """`first` follows the preface; `wrap` turns the plain socket into a TLS one."""
        host, _, port = target.rpartition(":")
        self._socket = wrap(socket.create_connection((host, int(port)), timeout=10))
        self._received = b""
        self._next = 1
        self.ended: set[int] = set()
        """Stream ids of the calls that the server has ended."""
        self.is_closed = False
        self._socket.sendall(PREFACE + first)

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self._socket.close()

    def number(self) -> int:
        """The next unused stream id."""
        number, self._next = self._next, self._next + 2
        return number

    def listen(self, seconds=0.0) -> bool:
        """Receive the frames that arrive within `seconds`; False when none did."""
        if not self._is_readable(seconds):
            return False
        try:
            data = self._socket.recv(1 << 18)
        except OSError:
            data = b""
        self.is_closed = not data
        self._received += data
        while len(self._received) >= 9:
            size = int.from_bytes(self._received[:3])
            if len(self._received) < 9 + size:
                break
            kind, flags, number = self._received[3], self._received[4], int.from_bytes(self._received[5:9])
            content, self._received = self._received[9 : 9 + size], self._received[9 + size :]
            if kind in (SETTINGS, PING) and not flags & ACK:
                self._socket.sendall(frame(kind, ACK, 0, content if kind == PING else b""))
            self.on_frame(kind, flags, number, content)
        return bool(data)

    def on_frame(self, kind, flags, number, data) -> None:
        """Called with each frame from the server."""

    def _is_readable(self, seconds) -> bool:
        pending = getattr(self._socket, "pending", lambda: 0)()
        return bool(pending or select.select([self._socket], [], [], seconds)[0])

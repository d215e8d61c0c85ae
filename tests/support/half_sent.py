"""A caller that begins to send a message and stops: HTTP/2 by hand, which no client library lets one break off."""

from __future__ import annotations

import select
import socket
import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
ACK = END_STREAM = 1
END_HEADERS = 4
FRAME = 16_384
WINDOW = 65_535


class HalfSent:
    """One connection with calls on it, each of a message of which only a part is sent."""

    def __init__(self, target, wrap=lambda plain: plain) -> None:
        """`wrap` makes a TLS socket of a plain one."""
        host, _, port = target.rpartition(":")
        self._socket = wrap(socket.create_connection((host, int(port)), timeout=10))
        self._received = b""
        self._window = self._initial = WINDOW
        self._windows: dict[int, int] = {}
        self._next = 1
        self.ended: set[int] = set()
        """The calls that the server has ended."""
        self.is_closed = False
        self._socket.sendall(PREFACE + _frame(SETTINGS, 0, 0))

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self._socket.close()

    def call(self, path, announced, metadata=()) -> int:
        """Begins a call whose message says that it has `announced` bytes; its number."""
        fields = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "convlens"),
                  ("content-type", "application/grpc"), ("te", "trailers"), *metadata]  # fmt: skip
        number, self._next = self._next, self._next + 2
        self._windows[number] = self._initial
        self._socket.sendall(_frame(HEADERS, END_HEADERS, number, b"".join(map(_literal, fields))))
        self._send(number, struct.pack(">BI", 0, announced))
        return number

    def send(self, number, count, seconds=10.0) -> int:
        """Sends `count` bytes of a call's message, or as many as are let through until the call ends; how many."""
        sent = 0
        while sent < count and number not in self.ended and not self.is_closed:
            size = min(count - sent, FRAME, self._window, self._windows[number])
            if size:
                try:
                    self._send(number, bytes(size))
                except OSError:
                    self.is_closed = True
                sent += size
            if not self.listen(0 if size else seconds) and not size:
                break
        return sent

    def listen(self, seconds) -> bool:
        """Takes in what comes within `seconds`; False when nothing did."""
        if not self._is_readable(seconds):
            return False
        try:
            data = self._socket.recv(1 << 16)
        except OSError:
            data = b""
        self.is_closed = not data
        self._received += data
        while len(self._received) >= 9:
            size = int.from_bytes(self._received[:3])
            if len(self._received) < 9 + size:
                break
            kind, flags, number = self._received[3], self._received[4], int.from_bytes(self._received[5:9])
            self._take(kind, flags, number, self._received[9 : 9 + size])
            self._received = self._received[9 + size :]
        return bool(data)

    def _is_readable(self, seconds) -> bool:
        pending = getattr(self._socket, "pending", lambda: 0)()
        return bool(pending or select.select([self._socket], [], [], seconds)[0])

    def _send(self, number, data) -> None:
        self._window -= len(data)
        self._windows[number] -= len(data)
        self._socket.sendall(_frame(DATA, 0, number, data))

    def _take(self, kind, flags, number, data) -> None:
        if kind in (SETTINGS, PING) and not flags & ACK:
            self._socket.sendall(_frame(kind, ACK, 0, data if kind == PING else b""))
        if kind == SETTINGS and not flags & ACK:
            for at in range(0, len(data), 6):
                name, value = struct.unpack_from(">HI", data, at)
                if name == 4:  # the window that streams begin with
                    self._windows = {it: window + value - self._initial for it, window in self._windows.items()}
                    self._initial = value
        if kind == WINDOW_UPDATE and number == 0:
            self._window += int.from_bytes(data)
        elif kind == WINDOW_UPDATE and number in self._windows:
            self._windows[number] += int.from_bytes(data)
        if kind == RST_STREAM or (kind == HEADERS and flags & END_STREAM):
            self.ended.add(number)


def _frame(kind, flags, number, data=b"") -> bytes:
    return len(data).to_bytes(3) + bytes((kind, flags)) + number.to_bytes(4) + data


def _literal(field) -> bytes:
    """A header, neither compressed nor remembered."""
    name, value = (it.encode() for it in field)
    assert max(len(name), len(value)) < 127
    return b"\0" + bytes((len(name),)) + name + bytes((len(value),)) + value

"""A caller that begins calls and reads their answers as fast as it likes, or not at all: HTTP/2 by hand."""

from __future__ import annotations

import select
import socket
import struct

from half_sent import ACK, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PREFACE, SETTINGS, WINDOW_UPDATE
from half_sent import _frame as frame
from half_sent import _literal as literal

INITIAL_WINDOW_SIZE = 4


class Unread:
    """One connection. Nothing of any answer comes until allow() lets it."""

    def __init__(self, target) -> None:
        host, _, port = target.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=10)
        self._received = b""
        self._next = 1
        self.read: dict[int, int] = {}
        """Bytes of the answer of each call, in gRPC's framing."""
        self.ended: set[int] = set()
        self.is_closed = False
        first = frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW_SIZE, 0))
        self._socket.sendall(PREFACE + first + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1 << 30)))

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self._socket.close()

    def call(self, path, *messages) -> int:
        """Begins a call with these requests, of less than 16 KiB each; its number."""
        fields = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "convlens"),
                  ("content-type", "application/grpc"), ("te", "trailers")]  # fmt: skip
        number, self._next = self._next, self._next + 2
        self.read[number] = 0
        sent = frame(HEADERS, END_HEADERS, number, b"".join(map(literal, fields)))
        for message in messages:
            sent += frame(DATA, 0, number, struct.pack(">BI", 0, len(message)) + message)
        self._socket.sendall(sent + frame(DATA, END_STREAM, number))
        return number

    def allow(self, number, count) -> None:
        """Lets so many bytes more of a call's answer come."""
        self._socket.sendall(frame(WINDOW_UPDATE, 0, number, struct.pack(">I", count)))

    def listen(self, seconds=0.0) -> None:
        """Takes in what comes until nothing does for `seconds`."""
        while not self.is_closed and select.select([self._socket], [], [], seconds)[0]:
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
                self._take(kind, flags, number, self._received[9 : 9 + size])
                self._received = self._received[9 + size :]

    def _take(self, kind, flags, number, data) -> None:
        if kind in (SETTINGS, PING) and not flags & ACK:
            self._socket.sendall(frame(kind, ACK, 0, data if kind == PING else b""))
        if kind == DATA:
            self.read[number] += len(data)
        if kind in (DATA, HEADERS) and flags & END_STREAM:
            self.ended.add(number)

"""A caller that begins calls and reads their answers as fast as it likes, or not at all."""

from __future__ import annotations

import struct

from http2 import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    SETTINGS,
    WINDOW_UPDATE,
    Connection,
    frame,
    headers,
)


class Unread(Connection):
    """One connection. Nothing of any answer but its headers comes until allow() lets it."""

    def __init__(self, target) -> None:
        self.read: dict[int, int] = {}
        """Bytes of the answer of each call, in gRPC's framing."""
        self.headers: dict[int, bytes] = {}
        """Those of the answer of each call, trailers included, as they came."""
        first = frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW_SIZE, 0))
        super().__init__(target, first + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1 << 30)))

    def call(self, path, *messages) -> int:
        """Begins a call with these requests, of less than 16 KiB each; its number."""
        number = self.number()
        self.read[number], self.headers[number] = 0, b""
        sent = frame(HEADERS, END_HEADERS, number, headers(path))
        for message in messages:
            sent += frame(DATA, 0, number, struct.pack(">BI", 0, len(message)) + message)
        self._socket.sendall(sent + frame(DATA, END_STREAM, number))
        return number

    def allow(self, number, count) -> None:
        """Lets so many bytes more of a call's answer come."""
        self._socket.sendall(frame(WINDOW_UPDATE, 0, number, struct.pack(">I", count)))

    def drain(self, seconds=0.0) -> None:
        """Takes in what comes until nothing does for `seconds`."""
        while not self.is_closed and self.listen(seconds):
            pass

    def take(self, kind, flags, number, data) -> None:
        """Keeps count of what is read, and of the calls that have ended."""
        if kind == DATA:
            self.read[number] += len(data)
        if kind == HEADERS:
            self.headers[number] += data
        if kind in (DATA, HEADERS) and flags & END_STREAM:
            self.ended.add(number)

"""A caller that reads responses only as far as it has opened their flow-control windows."""

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


class PacedReader(Connection):
    """One connection whose streams begin with a window of 0: the server sends headers, and data only after allow()."""

    def __init__(self, target) -> None:
        self.read: dict[int, int] = {}
        """Bytes of the response received so far, in gRPC's framing, by stream id."""
        self.headers: dict[int, bytes] = {}
        """Header blocks of the response, trailers included, still encoded, by stream id."""
        first = frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW_SIZE, 0))
        super().__init__(target, first + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1 << 30)))

    def call(self, path, *messages) -> int:
        """Start a call with these requests, each below 16 KiB, and return its stream id."""
        number = self.number()
        self.read[number], self.headers[number] = 0, b""
        sent = frame(HEADERS, END_HEADERS, number, headers(path))
        for message in messages:
            sent += frame(DATA, 0, number, struct.pack(">BI", 0, len(message)) + message)
        self._socket.sendall(sent + frame(DATA, END_STREAM, number))
        return number

    def allow(self, number, count) -> None:
        """Open the window of a call by `count` bytes."""
        self._socket.sendall(frame(WINDOW_UPDATE, 0, number, struct.pack(">I", count)))

    def drain(self, seconds=0.0) -> None:
        """Receive frames until none arrives for `seconds`."""
        while not self.is_closed and self.listen(seconds):
            pass

    def on_frame(self, kind, flags, number, data) -> None:
        """Count the bytes of each response and record the calls that have ended."""
        if kind == DATA:
            self.read[number] += len(data)
        if kind == HEADERS:
            self.headers[number] += data
        if kind in (DATA, HEADERS) and flags & END_STREAM:
            self.ended.add(number)

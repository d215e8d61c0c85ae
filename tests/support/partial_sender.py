"""A caller that sends only a part of each message and keeps the call open, which no gRPC library can do."""

from __future__ import annotations

import struct

from http2 import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Connection,
    frame,
    headers,
)

FRAME = 16_384
WINDOW = 65_535


class PartialSender(Connection):
    """One connection; each of its calls announces a message and sends a part of it."""

    def __init__(self, target, wrap=lambda plain: plain) -> None:
        """`wrap` turns the plain socket into a TLS one."""
        self._window = self._initial = WINDOW
        self._windows: dict[int, int] = {}
        super().__init__(target, frame(SETTINGS, 0, 0), wrap)

    def call(self, path, announced, metadata=()) -> int:
        """Start a call whose message announces `announced` bytes, and return its stream id."""
        number = self.number()
        self._windows[number] = self._initial
        self._socket.sendall(frame(HEADERS, END_HEADERS, number, headers(path, metadata)))
        self._send(number, struct.pack(">BI", 0, announced))
        return number

    def send(self, number, count, seconds=10.0) -> int:
        """Send up to `count` bytes of a call's message while its window is open, and return how many were sent.

        Stops when the call ends or when no frame arrives for `seconds` while the window is closed.
        """
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

    def _send(self, number, data) -> None:
        self._window -= len(data)
        self._windows[number] -= len(data)
        self._socket.sendall(frame(DATA, 0, number, data))

    def on_frame(self, kind, flags, number, data) -> None:
        """Keep the windows up to date and record the calls that have ended."""
        if kind == SETTINGS and not flags & ACK:
            for name, value in struct.iter_unpack(">HI", data):
                if name == INITIAL_WINDOW_SIZE:
                    change = value - self._initial
                    self._windows = {stream: window + change for stream, window in self._windows.items()}
                    self._initial = value
        if kind == WINDOW_UPDATE and number == 0:
            self._window += int.from_bytes(data)
        elif kind == WINDOW_UPDATE and number in self._windows:
            self._windows[number] += int.from_bytes(data)
        if kind == RST_STREAM or (kind == HEADERS and flags & END_STREAM):
            self.ended.add(number)

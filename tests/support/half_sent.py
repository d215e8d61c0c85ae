"""A caller that begins to send a message and stops, which no client library lets one break off."""

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


class HalfSent(Connection):
    """One connection with calls on it, each of a message of which only a part is sent."""

    def __init__(self, target, wrap=lambda plain: plain) -> None:
        """`wrap` makes a TLS socket of a plain one."""
        self._window = self._initial = WINDOW
        self._windows: dict[int, int] = {}
        super().__init__(target, frame(SETTINGS, 0, 0), wrap)

    def call(self, path, announced, metadata=()) -> int:
        """Begins a call whose message says that it has `announced` bytes; its number."""
        number = self.number()
        self._windows[number] = self._initial
        self._socket.sendall(frame(HEADERS, END_HEADERS, number, headers(path, metadata)))
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

    def _send(self, number, data) -> None:
        self._window -= len(data)
        self._windows[number] -= len(data)
        self._socket.sendall(frame(DATA, 0, number, data))

    def take(self, kind, flags, number, data) -> None:
        """Keeps count of the windows, and of the calls that have ended."""
        if kind == SETTINGS and not flags & ACK:
            for at in range(0, len(data), 6):
                name, value = struct.unpack_from(">HI", data, at)
                if name == INITIAL_WINDOW_SIZE:  # the window that streams begin with
                    self._windows = {it: window + value - self._initial for it, window in self._windows.items()}
                    self._initial = value
        if kind == WINDOW_UPDATE and number == 0:
            self._window += int.from_bytes(data)
        elif kind == WINDOW_UPDATE and number in self._windows:
            self._windows[number] += int.from_bytes(data)
        if kind == RST_STREAM or (kind == HEADERS and flags & END_STREAM):
            self.ended.add(number)

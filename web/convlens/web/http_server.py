"""The HTTP server: uvicorn with bounds on its connections, which prints when it serves and ends at SIGTERM."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from convlens.web.app import create_app
from convlens.web.settings import DRAIN_SECONDS, HEADER_SECONDS, MAX_CONNECTIONS, WebSettings


class BoundedConnection(H11Protocol):
    """A connection that ends when it waits too long for the head of a request, and when there are too many."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Begin to serve a connection."""
        super().connection_made(transport)
        self._previous: Any = None
        """The last request at the previous check, if it had been answered; None before the first request."""
        self._timer = self.loop.call_later(HEADER_SECONDS, self._end_if_waiting)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the timer with the connection."""
        self._timer.cancel()
        super().connection_lost(exc)

    def _end_if_waiting(self) -> None:
        """Close a connection on which no request was complete since the previous check."""
        is_waiting = self.cycle is None or self.cycle.response_complete
        if self.transport.is_closing() or (is_waiting and self.cycle is self._previous):
            self.transport.abort()
            return
        self._previous = self.cycle if is_waiting else self
        self._timer = self.loop.call_later(HEADER_SECONDS, self._end_if_waiting)


class HttpServer(uvicorn.Server):
    """A gateway's server."""

    def __init__(self, settings: WebSettings) -> None:
        """Listen on the settings' address, so that the port is known. OSError if that cannot be."""
        self.socket = socket.create_server((settings.host, settings.port), family=_family(settings.host))
        host, self.port = self.socket.getsockname()[:2]
        self.address = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"
        config = uvicorn.Config(
            create_app(settings), http=BoundedConnection, ws="none", lifespan="on", log_config=None, access_log=False,
            server_header=False, proxy_headers=False, timeout_graceful_shutdown=DRAIN_SECONDS,
        )  # fmt: skip
        super().__init__(config)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve, and say so on stdout."""
        await super().startup(sockets)
        print(f"ready: http {self.address}", flush=True)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End at SIGTERM and SIGINT with exit status 0; uvicorn itself would end by the signal."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT) * (threading.current_thread() is threading.main_thread()):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield

    def run_until_signal(self) -> None:
        """Serve until a signal."""
        self.run([self.socket])


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET

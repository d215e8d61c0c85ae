"""Ports of the loopback interface, real sockets, whose servers do not answer as a Convlens server does."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading


@contextlib.contextmanager
def refusing():
    """A port that refuses connections: it is bound, and nothing listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@contextlib.contextmanager
def silent():
    """A port that accepts connections and never sends a byte."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@contextlib.contextmanager
def dropping():
    """A port that drops packets: its accept queue is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                waiting.connect(listener.getsockname())
        yield listener.getsockname()[1]


@contextlib.contextmanager
def silent_dns():
    """The port of a DNS server that never answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        yield server.getsockname()[1]


@contextlib.contextmanager
def replying(reply: bytes, tls: ssl.SSLContext | None = None):
    """A port that sends `reply` after the first bytes of each client and closes; over TLS if there is a context."""

    def serve(connection):
        with connection, contextlib.suppress(OSError):
            inner = tls.wrap_socket(connection, server_side=True) if tls else connection
            with inner:
                inner.recv(1 << 16)
                inner.sendall(reply)

    def accept():
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)  # makes accept() fail

            thread.join()

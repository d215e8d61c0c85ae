"""Addresses at which no server answers, each in its own way, on real sockets of the loopback interface."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading


@contextlib.contextmanager
def refusing():
    """A port at which nothing listens, and nothing else can meanwhile."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@contextlib.contextmanager
def silent():
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@contextlib.contextmanager
def dropping():
    """A port whose packets are dropped: its queue of connections is full."""
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
def replying(words: bytes, tls: ssl.SSLContext | None = None):
    """A port that says `words` to whoever sends anything, over TLS where there is a context, and hangs up."""

    def serve(connection):
        with connection, contextlib.suppress(OSError):
            inner = tls.wrap_socket(connection, server_side=True) if tls else connection
            with inner:
                inner.recv(1 << 16)
                inner.sendall(words)

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
            listener.shutdown(socket.SHUT_RDWR)  # which ends accept()
            thread.join()

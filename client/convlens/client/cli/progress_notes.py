"""Notes on stderr while a server does not answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from convlens.client import Client
from convlens.client.cli.beside import running_beside

FIRST_DELAY: Final = 1.0
"""Seconds before the first note: most troubles are over by then."""
INTERVAL: Final = 2.0
"""Seconds from note to note."""


@contextmanager
def notes_while_waiting(client: Client, write: Callable[[str], None]) -> Iterator[None]:
    """Write every two seconds, for the length of a `with`, that `client` tries again and why, while it does."""

    def watch(is_over: threading.Event) -> None:
        delay = FIRST_DELAY
        while not is_over.wait(delay):
            delay = INTERVAL
            if text := _note(client):
                write(text)

    with running_beside("convlens-notes", watch, INTERVAL):
        yield


def _note(client: Client) -> str:
    """Return why there is no answer yet; empty if there is one, or if the server only takes its time."""
    connection, session, timeout = client._calls.connection, client._calls.transport.current, client._calls.timeout
    trouble = connection.trouble
    if not trouble and session and not connection.is_reached and not session.is_connected():
        trouble = f"no answer from {connection.target} yet"
    limit = timeout if connection.is_reached else min(timeout, connection.connect_timeout)
    return f"convlens: {trouble}; trying for {limit:g} s" if trouble else ""

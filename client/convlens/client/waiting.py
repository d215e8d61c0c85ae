"""What people are told while a server does not answer. For the command line."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from convlens.client.sync import Client

FIRST: Final = 1.0
"""Seconds before the first note: most of what goes wrong is over by then."""
EVERY: Final = 2.0
"""Seconds from note to note."""


@contextmanager
def notes_while_waiting(client: Client, tell: Callable[[str], None]) -> Iterator[None]:
    """Tells, for the length of a `with`, every two seconds that `client` tries again, and why, while it does."""
    is_over = threading.Event()

    def watch() -> None:
        pause = FIRST
        while not is_over.wait(pause):
            pause = EVERY
            if note := _note(client):
                tell(note)

    thread = threading.Thread(target=watch, name="convlens-notes", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def _note(client: Client) -> str:
    """Why there is no answer yet; empty where there is one, or where the server only takes its time."""
    connection, link = client._connection, client._channel
    trouble = connection.trouble
    if not trouble and link and not connection.reached and not link.is_connected():
        trouble = f"no answer from {connection.target} yet"
    limit = client._timeout if connection.reached else min(client._timeout, connection.connect_timeout)
    return f"convlens: {trouble}; trying for {limit:g} s" if trouble else ""

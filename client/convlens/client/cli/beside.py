"""Threads that run beside a `with`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def running_beside(name: str, function: Callable[[threading.Event], None], join_seconds: float) -> Iterator[None]:
    """Run `function` in a thread while a `with` lasts; the event that it gets is set at its end.

    The thread is waited for no longer than `join_seconds`.
    """
    is_over = threading.Event()
    thread = threading.Thread(target=function, args=(is_over,), name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join(join_seconds)

"""The progress that the server reports of jobs under way, for the bar of the commands that compute maps."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Final

from convlens.client import Client, ConvlensError
from convlens.client.cli.beside import running_beside

INTERVAL: Final = 1.0
"""Seconds between calls; a job that takes less needs no progress."""
MOST: Final = 100
"""Running jobs that are read at a time: a page."""


@contextmanager
def reported_progress(client: Client, request_ids: Collection[str], update: Callable[[float], None]) -> Iterator[None]:
    """Call `update` every second of a `with` with the sum of the shares done of the running jobs in `request_ids`.

    A server that does not let this caller list jobs is not called again.
    """

    def poll(is_over: threading.Event) -> None:
        while not is_over.wait(INTERVAL):
            if not client._calls.connection.is_reached:
                continue
            try:
                running = itertools.islice(client.jobs("running"), MOST)
                update(sum(job.progress for job in running if job.request_id in request_ids))
            except ConvlensError:
                return

    with running_beside("convlens-progress", poll, INTERVAL):
        yield

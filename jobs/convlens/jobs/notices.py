"""Notices: who waits for a job hears of each change of its state. A notice may be lost, so waiters look, too."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

import redis

from convlens.jobs import keys
from convlens.jobs.record import State

log = logging.getLogger(__name__)


class Notices:
    """A thread that calls `heard(job_id, state, more)` for every notice, until stopped; it reconnects by itself.

    `more` is what Record.succeeded takes, for SUCCEEDED.
    """

    def __init__(
        self, client: redis.Redis, heard: Callable[[str, State, Sequence[str]], None], channel: str = keys.NOTICES
    ) -> None:
        self._redis = client
        self._heard = heard
        self._channel = channel
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="notices", daemon=True)

    def start(self) -> None:
        """Begins to listen."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread; within about a second."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        failing = False
        while not self._stop.is_set():
            try:
                with self._redis.pubsub(ignore_subscribe_messages=True) as channel:
                    channel.subscribe(self._channel)
                    failing = False
                    while not self._stop.is_set():
                        message = channel.get_message(timeout=1.0)
                        if message:
                            job_id, state, *more = message["data"].decode().split()
                            self._heard(job_id, State(int(state)), more)
            except redis.RedisError as error:
                if not failing:
                    log.warning("notices: %s; trying again every second", error)
                failing = True
                self._stop.wait(1.0)

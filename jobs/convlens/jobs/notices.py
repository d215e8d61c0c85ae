"""Notices: who waits for a job hears of each change of its state. One may be lost, so those who wait look, too."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

import redis

log = logging.getLogger(__name__)


class Notices:
    """A thread that calls `heard` with the words of each notice in a channel, until stopped; reconnects by itself."""

    def __init__(self, client: redis.Redis, channel: str, heard: Callable[[Sequence[str]], None]) -> None:
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
                            self._heard(message["data"].decode().split())
            except redis.RedisError as error:
                if not failing:
                    log.warning("notices: %s; trying again every second", error)
                failing = True
                self._stop.wait(1.0)

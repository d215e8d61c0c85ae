"""Notices: who waits for a job hears of each change of its state. One may be lost, so those who wait look, too."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import redis
from redis.client import PubSub

from convlens.jobs.queue import poison
from convlens.jobs.runtime.background import Loop


class Notices:
    """A loop that calls `heard` with the words of each notice in a channel, until stopped; reconnects by itself.

    A notice that `heard` cannot read (ValueError, LookupError) is dropped.
    """

    def __init__(self, client: redis.Redis, channel: str, heard: Callable[[Sequence[str]], None]) -> None:
        self._redis = client
        self._heard = heard
        self._channel = channel
        self._subscription: PubSub | None = None
        self._loop = Loop(f"subscriber-{channel.split(':')[1]}", self._listen, at_end=self._unsubscribe)

    def start(self) -> None:
        """Begins to listen."""
        self._loop.start()

    def stop(self) -> None:
        """Ends the thread; within about a second."""
        self._loop.stop()

    def _listen(self) -> None:
        """Waits for one notice, for a second."""
        try:
            if self._subscription is None:
                self._subscription = self._redis.pubsub(ignore_subscribe_messages=True)
                self._subscription.subscribe(self._channel)
            message = self._subscription.get_message(timeout=1.0)
        except BaseException:
            self._unsubscribe()
            raise
        if message:
            try:
                self._heard(message["data"].decode().split())
            except (ValueError, LookupError) as error:
                poison.report("notice", message["data"], repr(error))

    def _unsubscribe(self) -> None:
        if self._subscription is not None:
            self._subscription.close()
            self._subscription = None

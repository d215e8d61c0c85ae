"""Pub/Sub messages of the scripts, such as a job's change of state. One may be lost, so subscribers also poll."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import redis
from redis.client import PubSub

from convlens.jobs.queue import poison
from convlens.jobs.runtime.background import Loop


class Subscriber:
    """A loop that calls `on_message` with the fields of each message in a channel, until stopped; reconnects by itself.

    A message that `on_message` cannot read (ValueError, LookupError) is dropped and reported.
    """

    def __init__(self, client: redis.Redis, channel: str, on_message: Callable[[Sequence[str]], None]) -> None:
        self._redis = client
        self._on_message = on_message
        self._channel = channel
        self._subscription: PubSub | None = None
        self._loop = Loop(f"subscriber-{channel.split(':')[1]}", self._listen, at_end=self._unsubscribe)

    def start(self) -> None:
        """Begin to listen."""
        self._loop.start()

    def stop(self) -> None:
        """End the thread; takes up to about a second."""
        self._loop.stop()

    def _listen(self) -> None:
        """Wait for one message, for a second."""
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
                self._on_message(message["data"].decode().split())
            except (ValueError, LookupError) as error:
                poison.report("notice", message["data"], repr(error))

    def _unsubscribe(self) -> None:
        if self._subscription is not None:
            self._subscription.close()
            self._subscription = None

"""Hands: the threads of workers that take a pool's jobs, those that ask for one model with the same weights.

A Celery message wakes a hand. It takes jobs as long as there are any, waits a while to be told of more, and rests. So
under load no messages are needed: a job is queued for hands that will look again, or one that waits is told of it by a
word in its worker's channel. The ledger knows which hands are awake and which of them wait.
"""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import Final

import redis

from convlens.jobs.queue import keys
from convlens.jobs.queue.subscriber import Notices

HANDS: Final = 4
"""Of a worker for each of its models: one decodes, one stores, while others wait for the device."""
LINGER: Final = 0.5
"""Seconds that a hand waits to be told before it rests."""
AWAKE: Final = 3.0
"""Seconds that a hand is believed to look again, and a third of them a message to wake one."""


class Then(StrEnum):
    """What a hand does when it finds nothing to take."""

    WORK = "work"
    """It ends what it took before, and looks again."""
    WAIT = "wait"
    """It waits for LINGER seconds to be told."""
    REST = "rest"


class Hand:
    """One of them."""

    def __init__(self, name: str, stopping: threading.Event, urge: Callable[[], None]) -> None:
        self.name = name
        self.urge = urge
        """Has a hand of its worker take a job, room or not."""
        self._stopping = stopping
        self._told = threading.Event()

    @property
    def stopping(self) -> bool:
        """True when it is to take nothing more."""
        return self._stopping.is_set()

    def tell(self) -> None:
        """Ends its waiting."""
        self._told.set()

    def told(self) -> bool:
        """Waits to be told of work; False when nobody did."""
        told = self._told.wait(LINGER)
        self._told.clear()
        return told


class Hands:
    """Those of one worker, `most` a model."""

    def __init__(self, client: redis.Redis, most: int) -> None:
        self._most = most
        self._name = uuid.uuid4().hex
        self._awake: dict[str, tuple[str, Hand]] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self.messages = 0
        """How many have come to wake one."""
        self._notices = Notices(client, keys.wake(self._name), self._heard)

    @property
    def awake(self) -> int:
        """How many are."""
        return len(self._awake)

    @property
    def stopping(self) -> bool:
        """True when no hand takes anything more."""
        return self._stopping.is_set()

    def start(self) -> None:
        """Begins to listen for work."""
        self._notices.start()

    def stop(self) -> None:
        """No hand takes anything more."""
        self._stopping.set()
        with self._lock:
            for _, hand in self._awake.values():
                hand.tell()

    def close(self) -> None:
        """Ends the thread, once all hands rest."""
        self._notices.stop()

    @contextlib.contextmanager
    def woken(self, pool: str, urge: Callable[[], None]) -> Iterator[Hand | None]:
        """A hand for a pool's jobs; None when enough of them are awake."""
        hand = Hand(f"{self._name}:{uuid.uuid4().hex}", self._stopping, urge)
        with self._lock:
            self.messages += 1
            enough = sum(theirs == pool for theirs, _ in self._awake.values()) >= self._most
            if not enough:
                self._awake[hand.name] = (pool, hand)
        try:
            yield None if enough else hand
        finally:
            with self._lock:
                self._awake.pop(hand.name, None)

    def _heard(self, words: Sequence[str]) -> None:
        """A hand's name, and a second word where its worker is to take a job, room or not."""
        with self._lock:
            if found := self._awake.get(words[0]):
                hand = found[1]
                hand.tell()
                if words[1:]:
                    hand.urge()

"""Wakes the calls that wait for a job, by the notifications that Redis publishes when its state changes.

A notification can be lost, so a waiting call reads the record again every REREAD_SECONDS.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Final

from convlens.jobs.queue import keys, poison
from convlens.jobs.queue.producer import Producer
from convlens.jobs.queue.record import Record, State
from convlens.jobs.queue.subscriber import Subscriber

REREAD_SECONDS: Final = 1.0


class Subscription:
    """The notifications of one job to one waiting call."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._ended = asyncio.Event()
        self._success: Sequence[str] | None = None

    def notify(self, state: State, result: Sequence[str]) -> None:
        """Wake the call: the job is now in `state`. `result` is what Record.succeeded() takes."""
        self._success = result if state is State.SUCCEEDED else None
        self._changed.set()
        if state.final:
            self._ended.set()

    async def wait_for_change(self) -> None:
        """Return at the next notification, or after REREAD_SECONDS without one."""
        await _wait(self._changed, REREAD_SECONDS)
        self._changed.clear()

    async def ends_within(self, seconds: float) -> bool:
        """Wait at most `seconds` for a notification of the job's end; whether it came."""
        await _wait(self._ended, seconds)
        return self._ended.is_set()

    async def wait_for_success(self) -> Sequence[str] | None:
        """Return the `result` of a success; None at another end, or after REREAD_SECONDS without any."""
        await _wait(self._ended, REREAD_SECONDS)
        self._ended.clear()  # so that a wrong notification does not make the caller spin
        success, self._success = self._success, None
        return success


class Waiters:
    """All calls of this server that wait for jobs."""

    def __init__(self, producer: Producer, read: Callable[[str], Awaitable[Record]]) -> None:
        """`read` returns the record of a job id."""
        self._loop = asyncio.get_running_loop()
        self._read = read
        self._subscriptions: dict[str, set[Subscription]] = {}
        self._subscriber = Subscriber(producer.redis, keys.NOTICES, self._on_message)

    def start(self) -> None:
        """Subscribe, in a thread."""
        self._subscriber.start()

    def stop(self) -> None:
        """Unsubscribe and stop the thread; takes up to about a second."""
        self._subscriber.stop()

    @contextlib.contextmanager
    def subscribe(self, job_id: str) -> Iterator[Subscription]:
        """Receive the notifications of a job. Subscribe before the record is read, so that no change is missed."""
        subscription = Subscription()
        subscriptions = self._subscriptions.setdefault(job_id, set())
        subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            subscriptions.discard(subscription)
            if not subscriptions:
                self._subscriptions.pop(job_id, None)

    async def wait_until_final(self, record: Record, subscription: Subscription) -> Record:
        """Return the record of the job once it has ended."""
        while not record.state.final:
            if (success := await subscription.wait_for_success()) is not None:
                try:
                    return record.succeeded(success)
                except ValueError as error:
                    poison.report("notice", f"{record.id} {' '.join(success)}", str(error))
            record = await self._read(record.id)
        return record

    async def watch(self, job_id: str) -> AsyncIterator[Record]:
        """Yield the record now and at each change of state, attempts or progress, the final one last."""
        with self.subscribe(job_id) as subscription:
            previous = None
            while True:
                record = await self._read(job_id)
                if (current := (record.state, record.attempts, record.progress)) != previous:
                    previous = current
                    yield record
                if record.state.final:
                    return
                await subscription.wait_for_change()

    def _on_message(self, fields: Sequence[str]) -> None:
        """Pass on a message of Redis. Called in the subscriber's thread."""
        job_id, number, *result = fields
        state = State(int(number))
        if job_id in self._subscriptions:
            self._loop.call_soon_threadsafe(self._notify, job_id, state, result)

    def _notify(self, job_id: str, state: State, result: Sequence[str]) -> None:
        for subscription in self._subscriptions.get(job_id, ()):
            subscription.notify(state, result)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    if not event.is_set():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await event.wait()

"""What the services share: the ledger behind a thread pool, the models' cards, and waiting for a job to end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, ParamSpec, TypeVar

from convlens.jobs import cards
from convlens.jobs.broker import Publisher, celery_app
from convlens.jobs.connect import connect
from convlens.jobs.ledger import Ledger
from convlens.jobs.notices import Notices
from convlens.jobs.reconciler import Reconciler
from convlens.jobs.record import Record, State
from convlens.server import convert
from convlens.server.errors import unknown_job
from convlens.server.settings import ServerSettings
from convlens.server.validation import validate
from convlens.v1 import job_pb2, model_pb2, spec_pb2

log = logging.getLogger(__name__)

REREAD_SECONDS: Final = 1.0
"""A notice can be lost, so waiters read the record this often all the same."""
CARDS_SECONDS: Final = 1.0
"""How long the models' cards are believed."""

P = ParamSpec("P")
T = TypeVar("T")


class Front:
    """One front: everything its services need of the house."""

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.draining = False
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(settings.io_threads, thread_name_prefix="io")
        client = connect(settings.redis_url)
        self.ledger = Ledger(client, settings)
        self._publisher = Publisher(celery_app(settings.redis_url))
        self._reconciler = Reconciler(self.ledger, self._publisher)
        self._notices = Notices(client, self._heard)
        self._waiters: dict[str, set[asyncio.Event]] = {}
        self._cards: dict[str, model_pb2.Model] = {}
        self._cards_until = 0.0

    def start(self) -> None:
        """Begins to listen and to reconcile."""
        self._notices.start()
        self._reconciler.start()

    async def close(self) -> None:
        """Ends all threads."""
        await self.call(self._reconciler.stop)
        await self.call(self._notices.stop)
        await self.call(self._publisher.close)
        self._threads.shutdown()

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs a blocking function in the pool."""
        return await self._loop.run_in_executor(self._threads, lambda: function(*args, **kwargs))

    async def cards(self) -> dict[str, model_pb2.Model]:
        """The cards of the models served now, a second old at most."""
        now = time.monotonic()
        if now >= self._cards_until:
            self._cards = await self.call(cards.live, self.ledger.redis)
            self._cards_until = now + (CARDS_SECONDS if self._cards else 0.05)
        return self._cards

    async def submit(
        self, spec: spec_pb2.JobSpec, request_id: str, *, keep: bool, time_remaining: float | None = None
    ) -> Record:
        """Validates and queues a job, or finds the one that the same request id made before."""
        found = await self.cards()

        def work() -> tuple[Record, bool]:
            valid = validate(spec, request_id, found, self.settings, keep=keep, time_remaining=time_remaining)
            return self.ledger.submit(valid.job, self.settings.max_jobs)

        record, created = await self.call(work)
        if created:
            self._publisher.put(record.queue, record.id)
            log.info(
                "job=%s model=%s images=%d queue=%s submitted", record.id, record.model, record.images, record.queue
            )
        return record

    @contextlib.asynccontextmanager
    async def waiting(self, joining: Coroutine[Any, Any, Record]) -> AsyncIterator[Record]:
        """A job that `joining` makes its caller wait for: one waiter less at the end, come what may.

        A call that goes away while it joins has joined all the same, and leaves.
        """
        joined = asyncio.ensure_future(joining)

        async def leave() -> None:
            record = await joined
            await self.call(self.ledger.leave, record.id)

        try:
            yield await asyncio.shield(joined)
        finally:
            await asyncio.shield(leave())

    async def record(self, job_id: str) -> Record:
        """The record of `job_id`; a Refusal when there is none."""
        record: Record | None = await self.call(self.ledger.get, job_id)
        if record is None:
            raise unknown_job(job_id)
        return record

    async def describe(self, record: Record) -> job_pb2.Job:
        """A record as a message, with its place in the queue."""
        position = None
        if record.state is State.QUEUED:
            position = await self.call(self.ledger.position, record)
        return convert.job(record, position)

    async def changes(self, record: Record) -> AsyncIterator[Record]:
        """The record, and again at every change of its state or progress, up to the final one."""
        with self._listening(record.id) as event:
            state = None
            while True:
                event.clear()
                record = await self.record(record.id)
                if (record.state, record.attempts, record.progress) != state:
                    state = (record.state, record.attempts, record.progress)
                    yield record
                if record.state.final:
                    return
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(event.wait(), REREAD_SECONDS)

    async def ended(self, record: Record) -> Record:
        """The record once the job has ended."""
        if record.state.final:
            return record
        async for changed in self.changes(record):
            record = changed
        return record

    @contextlib.contextmanager
    def _listening(self, job_id: str) -> Iterator[asyncio.Event]:
        event = asyncio.Event()
        waiters = self._waiters.setdefault(job_id, set())
        waiters.add(event)
        try:
            yield event
        finally:
            waiters.discard(event)
            if not waiters:
                self._waiters.pop(job_id, None)

    def _heard(self, job_id: str, _state: State) -> None:
        """Called in the notices' thread."""
        if job_id in self._waiters:
            self._loop.call_soon_threadsafe(self._wake, job_id)

    def _wake(self, job_id: str) -> None:
        for event in self._waiters.get(job_id, ()):
            event.set()

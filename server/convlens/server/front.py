"""What the services share: the ledger behind a thread pool, the models' cards, and waiting for a job to end."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, ParamSpec, TypeVar, cast

from convlens.jobs import model_registry
from convlens.jobs.queue import keys, poison
from convlens.jobs.queue.admission import Full
from convlens.jobs.queue.ledger import Ledger, Waiting
from convlens.jobs.queue.new_job import NewJob, NotSubmitted
from convlens.jobs.queue.reconciler import Reconciler
from convlens.jobs.queue.record import Record, State
from convlens.jobs.queue.subscriber import Subscriber
from convlens.jobs.runtime import memory
from convlens.jobs.runtime.redis_client import SERVER_TIMEOUT, LedgerUnavailable, connect
from convlens.server import metrics, responses
from convlens.server.auth.principal import Caller
from convlens.server.coalescer import Together
from convlens.server.requests import JobRequest
from convlens.server.settings import ServerSettings
from convlens.server.status import refusal_of, unknown_job, without_frames
from convlens.server.transport.send_budget import SendBudget
from convlens.server.validation import Call, validate
from convlens.v1 import job_pb2

log = logging.getLogger(__name__)

REREAD_SECONDS: Final = 1.0
"""A notice can be lost, so waiters read the record this often all the same."""
CARDS_SECONDS: Final = 1.0
"""How long the models' cards are believed."""

HEAVY_BYTES: Final = 1 << 20
"""Jobs with more bytes of images go by themselves, and no other has to wait until they are stored."""
LEAVING_SECONDS: Final = 0.05
"""Who has a result leaves its job with the next submission, or this much later."""
MOST_LEAVING: Final = 64
"""Who leaves at once."""
PATIENT_WRITERS: Final = 4
"""Threads that store images where that has to wait."""

P = ParamSpec("P")
T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """A request for a job."""

    request: JobRequest
    call: Call
    live: model_registry.LiveModels


class Front:
    """One front: everything its services need of the house."""

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.draining = False
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(settings.io_threads, thread_name_prefix="io")
        self._lister = ThreadPoolExecutor(1, thread_name_prefix="list")
        """Listings take long, and hold up nobody who submits."""
        client = connect(settings.redis_url, SERVER_TIMEOUT)
        self.ledger = Ledger(client, settings, settings.bounds)
        self._reconciler = Reconciler(self.ledger)
        self._notices = Subscriber(client, keys.NOTICES, self._heard)
        self._listeners: dict[str, set[Heard]] = {}
        writers = PATIENT_WRITERS if self.ledger.payloads.may_block else 1
        self._leaving: deque[Waiting] = deque()
        """Who leaves which job, which Redis was not told yet."""
        self._telling: asyncio.TimerHandle | None = None
        self._light = Together(self._loop, "submit", self._submitted, threads=writers)
        self._heavy = Together(self._loop, "submit-heavy", self._submitted, threads=writers, most=1)
        self._live = model_registry.LiveModels({}, {}, ())
        self._live_until = 0.0
        self.sending = SendBudget(settings.max_sending_bytes, settings.tenant_share, self.trim)
        self.seen: set[str] = set()
        """The models that were served at any time."""

    def start(self) -> None:
        """Begins to listen and to reconcile."""
        self._notices.start()
        self._reconciler.start()

    async def close(self) -> None:
        """Ends all threads, once those who leave have left."""
        await self.call(self._heavy.close)
        await self.call(self._reconciler.stop)
        await self.call(self._notices.stop)
        self._tell_who_left()
        await self.call(self._light.close)  # last: who is told of a job meanwhile leaves it by this thread
        self._threads.shutdown()
        self._lister.shutdown(cancel_futures=True)

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs a blocking function in the pool."""
        return await self._loop.run_in_executor(self._threads, lambda: function(*args, **kwargs))

    def trim(self) -> None:
        """Gives free memory back to the kernel, in a thread."""
        self._loop.run_in_executor(self._threads, memory.trim)

    async def live(self) -> model_registry.LiveModels:
        """What is served now, a second old at most."""
        now = time.monotonic()
        if now >= self._live_until:
            live = await self.call(model_registry.read_live_models, self.ledger.redis)
            known = self._live.models  # plans are remembered by cards, so that one that did not change stays the same
            models = {name: known[name] if known.get(name) == card else card for name, card in live.models.items()}
            self._live = dataclasses.replace(live, models=models)
            self.seen |= models.keys()
            self._live_until = now + (CARDS_SECONDS if models else 0.05)
        return self._live

    async def submit(self, request: JobRequest, call: Call) -> asyncio.Future[Record]:
        """Has a job validated and queued, or the one found that the same request id made before.

        It is queued though nobody waits for the record any more.
        """
        submitted = self._heavy if request.size > HEAVY_BYTES else self._light
        return cast("asyncio.Future[Record]", submitted(Asked(request, call, await self.live())))

    def _submitted(self, items: Sequence[Asked | None]) -> Sequence[Record | Exception | None]:
        """What becomes of several requests, in a thread. Those who left are told of along the way, or for None."""
        jobs: list[NewJob] = []
        refused: dict[int, Exception] = {}
        for place, it in enumerate(items):
            try:
                if it:
                    jobs.append(validate(it.request, it.call, it.live, self.settings, self.seen))
            except Exception as error:  # noqa: BLE001 - told to its caller, and logged where unforeseen
                refused[place] = without_frames(refusal_of(error))  # which have the images
        leaving: list[Waiting] = []
        with contextlib.suppress(IndexError):
            while len(leaving) < MOST_LEAVING:
                leaving.append(self._leaving.popleft())
        queued: Iterator[Record | Exception]
        try:
            queued = map(self._queued, self.ledger.submit(jobs, leaving))
        except LedgerUnavailable as error:  # the deadlines of jobs that are left end them then
            queued = itertools.repeat(error)
        return [refused.get(place) or next(queued) if it else None for place, it in enumerate(items)]

    def _queued(self, found: Record | NotSubmitted) -> Record | Exception:
        """What the caller gets."""
        if isinstance(found, Exception):
            if isinstance(found, Full):
                metrics.REFUSED.labels(found.limit).inc()
            return found
        record = found
        outcome = "cached" if record.cached else "follows" if record.leader else "queued"
        metrics.JOBS.labels(record.model, outcome).inc()
        log.debug("job=%s model=%s images=%d flow=%s submitted", record.id, record.model, record.images, record.flow)
        return record

    @contextlib.asynccontextmanager
    async def waiting(self, joined: asyncio.Future[Record]) -> AsyncIterator[Record]:
        """A job that its caller has joined, once it has: one waiter less at the end, come what may.

        A call that goes away while it joins has joined all the same, and leaves. Nobody waits for the leaving, which is
        urgent only for one that goes away: the job may be live.
        """
        try:
            yield await asyncio.shield(joined)
        except BaseException:
            joined.add_done_callback(self._leave_now)
            raise
        joined.add_done_callback(self._leave)

    def _leave(self, joined: asyncio.Future[Record]) -> None:
        if joined.cancelled() or joined.exception():
            return
        record = joined.result()
        self._leaving.append((record.id, record.waiter))
        if not self._telling:
            self._telling = self._loop.call_later(LEAVING_SECONDS, self._tell_who_left)

    def _leave_now(self, joined: asyncio.Future[Record]) -> None:
        self._leave(joined)
        self._tell_who_left()

    def _tell_who_left(self) -> None:
        """Has Redis told, and looks again where some may be left."""
        if self._telling:
            self._telling.cancel()
        self._telling = None
        if self._leaving:
            self._light(None)
            if len(self._leaving) > MOST_LEAVING:
                self._telling = self._loop.call_later(LEAVING_SECONDS, self._tell_who_left)

    async def record(self, job_id: str, caller: Caller) -> Record:
        """The record of `job_id`; a Refusal when there is none that the caller may know of."""
        record = await self._known(job_id)
        if not (record.tenant == caller.tenant or "admin" in caller.roles):
            raise unknown_job(job_id)
        return record

    async def _known(self, job_id: str) -> Record:
        record: Record | None = await self.call(self.ledger.get, job_id)
        if record is None:
            raise unknown_job(job_id)
        return record

    async def page(
        self, size: int, before: int | None, state: State | None, tenant: str | None
    ) -> tuple[list[job_pb2.Job], int | None]:
        """Up to `size` jobs, and where the next page begins: see Ledger.page. Listings have their turn one by one."""

        def listed() -> tuple[list[job_pb2.Job], int | None]:
            records, after = self.ledger.page(size, before, state, tenant)
            return [responses.job(record) for record in records], after

        return await self._loop.run_in_executor(self._lister, listed)

    async def changes(self, job_id: str) -> AsyncIterator[Record]:
        """A job's record now, and again at every change of its state or progress, up to the final one."""
        with self.listening(job_id) as heard:
            told = None
            while True:
                record = await self._known(job_id)
                if (record.state, record.attempts, record.progress) != told:
                    told = (record.state, record.attempts, record.progress)
                    yield record
                if record.state.final:
                    return
                await heard.change()

    async def ended(self, record: Record, heard: Heard) -> Record:
        """The record once the job has ended; `heard` has been listening since before the record was read."""
        while not record.state.final:
            if (last := await heard.end()) is not None:
                try:
                    return record.succeeded(last)
                except ValueError as error:
                    poison.report("notice", f"{record.id} {' '.join(last)}", str(error))
            record = await self._known(record.id)
        return record

    @contextlib.contextmanager
    def listening(self, job_id: str) -> Iterator[Heard]:
        """Hears the notices of a job."""
        heard = Heard()
        listeners = self._listeners.setdefault(job_id, set())
        listeners.add(heard)
        try:
            yield heard
        finally:
            listeners.discard(heard)
            if not listeners:
                self._listeners.pop(job_id, None)

    def _heard(self, words: Sequence[str]) -> None:
        """Called in the notices' thread. Of SUCCEEDED more is told: what Record.succeeded takes."""
        job_id, number, *more = words
        state = State(int(number))
        if job_id in self._listeners:
            self._loop.call_soon_threadsafe(self._tell, job_id, state, more)

    def _tell(self, job_id: str, state: State, more: Sequence[str]) -> None:
        for heard in self._listeners.get(job_id, ()):
            heard.tell(state, more)


class Heard:
    """What one waiter hears of a job. A notice can be lost, so it never waits long."""

    def __init__(self) -> None:
        self._change = asyncio.Event()
        self._end = asyncio.Event()
        self._last: Sequence[str] | None = None

    def tell(self, state: State, more: Sequence[str]) -> None:
        """A notice."""
        self._last = more if state is State.SUCCEEDED else None
        self._change.set()
        if state.final:
            self._end.set()

    async def change(self) -> None:
        """Returns at the next notice, or after REREAD_SECONDS without one."""
        await _within(self._change, REREAD_SECONDS)
        self._change.clear()

    async def ends_within(self, seconds: float) -> bool:
        """True once a notice of an end has come, False when `seconds` have passed without one."""
        await _within(self._end, seconds)
        return self._end.is_set()

    async def end(self) -> Sequence[str] | None:
        """What the notice of success said; None at another end, or after REREAD_SECONDS without any."""
        await _within(self._end, REREAD_SECONDS)
        self._end.clear()  # a notice of an end that is none is not to be met again at once
        last, self._last = self._last, None
        return last


async def _within(event: asyncio.Event, seconds: float) -> None:
    if not event.is_set():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await event.wait()

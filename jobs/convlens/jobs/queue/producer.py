"""What a server does with jobs: submit, look up, list, wait for, cancel and delete them, and read their results."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, cast

import redis

from convlens.jobs.payloads.store import Data, PayloadGone, StoreFull
from convlens.jobs.pools import model_of
from convlens.jobs.queue import keys, poison
from convlens.jobs.queue.admission import Bounds
from convlens.jobs.queue.client import QueueClient
from convlens.jobs.queue.new_job import NewJob, NotSubmitted, Pack, new_waiter, parse_outcome, script_args
from convlens.jobs.queue.record import Record, State, hash_fields
from convlens.jobs.runtime.settings import JobsSettings

SCANNED: Final = 1000
"""Records that one page of a listing reads, at most."""
_SCANNED_AT_ONCE: Final = 200
"""Those that one script reads: others' scripts come in between."""

Waiting = tuple[str, str]
"""A job's id, and the name of one of its waiters."""


class JobNotFinished(RuntimeError):
    """The job has not ended, as it must have for this."""


@dataclass(frozen=True, slots=True)
class QueueStats:
    """What is held and what waits."""

    jobs: int
    """Queued and running."""
    image_bytes: int
    result_bytes: int
    cached_bytes: int
    queues: Mapping[str, tuple[int, float]]
    """By model: how many jobs wait in its pools, and for how many seconds the oldest has been there."""


class Producer(QueueClient):
    """A server's side of the queue, which admits what stays within `bounds`."""

    def __init__(self, client: redis.Redis, settings: JobsSettings, bounds: Bounds) -> None:
        super().__init__(client, settings)
        self.bounds = bounds

    def submit(self, jobs: Sequence[NewJob], leaving: Sequence[Waiting] = ()) -> list[Record | NotSubmitted]:
        """Queue jobs, or find the earlier ones with their ids; a job that is not queued has its error in its place.

        The waiters that are `leaving` leave before. Where the store is full, cached results are evicted, and it is
        tried again.
        """
        stored = [self._stored_digests(job) for job in jobs]
        outcomes = self._submit(jobs, stored, leaving)
        has_evicted = any(isinstance(outcome, StoreFull) for outcome in outcomes) and self._evict()
        # an image of None was there a moment ago
        retried = [
            i
            for i, outcome in enumerate(outcomes)
            if outcome is None or (has_evicted and isinstance(outcome, StoreFull))
        ]
        if retried:
            again = self._submit([jobs[i] for i in retried], [frozenset()] * len(retried))
            for i, outcome in zip(retried, again, strict=True):
                outcomes[i] = outcome
        if None in outcomes:
            raise RuntimeError("submit.lua misses stored images of jobs that have none")
        return cast("list[Record | NotSubmitted]", outcomes)

    def _stored_digests(self, job: NewJob) -> frozenset[str]:
        """The digests of the job's images that are stored already; asking is not worth it for one image."""
        digests = [digest for digest, _ in job.images]
        if len(digests) == 1:
            return frozenset()
        packs = self.redis.hmget(keys.IMAGES, digests)
        return frozenset(digest for digest, pack in zip(digests, packs, strict=True) if pack)

    def _submit(
        self, jobs: Sequence[NewJob], stored: Sequence[frozenset[str]], leaving: Sequence[Waiting] = ()
    ) -> list[Record | NotSubmitted | None]:
        """As submit(), with the images that are not `stored` in one payload a job; None where a stored one is gone."""
        outcomes: list[Record | NotSubmitted | None] = [None] * len(jobs)
        pending: dict[int, dict[str, Any]] = {}
        unused: list[str] = []
        try:
            for i, (job, digests) in enumerate(zip(jobs, stored, strict=True)):
                pack = Pack(job.images, digests)
                unused.append(pack.name)
                try:
                    if pack.body:
                        ttl = job.timeout + self.settings.result_ttl
                        self.payloads.put(pack.name, pack.body, ttl, reserved=False)
                except StoreFull as error:
                    outcomes[i] = error
                else:
                    pending[i] = script_args(job, pack)
            replies = self._run_submit(jobs, pending, leaving)
            for i, (outcome, names, details) in zip(pending, replies, strict=True):
                unused.remove(pending[i]["pack"])
                unused += [name.decode(errors="replace") for name in names]
                outcomes[i] = parse_outcome(jobs[i], pending[i]["nonce"], outcome, details)
        except redis.OutOfMemoryError:
            outcomes = [outcome or StoreFull("Redis is full (maxmemory)") for outcome in outcomes]
            self.leave(leaving)
        except (redis.ConnectionError, redis.TimeoutError):
            unused = []  # the jobs may be there; what is not needed has a time of its own
            raise
        finally:
            self._dispose(unused)
        return outcomes

    def _run_submit(self, jobs: Sequence[NewJob], pending: Mapping[int, Any], leaving: Sequence[Waiting]) -> Any:
        """Run the script for the pending jobs, by their places in `jobs`, and for the waiters that leave."""
        if not pending:
            self.leave(leaving)
            return []
        specs, args, bounds = [jobs[i].spec for i in pending], list(pending.values()), self.bounds.script_args
        return self._run("submit", *specs, jobs=args, leaving=leaving, bounds=bounds, **self._ttls)

    def get(self, job_id: str) -> Record | None:
        """The record, or None for an id that is not known (any more)."""
        now, row = self._run("read", id=job_id)
        return _record(job_id, row, int(now) / 1000)

    def page(
        self, size: int, before: int | None, state: State | None, tenant: str | None = None
    ) -> tuple[list[Record], int | None]:
        """Up to `size` records, newest first, older than sequence number `before`; and the next page's `before`.

        Of one tenant, or of all for None. No more than SCANNED records are read, so there may be fewer, or none, though
        there is a next page.
        """
        records: list[Record] = []
        below = "" if before is None else str(before)
        for _ in range(0, SCANNED, _SCANNED_AT_ONCE):
            most = min(_SCANNED_AT_ONCE, size - len(records)) if state is None else _SCANNED_AT_ONCE
            now, scanned, last, *rows = self._run(
                "list", tenant=tenant or "", before=below, scan=most, limit=size - len(records), state=state or 0,
                without_tenant=tenant == "",
            )  # fmt: skip
            below = last.decode()
            for name, row in zip(rows[::2], rows[1::2], strict=True):
                record = _record(name.decode(errors="replace"), row, int(now) / 1000)
                records += [record] if record else []
            if len(records) == size:
                break
            if scanned < most:
                return records, None
        return records, int(below)

    def stats(self) -> QueueStats:
        """What is held and what waits, at one moment."""
        jobs, images, results, cached, *queues = self._run("stats")
        waiting: dict[str, tuple[int, float]] = {}
        for pool, number, age in zip(queues[::3], queues[1::3], queues[2::3], strict=True):
            model = model_of(pool.decode(errors="replace"))
            jobs_before, oldest = waiting.get(model, (0, 0.0))
            waiting[model] = (jobs_before + int(number), max(oldest, int(age) / 1000))
        return QueueStats(int(jobs), int(images), int(results), int(cached), waiting)

    def cancel(self, job_id: str) -> Record | None:
        """End a live job as CANCELLED. Return the record as it then is; None for an unknown id."""
        return _record(job_id, self._run("cancel", id=job_id, **self._ttls))

    def join(self, record: Record) -> Record | None:
        """Add a waiter to a job. Return its record with the waiter's name; None for an unknown id."""
        joined = replace(record, waiter=new_waiter())
        return joined if self._run("join", id=record.id, waiter=joined.waiter) else None

    def leave(self, waiting: Collection[Waiting]) -> None:
        """Remove waiters from their jobs. After the last one a job not kept is cancelled, or its result cached."""
        if waiting:
            unused = self._run("leave", waiters=list(waiting), bounds=self.bounds.script_args, **self._ttls)
            self._dispose([name.decode(errors="replace") for name in unused])

    def delete(self, record: Record) -> None:
        """Forget an ended job and its result. Raises JobNotFinished while it is live."""
        if not self._run("delete", id=record.id, created=round(record.created * 1000)):
            raise JobNotFinished(f"job {record.id} has not ended")

    def read_result(self, record: Record, offset: int, length: int) -> Data:
        """Bytes of a SUCCEEDED job's tensors and, behind them, its header. PayloadGone when it has expired."""
        if not record.result:
            raise PayloadGone(f"the result of job {record.id} has expired")
        return self.payloads.read(record.result, offset, length)


def _record(job_id: str, flat: Sequence[bytes], now: float = 0.0) -> Record | None:
    """The record of a hash as a script gives it; None where there is none, or none that can be read."""
    fields = hash_fields(flat)
    if b"state" not in fields:
        return None
    try:
        return Record.parse(job_id, fields, now)
    except ValueError as error:
        poison.report("record", job_id, str(error))
        return None

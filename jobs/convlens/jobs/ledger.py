"""The ledger: every promise about a job, kept in Redis by atomic transitions.

Execution is at least once, the visible outcome exactly once: a job is claimed with a secret token and a lease, the
first final state wins, and every script is safe to replay. Sync and thread-safe.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import redis

from convlens.jobs import keys
from convlens.jobs.admission import Bounds
from convlens.jobs.cards import model_of
from convlens.jobs.hands import AWAKE, HANDS, LINGER, Then
from convlens.jobs.payloads import Data, StoreFull, open_store
from convlens.jobs.record import JobFailure, Record, State, StoredImage, hash_fields
from convlens.jobs.scripts import Scripts
from convlens.jobs.settings import JobsSettings
from convlens.jobs.submission import NewJob, NotSubmitted, Pack, Submitted, submitted, words


class JobLive(RuntimeError):
    """What was asked can be done only to a job that has ended."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A worker's hold on a job: the record as it was taken, with all that it needs."""

    record: Record
    spec: bytes
    images: tuple[StoredImage, ...]
    taken: float = field(default_factory=time.monotonic)
    """When, by this process' time.monotonic()."""

    @property
    def token(self) -> str:
        """The secret that this worker's words are checked by."""
        return self.record.token


class Claims(NamedTuple):
    """What a hand was given."""

    jobs: list[Claim]
    suspect_waits: bool
    """True where the next job in turn is one for an idle worker alone."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What is held and what waits."""

    jobs: int
    """Queued and running."""
    image_bytes: int
    result_bytes: int
    cached_bytes: int
    queues: Mapping[str, tuple[int, float]]
    """By model: how many jobs wait in its pools, and for how many seconds the oldest has been there."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a job ended for the worker that holds it."""

    claim: Claim
    failure: JobFailure | None
    """None for one whose result is stored."""
    result_bytes: int = 0
    header_size: int = 0

    def words(self) -> tuple[str | int, ...]:
        """What finish.lua is told of it."""
        state = State.FAILED if self.failure else State.SUCCEEDED
        why = self.failure or JobFailure("", "")
        record = self.claim.record
        return (
            record.id, record.token, state, why.reason, why.message, why.field, self.result_bytes, self.header_size,
        )  # fmt: skip


class Ledger:
    """Jobs by their ids. Raises redis.RedisError when Redis cannot be reached."""

    def __init__(self, client: redis.Redis, settings: JobsSettings) -> None:
        self.redis = client
        self.settings = settings
        self.payloads = open_store(client, settings.payload_dir)
        self._run = Scripts(client)

    @property
    def _ttls(self) -> tuple[int, int]:
        return int(self.settings.result_ttl * 1000), int(self.settings.tombstone_ttl * 1000)

    # --- what a front does ---

    def submit(
        self, jobs: Sequence[NewJob], bounds: Bounds, leaving: Sequence[str] = ()
    ) -> list[Submitted | NotSubmitted]:
        """Queues jobs, or finds the earlier ones of their ids; in the place of one that is not kept, the error.

        One waiter of each job that is `leaving` leaves it before.
        """
        known = [self._stored(job) for job in jobs]
        found = self._submit(jobs, known, bounds, leaving)
        if gone := [i for i, it in enumerate(found) if it is None]:  # an image was there a moment ago
            again = self._submit([jobs[i] for i in gone], [frozenset()] * len(gone), bounds)
            for i, it in zip(gone, again, strict=True):
                found[i] = it
        return [it for it in found if it is not None]

    def _stored(self, job: NewJob) -> frozenset[str]:
        """The digests of the job's images that are stored already; one image is not worth asking."""
        digests = [digest for digest, _ in job.images]
        if len(digests) == 1:
            return frozenset()
        found = self.redis.hmget(keys.IMAGES, digests)
        return frozenset(digest for digest, place in zip(digests, found, strict=True) if place)

    def _submit(
        self, jobs: Sequence[NewJob], known: Sequence[frozenset[str]], bounds: Bounds, leaving: Sequence[str] = ()
    ) -> list[Submitted | NotSubmitted | None]:
        """As submit(), with the images of each that are not `known` in one payload; None where a known one is gone."""
        found: list[Submitted | NotSubmitted | None] = [None] * len(jobs)
        asked: dict[int, dict[str, Any]] = {}
        unused: list[str] = []
        try:
            for i, (job, there) in enumerate(zip(jobs, known, strict=True)):
                pack = Pack(job.images, there)
                unused.append(pack.name)
                try:
                    if pack.body:
                        ttl = job.timeout + self.settings.result_ttl
                        self.payloads.put(pack.name, pack.body, pack.size, ttl, reserved=False)
                except StoreFull as error:
                    found[i] = error
                else:
                    asked[i] = words(job, pack)
            answers = self._queue(jobs, asked, bounds, leaving)
            for i, (outcome, names, told) in zip(asked, answers, strict=True):
                unused.remove(asked[i]["pack"])
                unused += map(bytes.decode, names)
                found[i] = submitted(jobs[i], outcome, told)
        except redis.OutOfMemoryError:
            found = [it or StoreFull("Redis is full (maxmemory)") for it in found]
            self.leave(leaving)
        except (redis.ConnectionError, redis.TimeoutError):
            unused = []  # the jobs may be there; what is not needed has a time of its own
            raise
        finally:
            self.payloads.delete(unused)
        return found

    def _queue(
        self, jobs: Sequence[NewJob], asked: Mapping[int, dict[str, Any]], bounds: Bounds, leaving: Sequence[str]
    ) -> Any:
        """Runs the script for those jobs that have words, and for who leaves."""
        if not asked:
            self.leave(leaving)
            return []
        result_ttl, tombstone_ttl = self._ttls
        all_of_them = {
            "jobs": list(asked.values()), "leaving": leaving, "result_ttl": result_ttl, "tombstone_ttl": tombstone_ttl,
            "tenant_share": bounds.tenant_share, "awake": int(AWAKE * 1000),
            "bounds": {
                "jobs": bounds.jobs, "image_bytes": bounds.image_bytes, "result_bytes": bounds.result_bytes,
                "pixels": bounds.pixels,
            },
            "cached_bytes": bounds.cached_bytes,
            "tenant_rate": bounds.tenant_rate or 0, "tenant_burst": bounds.tenant_burst * 1000,
        }  # fmt: skip
        return self._run("submit", json.dumps(all_of_them), *(jobs[i].spec for i in asked))

    def get(self, job_id: str) -> Record | None:
        """The record, or None for an id that is not known (any more)."""
        return self._read([job_id])[0]

    def _read(self, job_ids: Sequence[str]) -> list[Record | None]:
        """Records, all in one go; None for ids not known."""
        with self.redis.pipeline(transaction=False) as pipe:
            pipe.time()
            for job_id in job_ids:
                pipe.hgetall(keys.job(job_id))
            (seconds, micros), *rows = pipe.execute()
        now = seconds + micros / 1e6
        return [_record(job_id, fields, now) for job_id, fields in zip(job_ids, rows, strict=True)]

    def position(self, record: Record) -> int | None:
        """How many jobs of its tenant are before it in its queue; None unless it waits there."""
        rank = self.redis.zrank(keys.queued(record.flow), record.id)
        return None if rank is None else int(rank)

    def page(
        self, size: int, before: int | None, state: State | None, tenant: str | None = None
    ) -> tuple[list[Record], int | None]:
        """Up to `size` records, newest first, older than sequence number `before`; and the next page's `before`.

        Of one tenant, or of all for None.
        """
        found: list[Record] = []
        jobs = keys.jobs_of(tenant) if tenant else keys.JOBS
        bound = f"({before}" if before is not None else "+inf"
        while True:
            ids = self.redis.zrevrangebyscore(jobs, bound, "-inf", start=0, num=size, withscores=True)
            records = self._read([name.decode() for name, _ in ids])
            for (_, score), record in zip(ids, records, strict=True):
                if record and state in (None, record.state) and tenant in (None, record.tenant):
                    found.append(record)
                bound = f"({int(score)}"
                if len(found) == size:
                    return found, int(score)
            if len(ids) < size:
                return found, None

    def standing(self) -> Standing:
        """What is held and what waits, at one moment."""
        told = self._run("standing")
        jobs, images, results, cached = map(int, told[:4])
        queues = zip(told[4::3], told[5::3], told[6::3], strict=True)
        waiting: dict[str, tuple[int, float]] = {}
        for pool, number, age in queues:
            model = model_of(pool.decode())
            jobs_before, oldest = waiting.get(model, (0, 0.0))
            waiting[model] = (jobs_before + int(number), max(oldest, int(age) / 1000))
        return Standing(jobs, images, results, cached, waiting)

    def cancel(self, job_id: str) -> Record | None:
        """Ends a live job as CANCELLED. The record as it then is; None for an unknown id."""
        return _record(job_id, hash_fields(self._run("cancel", job_id, *self._ttls)))

    def join(self, job_id: str) -> bool:
        """Counts one more caller who waits for the job; False for an unknown id."""
        return bool(self._run("join", job_id))

    def leave(self, job_ids: Collection[str]) -> None:
        """Counts one caller less for each job. After the last one a job not kept is cancelled, or its result cached."""
        if job_ids:
            self._run("leave", *self._ttls, *job_ids)

    def delete(self, job_id: str) -> None:
        """Forgets an ended job and its result. Raises JobLive while it is live."""
        if not self._run("delete", job_id):
            raise JobLive(f"job {job_id} has not ended")

    def read_result(self, record: Record, offset: int, length: int) -> Data:
        """Bytes of a SUCCEEDED job's tensors and, behind them, its header. PayloadGone when it has expired."""
        return self.payloads.read(record.result, offset, length)

    def fill_result(self, record: Record, into: Sequence[memoryview]) -> None:
        """As read_result() from the beginning, into buffers, one after another."""
        self.payloads.fill(record.result, into)

    # --- what a worker does ---

    def claim(
        self,
        pool: str,
        worker: str,
        images: int,
        hand: str,
        then: Then,
        many: int = 1,
        huge: int = 1,
        *,
        is_idle: bool = True,
    ) -> Claims:
        """Takes jobs of a pool whose turn it is, of up to `images` images, but one job at least; of 0 images, none.

        No more than `many` of them take many passes, and no more than `huge` have very many pixels. `then` is what the
        hand will do should there be none. A hand that waits is told of jobs that are left. A job whose worker fell
        silent before may have been the reason: it is claimed by itself, by a worker that `is_idle`, and none that is
        behind it before.
        """
        lease, linger, awake = (int(seconds * 1000) for seconds in (self.settings.lease, LINGER, AWAKE))
        secret = uuid.uuid4().hex
        suspect_waits, *taken = self._run(
            "claim",
            pool,
            worker,
            lease,
            images,
            secret,
            hand,
            then,
            linger,
            awake,
            many,
            *self._ttls,
            int(is_idle),
            huge,
        )
        claims = []
        for name, flat in zip(taken[::2], taken[1::2], strict=True):
            fields = hash_fields(flat)
            stored = tuple(StoredImage(*image) for image in json.loads(fields[b"images"]))
            claims.append(Claim(Record.parse(name.decode(), fields), fields[b"spec"], stored))
        return Claims(claims, bool(suspect_waits))

    def read_images(self, claims: Sequence[Claim]) -> list[list[Data]]:
        """The bytes of each claim's images, all fetched together; no list where one is gone."""
        wanted = [(image.payload, image.offset, image.size) for claim in claims for image in claim.images]
        found = iter(self.payloads.read_many(wanted))
        every = [[next(found) for _ in claim.images] for claim in claims]
        return [[] if None in images else images for images in every]  # type: ignore[misc]

    def renew(self, claims: Sequence[Claim]) -> set[str]:
        """Renews leases; returns the ids that are not the caller's any more (ended, cancelled, given to another)."""
        pairs = [text for claim in claims for text in (claim.record.id, claim.token)]
        return {name.decode() for name in self._run("renew", int(self.settings.lease * 1000), *pairs)}

    def progress(self, claim: Claim, share: float) -> bool:
        """Tells how much of the job is done, 0…1. False when it is not the caller's any more."""
        return bool(self._run("progress", claim.record.id, claim.token, f"{share:.3f}"))

    def store(self, claim: Claim, body: Iterable[Data], size: int, header: Callable[[], bytes]) -> Ended:
        """Writes a result of `size` bytes, and what is to be said of it. StoreFull; the job is still the caller's.

        The body is drawn part by part, as it is written; `header` is asked for once all of it is.
        """
        header_size = 0

        def end() -> bytes:
            nonlocal header_size
            told = header()
            header_size = len(told)
            return told

        ttl = self.settings.result_ttl + self.settings.reconcile_interval
        written = self.payloads.put(claim.token, body, size, ttl, end)
        return Ended(claim, None, written - header_size, header_size)

    def finish(self, ends: Sequence[Ended]) -> list[bool]:
        """Closes records, as SUCCEEDED or FAILED. False where the job was not the caller's any more."""
        if not ends:
            return []
        said = [word for it in ends for word in it.words()]
        done, unused = self._run("finish", *self._ttls, *said)
        lost = [it.claim.token for it, counts in zip(ends, done, strict=True) if it.failure is None and not counts]
        self.payloads.delete([*lost, *map(bytes.decode, unused)])
        return [bool(counts) for counts in done]

    def release(self, claim: Claim) -> bool:
        """Gives the job back to its place in the queue, its attempt not counted."""
        return bool(self._run("release", claim.record.id, claim.token))

    def announced(self, pools: Iterable[str]) -> int:
        """How many messages wait for a hand of these pools."""
        return int(self._run("announced", *pools))

    # --- what the reconciler does ---

    def elect(self, front: str, seconds: float) -> bool:
        """True for the one front that reconciles, until it is silent for so long; with 0 seconds it steps down."""
        return bool(self._run("elect", front, int(seconds * 1000)))

    def reconcile(self, limit: int = 200) -> dict[str, int]:
        """One bounded look for jobs that lost their message, their worker, their weights or their time.

        Returns how many messages are to be sent again to which pools.
        """
        s = self.settings
        grace, lease = int(s.redelivery_grace * 1000), int(s.lease * 1000)
        found = self._run("reconcile", limit, grace, s.max_attempts, lease, *self._ttls)
        return {name.decode(): min(HANDS, count) for name, count in zip(found[::2], found[1::2], strict=True)}

    def collect_garbage(self, limit: int = 500) -> None:
        """Deletes the payloads of jobs that have ended or were deleted."""
        while names := self.redis.lpop(keys.GARBAGE, limit):
            self.payloads.delete([name.decode() for name in names])
        self.payloads.sweep()


def _record(job_id: str, fields: Mapping[bytes, bytes], now: float = 0.0) -> Record | None:
    return Record.parse(job_id, fields, now) if b"state" in fields else None

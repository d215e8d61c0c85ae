"""The ledger: every promise about a job, kept in Redis by atomic transitions.

Execution is at least once, the visible outcome exactly once: a job is claimed with a secret token and a lease, the
first final state wins, and every script is safe to replay. Sync and thread-safe.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

import redis

from convlens.jobs.payloads import open_store
from convlens.jobs.payloads.store import Data, PayloadGone, StoreFull, is_payload_name
from convlens.jobs.pools import model_of
from convlens.jobs.queue import keys, poison
from convlens.jobs.queue.admission import Bounds
from convlens.jobs.queue.new_job import NewJob, NotSubmitted, Pack, new_waiter, submitted, words
from convlens.jobs.queue.record import JobFailure, Record, State, StoredImage, hash_fields
from convlens.jobs.queue.scripts import Scripts
from convlens.jobs.runtime.settings import JobsSettings

UNBOUNDED: Final = Bounds(
    jobs=1 << 53, image_bytes=1 << 53, result_bytes=1 << 53, known_jobs=1 << 53, pixels=1 << 53, tenant_share=1.0
)
"""For who submits nothing."""
LOOKS: Final = 1000
"""Records that one page of a listing looks at."""
_LOOKS_AT_ONCE: Final = 200
"""Those that one script looks at: others' scripts come in between."""
_ROUNDS: Final = 100
"""The most scripts that look for what is due before workers' leases are looked after again."""
NEARLY_FULL: Final = 0.9
"""The share of Redis' maxmemory beyond which what nobody was promised goes."""
_SHED: Final = 200
"""Cached results, and tombstones, that go at once then."""

Waiting = tuple[str, str]
"""A job's id, and the name by which somebody waits for it."""


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
    """What a consumer was given."""

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
    """Jobs by their ids. Raises redis.RedisError when Redis cannot be reached, UnusableFolder for a bad payload_dir."""

    def __init__(self, client: redis.Redis, settings: JobsSettings, bounds: Bounds = UNBOUNDED) -> None:
        """What is held is held to `bounds` by who submits, leaves and reconciles, that is by servers."""
        self.redis = client
        self.settings = settings
        self.bounds = bounds
        self.payloads = open_store(client, settings.payload_dir, self.drop_cached)
        self._run = Scripts(client)

    @property
    def _ttls(self) -> tuple[int, int]:
        return int(self.settings.result_ttl * 1000), int(self.settings.answered_ttl * 1000)

    @property
    def _cache(self) -> tuple[int, int, int]:
        """What cached results are held to: see trim_cache in lua/lib/results.lua."""
        return self.bounds.cached_bytes, self.bounds.result_bytes, self.bounds.known_jobs

    # --- what a front does ---

    def submit(self, jobs: Sequence[NewJob], leaving: Sequence[Waiting] = ()) -> list[Record | NotSubmitted]:
        """Queues jobs, or finds the earlier ones of their ids; in the place of one that is not kept, the error.

        Those who are `leaving` leave before. Where the store is full, what nobody was promised goes, and it is tried
        again.
        """
        known = [self._stored(job) for job in jobs]
        found = self._submit(jobs, known, leaving)
        full = any(isinstance(it, StoreFull) for it in found) and self._shed()
        # an image of None was there a moment ago
        if gone := [i for i, it in enumerate(found) if it is None or (full and isinstance(it, StoreFull))]:
            again = self._submit([jobs[i] for i in gone], [frozenset()] * len(gone))
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
        self, jobs: Sequence[NewJob], known: Sequence[frozenset[str]], leaving: Sequence[Waiting] = ()
    ) -> list[Record | NotSubmitted | None]:
        """As submit(), with the images of each that are not `known` in one payload; None where a known one is gone."""
        found: list[Record | NotSubmitted | None] = [None] * len(jobs)
        asked: dict[int, dict[str, Any]] = {}
        unused: list[str] = []
        try:
            for i, (job, there) in enumerate(zip(jobs, known, strict=True)):
                pack = Pack(job.images, there)
                unused.append(pack.name)
                try:
                    if pack.body:
                        ttl = job.timeout + self.settings.result_ttl
                        self.payloads.put(pack.name, pack.body, ttl, reserved=False)
                except StoreFull as error:
                    found[i] = error
                else:
                    asked[i] = words(job, pack)
            answers = self._queue(jobs, asked, leaving)
            for i, (outcome, names, told) in zip(asked, answers, strict=True):
                unused.remove(asked[i]["pack"])
                unused += [name.decode(errors="replace") for name in names]
                found[i] = submitted(jobs[i], asked[i]["nonce"], outcome, told)
        except redis.OutOfMemoryError:
            found = [it or StoreFull("Redis is full (maxmemory)") for it in found]
            self.leave(leaving)
        except (redis.ConnectionError, redis.TimeoutError):
            unused = []  # the jobs may be there; what is not needed has a time of its own
            raise
        finally:
            self._dispose(unused)
        return found

    def _queue(self, jobs: Sequence[NewJob], asked: Mapping[int, dict[str, Any]], leaving: Sequence[Waiting]) -> Any:
        """Runs the script for those jobs that have words, and for who leaves."""
        if not asked:
            self.leave(leaving)
            return []
        result_ttl, answered_ttl = self._ttls
        bounds = self.bounds
        all_of_them = {
            "jobs": list(asked.values()), "leaving": leaving, "result_ttl": result_ttl, "answered_ttl": answered_ttl,
            "tenant_share": bounds.tenant_share,
            "bounds": {
                "jobs": bounds.jobs, "image_bytes": bounds.image_bytes, "result_bytes": bounds.result_bytes,
                "cached_bytes": bounds.cached_bytes, "known_jobs": bounds.known_jobs, "pixels": bounds.pixels,
            },
            "tenant_rate": bounds.tenant_rate or 0, "tenant_burst": bounds.tenant_burst * 1000,
        }  # fmt: skip
        return self._run("submit", json.dumps(all_of_them), *(jobs[i].spec for i in asked))

    def get(self, job_id: str) -> Record | None:
        """The record, or None for an id that is not known (any more)."""
        return self._read([job_id])[0]

    def _read(self, job_ids: Sequence[str]) -> list[Record | None]:
        """Records, all in one go; None for ids not known."""
        now, *rows = self._run("read", *job_ids)
        return [_record(job_id, hash_fields(row), int(now) / 1000) for job_id, row in zip(job_ids, rows, strict=True)]

    def page(
        self, size: int, before: int | None, state: State | None, tenant: str | None = None
    ) -> tuple[list[Record], int | None]:
        """Up to `size` records, newest first, older than sequence number `before`; and the next page's `before`.

        Of one tenant, or of all for None. No more than LOOKS records are looked at, so there may be fewer, or none,
        though there is a next page.
        """
        found: list[Record] = []
        below = "" if before is None else str(before)
        for _ in range(0, LOOKS, _LOOKS_AT_ONCE):
            more = min(_LOOKS_AT_ONCE, size - len(found)) if state is None else _LOOKS_AT_ONCE
            now, looked, last, *rows = self._run(
                "list", tenant or "", below, more, size - len(found), state or "", int(tenant == "")
            )
            below = last.decode()
            for name, row in zip(rows[::2], rows[1::2], strict=True):
                record = _record(name.decode(errors="replace"), hash_fields(row), int(now) / 1000)
                found += [record] if record else []
            if len(found) == size:
                break
            if looked < more:
                return found, None
        return found, int(below)

    def standing(self) -> Standing:
        """What is held and what waits, at one moment."""
        told = self._run("standing")
        jobs, images, results, cached = map(int, told[:4])
        queues = zip(told[4::3], told[5::3], told[6::3], strict=True)
        waiting: dict[str, tuple[int, float]] = {}
        for pool, number, age in queues:
            model = model_of(pool.decode(errors="replace"))
            jobs_before, oldest = waiting.get(model, (0, 0.0))
            waiting[model] = (jobs_before + int(number), max(oldest, int(age) / 1000))
        return Standing(jobs, images, results, cached, waiting)

    def cancel(self, job_id: str) -> Record | None:
        """Ends a live job as CANCELLED. The record as it then is; None for an unknown id."""
        return _record(job_id, hash_fields(self._run("cancel", job_id, *self._ttls)))

    def join(self, record: Record) -> Record | None:
        """Has one more caller wait for the job: its record, with the waiter's name; None for an unknown id."""
        joined = replace(record, waiter=new_waiter())
        return joined if self._run("join", record.id, joined.waiter) else None

    def leave(self, waiting: Collection[Waiting]) -> None:
        """Waiters leave their jobs. After the last one a job not kept is cancelled, or its result cached."""
        if waiting:
            words = [word for it in waiting for word in it]
            unused = self._run("leave", *self._ttls, *self._cache, *words)
            self._dispose([name.decode(errors="replace") for name in unused])

    def delete(self, record: Record) -> None:
        """Forgets an ended job and its result. Raises JobLive while it is live."""
        if not self._run("delete", record.id, round(record.created * 1000)):
            raise JobLive(f"job {record.id} has not ended")

    def read_result(self, record: Record, offset: int, length: int) -> Data:
        """Bytes of a SUCCEEDED job's tensors and, behind them, its header. PayloadGone when it has expired."""
        if not record.result:
            raise PayloadGone(f"the result of job {record.id} has expired")
        return self.payloads.read(record.result, offset, length)

    def drop_cached(self, size: int) -> list[str]:
        """Forgets cached results of about `size` bytes, the oldest first; names of payloads that nobody needs now."""
        return [name.decode(errors="replace") for name in self._run("drop_cached", size)]

    # --- what a worker does ---

    def next_message(self, pool: str, kinds: Collection[str], seconds: float) -> str | None:
        """Wait for a message of one of a pool's lists and pop it; its kind (of keys.KINDS), or None when none came."""
        lists = {keys.messages(pool, kind): kind for kind in kinds}
        popped = self.redis.brpop(list(lists), seconds)
        return lists[popped[0].decode()] if popped else None

    def claim(
        self,
        pool: str,
        worker: str,
        images: int,
        many: int = 1,
        huge: int = 1,
        *,
        permit: str | None = None,
        is_idle: bool = True,
    ) -> Claims:
        """Claim the next jobs of a pool in fair order, of up to `images` images, but one job at least; for 0, none.

        Beside these up to `many` jobs of many passes, and `huge` ones of very many pixels. `permit` is the kind of the
        message that the caller has popped: it goes back where no job was claimed for it though one waits. A job whose
        worker fell silent before may have been the reason: it is claimed by itself, by a worker that `is_idle`, and
        nothing that is behind it before.
        """
        secret = uuid.uuid4().hex[:24]  # with a job's id no more than what is compact in a hash
        suspect_waits, *taken = self._run(
            "claim", pool, worker, int(self.settings.lease * 1000), secret, "none" if permit is None else permit,
            int(is_idle), images, many, huge, *self._ttls,
        )  # fmt: skip
        claims = []
        for name, flat in zip(taken[::2], taken[1::2], strict=True):
            try:
                claims.append(_claim(name.decode(), hash_fields(flat)))
            except (ValueError, LookupError, TypeError) as error:
                poison.report("record", name, repr(error))
                why = ("INTERNAL", "the job's record is damaged; submit the job again", "", 0, 0)
                self._run("finish", *self._ttls, name, secret.encode() + b"-" + name, State.FAILED, *why)
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

    def store(self, claim: Claim, parts: Iterable[Data], size: int) -> Ended:
        """Write a result: `size` bytes of arrays, then its header. Raises StoreFull; the job is still the caller's."""
        ttl = self.settings.result_ttl + self.settings.reconcile_interval
        written = self.payloads.put(claim.token, parts, ttl)
        return Ended(claim, None, size, written - size)

    def finish(self, ends: Sequence[Ended]) -> list[bool]:
        """Closes records, as SUCCEEDED or FAILED. False where the job was not the caller's any more."""
        if not ends:
            return []
        said = [word for it in ends for word in it.words()]
        done, unused = self._run("finish", *self._ttls, *said)
        lost = [it.claim.token for it, counts in zip(ends, done, strict=True) if it.failure is None and not counts]
        self._dispose([*lost, *(name.decode(errors="replace") for name in unused)])
        return [bool(counts) for counts in done]

    def release(self, claim: Claim) -> bool:
        """Gives the job back to its place in the queue, its attempt not counted."""
        return bool(self._run("release", claim.record.id, claim.token))

    def messages(self, pools: Iterable[str]) -> int:
        """How many messages wait in the lists of these pools."""
        return int(self._run("messages", *pools))

    # --- what the reconciler does ---

    def elect(self, front: str, seconds: float) -> bool:
        """True for the one front that reconciles, until it is silent for so long; with 0 seconds it steps down."""
        return bool(self._run("elect", front, int(seconds * 1000)))

    def reconcile(self, limit: int = 200) -> dict[str, int]:
        """Look once for jobs that lost their message, their worker, their weights or their time, and for old records.

        Returns how many messages were missing, by pool.
        """
        s = self.settings
        for _ in range(_ROUNDS):
            if self._run("expire", limit, *self._ttls, int(s.tombstone_ttl * 1000), *self._cache) < limit:
                break
        while self._is_nearly_full() and self._shed():
            pass
        missing = self._run("reconcile", limit, s.max_attempts, int(s.lease * 1000), *self._ttls)
        return {pool.decode(errors="replace"): count for pool, count in zip(missing[::2], missing[1::2], strict=True)}

    def _is_nearly_full(self) -> bool:
        memory = self.redis.info("memory")
        used = memory["used_memory"] - memory.get("mem_not_counted_for_evict", 0)
        return bool(memory["maxmemory"]) and used > NEARLY_FULL * memory["maxmemory"]

    def _shed(self) -> bool:
        """Forgets some of what nobody was promised; False when there is no more of it."""
        dropped, unused = self._run("shed", _SHED)
        self._dispose([name.decode(errors="replace") for name in unused])
        return bool(dropped)

    def audit(self, before: bytes | str, limit: int = 200) -> bytes:
        """Puts jobs back into indexes that lost them, `limit` at a time, latest first.

        Goes on below the sequence number that it returned last, and begins with "+inf".
        """
        return bytes(self._run("audit", before, limit, int(self.settings.lease * 1000)))

    def collect_garbage(self, limit: int = 500, pieces: int = 20) -> None:
        """Deletes payloads of jobs that have ended or were deleted, no more than `pieces` times `limit`."""
        for _ in range(pieces):
            names = self.redis.lpop(keys.GARBAGE, limit)
            if not names:
                break
            self._dispose([name.decode(errors="replace") for name in names])
        self.payloads.sweep()

    def _dispose(self, names: Sequence[str]) -> None:
        """Deletes payloads that Redis says nobody needs; what is no payload's name is set aside."""
        good = [name for name in names if is_payload_name(name)]
        self.payloads.delete(good)
        for name in set(names).difference(good):
            poison.set_aside(self.redis, "garbage", name.encode(), "is no payload's name")

    def report_poisoned(self) -> None:
        """Reports the entries that scripts have set aside."""
        poison.report_set_aside(self.redis)


def _record(job_id: str, fields: Mapping[bytes, bytes] | redis.ResponseError, now: float = 0.0) -> Record | None:
    """The record of a hash; None where there is none, or none that can be read."""
    if isinstance(fields, redis.ResponseError):  # another kind of key
        poison.report("record", job_id, str(fields))
        return None
    if b"state" not in fields:
        return None
    try:
        return Record.parse(job_id, fields, now)
    except ValueError as error:
        poison.report("record", job_id, str(error))
        return None


def _claim(job_id: str, fields: Mapping[bytes, bytes]) -> Claim:
    """The claim that a job's hash makes; ValueError, LookupError or TypeError for a damaged one."""
    images = tuple(StoredImage(*image) for image in json.loads(fields[b"images"]))
    for it in images:
        if not is_payload_name(it.payload) or it.offset < 0 or it.size < 0:
            raise ValueError(f"image of {it.size} bytes at {it.offset} of payload {it.payload!r}")
    return Claim(Record.parse(job_id, fields), fields[b"spec"], images)

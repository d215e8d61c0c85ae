"""The ledger: every promise about a job, kept in Redis by atomic transitions.

Execution is at least once, the visible outcome exactly once: a job is claimed with a secret token and a lease, the
first final state wins, and every script is safe to replay. Sync and thread-safe.
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import redis

from convlens.jobs import keys
from convlens.jobs.payloads import Data, StoreFull, fetch, open_store
from convlens.jobs.record import JobFailure, Priority, Record, State
from convlens.jobs.settings import JobsSettings


class Full(RuntimeError):
    """There are as many live jobs as admitted."""


class RequestIdReused(ValueError):
    """A request id came again with another request."""


class JobLive(RuntimeError):
    """What was asked can be done only to a job that has ended."""


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to be queued."""

    id: str
    model: str
    queue: str
    priority: Priority
    images: int
    fingerprint: str
    """Equal for equal requests: a repeated id must come with an equal one."""
    request: Sequence[Data]
    """The bytes that the worker will need."""
    timeout: float
    """Seconds until it is EXPIRED."""
    keep: bool
    """False: cancelled when the last waiter leaves; the submission itself is the first waiter."""
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Claim:
    """A worker's hold on a job: the record as it was taken, and the secret that its words are checked by."""

    record: Record
    token: str


@functools.cache
def _source(name: str) -> str:
    """A script's text: its first line (the flags), the common part, the rest."""
    folder = resources.files("convlens.jobs") / "lua"
    flags, rest = (folder / f"{name}.lua").read_text().split("\n", 1)
    return f"{flags}\n{(folder / 'common.lua').read_text()}{rest}"


class Ledger:
    """Jobs by their ids. Raises redis.RedisError when Redis cannot be reached."""

    def __init__(self, client: redis.Redis, settings: JobsSettings) -> None:
        self.redis = client
        self.settings = settings
        self.payloads = open_store(client, settings.payload_dir)
        self._scripts: dict[str, Callable[..., Any]] = {}

    def _run(self, name: str, *args: str | int) -> Any:
        script = self._scripts.get(name) or self._scripts.setdefault(name, self.redis.register_script(_source(name)))
        return script(args=[int(arg) if isinstance(arg, int) else arg for arg in args])  # enums as plain numbers

    @property
    def _ttls(self) -> tuple[int, int]:
        return int(self.settings.result_ttl * 1000), int(self.settings.tombstone_ttl * 1000)

    # --- what a front does ---

    def submit(self, job: NewJob, max_jobs: int) -> tuple[Record, bool]:
        """Queues a job, or finds the earlier one of its id; the flag says whether it is new.

        Raises Full, StoreFull (nothing is kept then) or RequestIdReused.
        """
        name = uuid.uuid4().hex
        size, crc = self.payloads.put(name, job.request, job.timeout + self.settings.result_ttl)
        try:
            outcome = self._run(
                "submit", job.id, job.fingerprint, max_jobs, int(job.timeout * 1000), int(job.keep), job.model,
                job.queue, job.priority, job.images, name, size, crc, job.request_id,
            ).decode()  # fmt: skip
        except redis.OutOfMemoryError as error:
            self.payloads.delete([name])
            raise StoreFull("Redis is full (maxmemory)") from error
        if outcome != "CREATED":
            self.payloads.delete([name])
        if outcome == "FULL":
            raise Full(f"{max_jobs} jobs are queued or running, which is as many as are admitted")
        if outcome == "REUSED":
            raise RequestIdReused(f"request id {job.request_id!r} was used before for another request")
        record = self.get(job.id)
        if record is None:
            raise redis.ConnectionError("the record is gone though it was just written: Redis lost its data")
        return record, outcome == "CREATED"

    def get(self, job_id: str) -> Record | None:
        """The record, or None for an id that is not known (any more)."""
        fields = self.redis.hgetall(keys.job(job_id))
        return Record.parse(job_id, fields) if b"state" in fields else None

    def position(self, record: Record) -> int | None:
        """How many jobs are before it in its queue; None unless it is QUEUED."""
        rank = self.redis.zrank(keys.queued(record.queue), record.id)
        return None if rank is None else int(rank)

    def page(self, size: int, before: int | None, state: State | None) -> tuple[list[Record], int | None]:
        """Up to `size` records, newest first, older than sequence number `before`; and the next page's `before`."""
        found: list[Record] = []
        bound = f"({before}" if before is not None else "+inf"
        while True:
            ids = self.redis.zrevrangebyscore(keys.JOBS, bound, "-inf", start=0, num=size, withscores=True)
            with self.redis.pipeline(transaction=False) as pipe:
                for name, _ in ids:
                    pipe.hgetall(keys.job(name.decode()))
                rows = pipe.execute()
            for (name, score), fields in zip(ids, rows, strict=True):
                if b"state" in fields:
                    record = Record.parse(name.decode(), fields)
                    if state in (None, record.state):
                        found.append(record)
                bound = f"({int(score)}"
                if len(found) == size:
                    return found, int(score)
            if len(ids) < size:
                return found, None

    def cancel(self, job_id: str) -> Record | None:
        """Ends a live job as CANCELLED. The record as it then is; None for an unknown id."""
        self._run("cancel", job_id, *self._ttls)
        return self.get(job_id)

    def join(self, job_id: str) -> bool:
        """Counts one more caller who waits for the job; False for an unknown id."""
        return bool(self._run("join", job_id))

    def leave(self, job_id: str) -> None:
        """Counts one caller less; the last one of a job not kept cancels it."""
        self._run("leave", job_id, *self._ttls)

    def delete(self, job_id: str) -> None:
        """Forgets an ended job and its result. Raises JobLive while it is live."""
        if not self._run("delete", job_id):
            raise JobLive(f"job {job_id} has not ended")

    def read_header(self, record: Record) -> bytes:
        """The header of a SUCCEEDED job's result. PayloadGone when it has expired."""
        return fetch(self.payloads, f"{record.token}-header", record.header_size, record.header_crc)

    def read_result(self, record: Record, offset: int, length: int) -> bytes:
        """Bytes of a SUCCEEDED job's result. PayloadGone when it has expired."""
        return self.payloads.read(f"{record.token}-body", offset, length)

    # --- what a worker does ---

    def claim(self, ids: Sequence[str], worker: str) -> list[Claim]:
        """Takes those of `ids` that are QUEUED, each under a lease; others are left alone."""
        tokens = {job_id: uuid.uuid4().hex for job_id in ids}
        pairs = [text for pair in tokens.items() for text in pair]
        taken = self._run("claim", worker, int(self.settings.lease * 1000), *self._ttls, *pairs)
        claims = []
        for job_id in map(bytes.decode, taken):
            record = self.get(job_id)
            if record is not None and record.token == tokens[job_id]:
                claims.append(Claim(record, tokens[job_id]))
        return claims

    def read_request(self, claim: Claim) -> bytes:
        """The bytes of the request. PayloadGone when they are not there any more."""
        record = claim.record
        return fetch(self.payloads, record.request, record.request_size, record.request_crc)

    def renew(self, claims: Sequence[Claim]) -> set[str]:
        """Renews leases; returns the ids that are not the caller's any more (ended, cancelled, given to another)."""
        pairs = [text for claim in claims for text in (claim.record.id, claim.token)]
        return {name.decode() for name in self._run("renew", int(self.settings.lease * 1000), *pairs)}

    def progress(self, claim: Claim, share: float) -> bool:
        """Tells how much of the job is done, 0…1. False when it is not the caller's any more."""
        return bool(self._run("progress", claim.record.id, claim.token, f"{share:.3f}"))

    def succeed(self, claim: Claim, body: Sequence[Data], header: Callable[[], bytes]) -> bool:
        """Writes the result, then closes the record. False when the job was not the caller's any more.

        `header` is asked for once the body is written. Raises StoreFull; the job is then still the caller's.
        """
        ttl = self.settings.result_ttl + self.settings.reconcile_interval
        size, _ = self.payloads.put(f"{claim.token}-body", body, ttl)
        header_size, header_crc = self.payloads.put(f"{claim.token}-header", [header()], ttl)
        done = self._finish(claim, State.SUCCEEDED, JobFailure("", ""), size, header_size, header_crc)
        if not done:
            self.payloads.delete([f"{claim.token}-body", f"{claim.token}-header"])
        return done

    def fail(self, claim: Claim, failure: JobFailure) -> bool:
        """Closes the record as FAILED. False when the job was not the caller's any more."""
        return self._finish(claim, State.FAILED, failure, 0, 0, 0)

    def release(self, claim: Claim) -> bool:
        """Gives the job back to its place in the queue, its attempt not counted."""
        return bool(self._run("release", claim.record.id, claim.token))

    def _finish(self, claim: Claim, state: State, failure: JobFailure, *sizes: int) -> bool:
        words = (failure.reason, failure.message, failure.field)
        return bool(self._run("finish", claim.record.id, claim.token, state, *words, *sizes, *self._ttls))

    # --- what the reconciler does ---

    def reconcile(self, limit: int = 200) -> list[Record]:
        """One bounded look for jobs that lost their message, their worker or their time; those to be published."""
        s = self.settings
        ids = self._run("reconcile", limit, int(s.redelivery_grace * 1000), s.max_attempts, *self._ttls)
        return [record for job_id in ids if (record := self.get(job_id.decode())) is not None]

    def collect_garbage(self, limit: int = 500) -> None:
        """Deletes the payloads of jobs that have ended or were deleted."""
        while names := self.redis.lpop(keys.GARBAGE, limit):
            self.payloads.delete([name.decode() for name in names])
        self.payloads.sweep()

"""What a worker does with jobs: claim, renew, report progress, store, finish and release them."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

from convlens.jobs.payloads.store import Data, is_payload_name
from convlens.jobs.queue import keys, poison
from convlens.jobs.queue.client import QueueClient
from convlens.jobs.queue.record import JobFailure, Record, State, StoredImage, hash_fields


@dataclass(frozen=True, slots=True)
class Claim:
    """A worker's hold on a job: the record as it was claimed, with all that it needs."""

    record: Record
    spec: bytes
    images: tuple[StoredImage, ...]
    claimed_at: float = field(default_factory=time.monotonic)
    """By this process' time.monotonic()."""

    @property
    def token(self) -> str:
        """The secret that this worker proves its claim by."""
        return self.record.token


class ClaimReply(NamedTuple):
    """What a consumer was given."""

    jobs: list[Claim]
    is_blocked: bool
    """True where jobs wait that this worker may not take until others have ended, such as one for an idle worker."""


@dataclass(frozen=True, slots=True)
class Completion:
    """How a job ended for the worker that holds it."""

    claim: Claim
    failure: JobFailure | None
    """None for one whose result is stored."""
    result_bytes: int = 0
    header_size: int = 0

    def script_args(self) -> dict[str, str | int]:
        """One of the jobs of finish.lua."""
        claim = {"id": self.claim.record.id, "token": self.claim.token}
        if failure := self.failure:
            return {**claim, "state": State.FAILED, **asdict(failure)}
        sizes = {"result_bytes": self.result_bytes, "header_size": self.header_size}
        return {**claim, "state": State.SUCCEEDED, **sizes}


class JobConsumer(QueueClient):
    """A worker's side of the queue."""

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
    ) -> ClaimReply:
        """Claim the next jobs of a pool in fair order, up to `images` images in total; a single job may have more.

        With 0 images no single-pass job is claimed. In addition up to `many` jobs of many passes and `huge` ones of
        very many pixels are claimed. `permit` is the kind of the message that the caller has popped; it is pushed back
        where no job was claimed for it though one waits. A suspect, a job whose last worker fell silent, is claimed
        alone and only if `is_idle`; jobs behind it wait.
        """
        secret = uuid.uuid4().hex[:24]  # with a job's id no more than what is compact in a hash
        suspect_waits, *rows = self._run(
            "claim", pool=pool, worker=worker, lease=int(self.settings.lease * 1000), secret=secret,
            permit="none" if permit is None else permit, is_idle=is_idle, images=images, many=many, huge=huge,
            **self._ttls,
        )  # fmt: skip
        claims = []
        for name, flat in zip(rows[::2], rows[1::2], strict=True):
            try:
                claims.append(_claim(name.decode(), hash_fields(flat)))
            except (ValueError, LookupError, TypeError) as error:
                poison.report("record", name, repr(error))
                job_id = name.decode(errors="replace")
                failure = {"reason": "INTERNAL", "message": "the job's record is damaged; submit the job again"}
                end = {"id": job_id, "token": f"{secret}-{job_id}", "state": State.FAILED, **failure}
                self._run("finish", jobs=[end], **self._ttls)
        return ClaimReply(claims, bool(suspect_waits))

    def read_images(self, claims: Sequence[Claim]) -> list[list[Data]]:
        """The bytes of each claim's images, all fetched together; no list where one is gone."""
        ranges = [(image.payload, image.offset, image.size) for claim in claims for image in claim.images]
        contents = iter(self.payloads.read_many(ranges))
        jobs = [[next(contents) for _ in claim.images] for claim in claims]
        return [[] if None in images else images for images in jobs]  # type: ignore[misc]

    def renew(self, claims: Sequence[Claim]) -> set[str]:
        """Renew leases; return the ids that are not the caller's any more (ended, cancelled, given to another)."""
        pairs = [(claim.record.id, claim.token) for claim in claims]
        return {name.decode() for name in self._run("renew", lease=int(self.settings.lease * 1000), claims=pairs)}

    def progress(self, claim: Claim, share: float) -> bool:
        """Record how much of the job is done, 0…1. False when it is not the caller's any more."""
        return bool(self._run("progress", id=claim.record.id, token=claim.token, progress=f"{share:.3f}"))

    def store(self, claim: Claim, parts: Iterable[Data], size: int) -> Completion:
        """Write a result: `size` bytes of arrays, then its header. Raises StoreFull; the job is still the caller's."""
        ttl = self.settings.result_ttl + self.settings.reconcile_interval
        try:
            written = self.payloads.put(claim.token, parts, ttl)
        except BaseException:
            self._dispose([claim.token])
            raise
        return Completion(claim, None, size, written - size)

    def finish(self, ends: Sequence[Completion]) -> list[bool]:
        """Close records, as SUCCEEDED or FAILED. False where the job was not the caller's any more."""
        if not ends:
            return []
        done, unused = self._run("finish", jobs=[end.script_args() for end in ends], **self._ttls)
        lost = [end.claim.token for end, counts in zip(ends, done, strict=True) if end.failure is None and not counts]
        self._dispose([*lost, *(name.decode(errors="replace") for name in unused)])
        return [bool(counts) for counts in done]

    def release(self, claim: Claim) -> bool:
        """Give the job back to its place in the queue, its attempt not counted."""
        return bool(self._run("release", id=claim.record.id, token=claim.token))

    def messages(self, pools: Iterable[str]) -> int:
        """How many messages wait in the lists of these pools."""
        return int(self._run("messages", pools=list(pools)))


def _claim(job_id: str, fields: Mapping[bytes, bytes]) -> Claim:
    """The claim that a job's hash makes; ValueError, LookupError or TypeError for a damaged one."""
    images = tuple(StoredImage(*image) for image in json.loads(fields[b"images"]))
    for image in images:
        if not is_payload_name(image.payload) or image.offset < 0 or image.size < 0:
            raise ValueError(f"image of {image.size} bytes at {image.offset} of payload {image.payload!r}")
    return Claim(Record.parse(job_id, fields), fields[b"spec"], images)

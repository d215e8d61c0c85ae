"""A job to be queued, the arguments of submit.lua for it, and how its replies are read."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from convlens.jobs.payloads.store import Data, StoreFull
from convlens.jobs.queue.admission import AdmissionRejected
from convlens.jobs.queue.record import Priority, Record, State, hash_fields


class RequestIdReused(ValueError):
    """A request id came again with another request."""


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to be queued."""

    id: str
    model: str
    pool: str
    """The workers that may compute it: see pools.py."""
    tenant: str
    priority: Priority
    spec: bytes
    """The serialized JobSpec, without the images' bytes."""
    images: Sequence[tuple[str, Data]]
    """Digest and bytes of each."""
    fingerprint: str
    """Equal for equal requests: a repeated id must come with an equal one, and equal requests to one pool share their
    result."""
    cost: int
    """In passes of an image: the passes, and what decoding and formatting take in addition."""
    pixels: int
    """Of its images, as decoding them counts (see image_formats.decoding_factor)."""
    reserved: int
    """Bytes kept free for its result."""
    timeout: float
    """Seconds until it is EXPIRED."""
    keep: bool
    """False: cancelled when the last waiter leaves; the submission itself is the first waiter."""
    record_bytes: int = 0
    """Roughly the size of its live record; counted with the bytes of its images."""
    fresh: bool = False
    """True: computed even if an equal request has a result."""
    request_id: str = ""


NotSubmitted = AdmissionRejected | StoreFull | RequestIdReused


def new_waiter() -> str:
    """Return a unique name for a waiter."""
    return secrets.token_urlsafe(9)


class Pack:
    """The images of a job that are to be stored, each once, in one payload."""

    def __init__(self, images: Sequence[tuple[str, Data]], known: Iterable[str]) -> None:
        self.name = uuid.uuid4().hex
        self.size = 0
        self.body: list[Data] = []
        self.places = dict.fromkeys(known, -1)
        """By digest where each is in the payload; −1 for those `known`."""
        for digest, data in images:
            if digest not in self.places:
                self.places[digest] = self.size
                self.size += len(data)
                self.body.append(data)


def script_args(job: NewJob, pack: Pack) -> dict[str, Any]:
    """One of the jobs of submit.lua: times in ms, images as digest, size, offset in the pack (−1 if stored before).

    `nonce` identifies this call, and its waiter.
    """
    return {
        "id": job.id, "nonce": new_waiter(), "model": job.model, "pool": job.pool,
        "tenant": job.tenant, "priority": int(job.priority), "pack": pack.name, "pack_bytes": pack.size,
        "images": [(digest, len(data), pack.places[digest]) for digest, data in job.images],
        "fingerprint": job.fingerprint, "cost": job.cost, "pixels": job.pixels,
        "reserved": job.reserved, "record_bytes": job.record_bytes, "timeout": int(job.timeout * 1000),
        "keep": int(job.keep), "fresh": int(job.fresh), "request_id": job.request_id,
    }  # fmt: skip


def parse_outcome(job: NewJob, nonce: str, outcome: bytes, details: Sequence[bytes]) -> Record | NotSubmitted | None:
    """What submit.lua replied for a job; None where one of its images is gone."""
    waiter = "" if job.keep else nonce
    match outcome:
        case b"MISSING":
            return None
        case b"REJECTED":
            return AdmissionRejected.from_script(details)
        case b"REUSED":
            return RequestIdReused(f"request id {job.request_id!r} was used before for another request")
        case b"CREATED":
            flow, created, deadline, position = details
            return Record(
                id=job.id, state=State.QUEUED, model=job.model, tenant=job.tenant, flow=flow.decode(),
                priority=job.priority, images=len(job.images), request_id=job.request_id, created=int(created) / 1000,
                deadline=int(deadline) / 1000, position=int(position), waiter=waiter,
            )  # fmt: skip
    return replace(Record.parse(job.id, hash_fields(details)), waiter=waiter)

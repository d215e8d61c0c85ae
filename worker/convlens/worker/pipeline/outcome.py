"""How jobs end in this worker: each step of a job runs guarded, so that what it raises ends this job and no other."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from convlens.jobs.payloads.store import PayloadGone, StoreFull
from convlens.jobs.queue.celery_events import JobEvents
from convlens.jobs.queue.consumer import Claim, Completion, JobConsumer
from convlens.jobs.queue.lease_renewer import LeaseRenewer
from convlens.jobs.queue.record import JobFailure
from convlens.jobs.runtime.redis_client import RedisUnavailable
from convlens.v1.status_error import SpecError
from convlens.worker import metrics
from convlens.worker.images import UnreadableAtError
from convlens.worker.pipeline.batcher import Abandoned, Owner

log = logging.getLogger(__name__)

T = TypeVar("T")


class Outcomes:
    """Runs the steps of jobs, and ends those whose steps fail. A job that has ended, or is left, is renewed no more."""

    def __init__(self, queue: JobConsumer, leases: LeaseRenewer, events: JobEvents) -> None:
        self._queue = queue
        self._leases = leases
        self._events = events

    def guard(self, claim: Claim, step: Callable[[], T]) -> T | None:
        """Run one step of a job; what it raises ends the job with the reason. None when it ended so.

        Raises nothing, since others' claims are held meanwhile. A job whose end cannot be written to Redis is left to
        its lease, and comes again.
        """
        try:
            return step()
        except Abandoned:
            self.record_dropped(claim)
        except RedisUnavailable as error:
            self.leave(claim, error)
        except Exception as error:  # noqa: BLE001 - reported to the caller, and logged where unforeseen
            self._fail(claim, error)
        return None

    def check_wanted(self, claim: Claim) -> None:
        """Raise Abandoned for a job that has ended meanwhile, or is another worker's."""
        if self._leases.is_lost(claim):
            raise Abandoned("the job is not this worker's any more")

    def owner(self, claim: Claim) -> Owner:
        """Whose work a job's passes are, for the batcher."""
        record = claim.record
        return Owner(
            record.flow, lambda: not self._leases.is_lost(claim), claim.claimed_at, record.id, record.attempts > 1
        )

    def record_success(self, claim: Claim, result_bytes: int) -> None:
        """Count a job whose result is stored."""
        metrics.JOBS.labels(claim.record.model, "SUCCEEDED").inc()
        metrics.RESULT_BYTES.labels(claim.record.model).inc(result_bytes)
        self._events.succeeded(claim)
        self._leases.drop(claim)

    def record_dropped(self, claim: Claim) -> None:
        """Count a job that had ended before its result was there."""
        metrics.JOBS.labels(claim.record.model, "DROPPED").inc()
        self._events.revoked(claim)
        log.info("job=%s was dropped: it had ended meanwhile", claim.record.id)
        self._leases.drop(claim)

    def leave(self, claim: Claim, error: Exception) -> None:
        """Leave a job to its lease: it comes again."""
        self._leases.drop(claim)
        metrics.JOBS.labels(claim.record.model, "LEFT").inc()
        log.warning("job=%s is left to its lease: %s", claim.record.id, error)

    def _fail(self, claim: Claim, error: Exception) -> None:
        failure = failure_of(error)
        metrics.JOBS.labels(claim.record.model, failure.reason).inc()
        self._events.failed(claim, failure)
        if failure.reason == "INTERNAL":
            log.error("job=%s failed", claim.record.id, exc_info=error)
        else:
            log.info("job=%s reason=%s %s", claim.record.id, failure.reason, failure.message)
        try:
            self._queue.finish([Completion(claim, failure)])
        except RedisUnavailable as unavailable:
            log.warning("job=%s is left to its lease: %s", claim.record.id, unavailable)
        self._leases.drop(claim)


def failure_of(error: Exception) -> JobFailure:
    """Why a job ends FAILED, for its caller."""
    match error:
        case UnreadableAtError():
            return JobFailure("IMAGE_UNREADABLE", str(error), f"spec.images[{error.index}]")
        case SpecError():
            return JobFailure("INVALID_FIELD", str(error), error.field)
        case PayloadGone():
            return JobFailure("PAYLOAD_GONE", "the images are gone; submit the job again")
        case StoreFull():
            return JobFailure("RESULT_STORE_FULL", f"there was no room for the result: {error}")
        case _:
            return JobFailure("INTERNAL", f"an unforeseen {type(error).__name__}; the worker's log has it")

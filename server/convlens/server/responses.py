"""Converts records and settings to messages of convlens.v1."""

from __future__ import annotations

from google.protobuf import duration_pb2, timestamp_pb2

from convlens.jobs.queue.record import Record, State
from convlens.server.settings import ServerSettings
from convlens.v1 import job_pb2, model_pb2


def job(record: Record) -> job_pb2.Job:
    """Convert a record."""
    message = job_pb2.Job(
        id=record.id,
        state=job_pb2.JobState.ValueType(record.state),
        model=record.model,
        images=record.images,
        priority=int(record.priority),  # type: ignore[arg-type]
        create_time=_timestamp(record.created),
        start_time=_timestamp(record.started),
        end_time=_timestamp(record.ended),
        deadline=_timestamp(record.deadline),
        expire_time=_timestamp(record.expires),
        attempts=record.attempts,
        result_bytes=record.result_bytes,
        request_id=record.request_id,
        result_expired=record.expired,
        queue_position=record.position,
        cached=record.cached,
        progress=1.0 if record.state is State.SUCCEEDED else record.progress,
    )
    if record.failure:
        message.error.reason = record.failure.reason
        message.error.message = record.failure.message
        message.error.field = record.failure.field
    return message


def limits(settings: ServerSettings) -> model_pb2.Limits:
    """Convert the limits that clients can read by GetServerInfo."""
    return model_pb2.Limits(
        max_request_bytes=settings.max_request_bytes,
        max_images=settings.max_images,
        max_image_pixels=settings.max_image_pixels,
        max_result_bytes=settings.max_result_bytes,
        max_visualizations=settings.max_visualizations,
        max_targets=settings.max_targets,
        max_jobs=settings.max_jobs,
        max_passes=settings.max_passes,
        max_queued_bytes=settings.max_queued_bytes,
        max_stored_bytes=settings.max_stored_bytes,
        tenant_share=settings.tenant_share,
        tenant_rate=settings.tenant_rate,
        tenant_burst=None if settings.tenant_rate is None else _duration(settings.tenant_burst),
        max_timeout=_duration(settings.max_timeout),
        default_timeout=_duration(settings.default_timeout),
        result_ttl=_duration(settings.result_ttl),
    )


def _timestamp(seconds: float | None) -> timestamp_pb2.Timestamp | None:
    if seconds is None:
        return None
    message = timestamp_pb2.Timestamp()
    message.FromMilliseconds(round(seconds * 1000))
    return message


def _duration(seconds: float) -> duration_pb2.Duration:
    message = duration_pb2.Duration()
    message.FromMilliseconds(round(seconds * 1000))
    return message

"""Makes the messages that are sent to callers: jobs, limits, and results, which are read from the payload store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any, TypeVar

from google.protobuf import duration_pb2, timestamp_pb2

from convlens.jobs.payloads.store import Data, PayloadGone
from convlens.jobs.queue.producer import Producer
from convlens.jobs.queue.record import Record, State
from convlens.server.settings import ServerSettings
from convlens.server.status import ended_without_result, result_expired
from convlens.server.transport.send_budget import CallSendBudget
from convlens.v1 import job_pb2, model_pb2, result_pb2

R = TypeVar("R")


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


class ResultReader:
    """Reads results in chunks of a size. A stored result is the bytes of its tensors, then its serialized header."""

    def __init__(self, producer: Producer, chunk_bytes: int) -> None:
        self._producer = producer
        self._chunk_bytes = chunk_bytes

    async def responses(
        self, record: Record, sending: CallSendBudget, new_response: Callable[[], R], offset: int = 0
    ) -> AsyncGenerator[R]:
        """Yield responses whose `header`, then `chunk`, are set; the header alone where all fits into one chunk.

        The chunks begin at byte `offset` of the tensors. Each part is read once `sending` has room for it, and counts
        as being sent until the next is asked for. StatusError where there is no result.
        """
        if record.state is not State.SUCCEEDED:
            raise ended_without_result(record)
        if record.expired:
            raise result_expired(record)
        size = record.result_bytes
        is_one_message = not offset and size + record.header_size <= self._chunk_bytes
        try:
            async with sending.part(record.header_size + (size if is_one_message else 0)) as write:
                response: Any = new_response()
                await self._read_header(record, response.header, with_tensors=is_one_message)
                write.start()
                yield response
                del response
            while offset < size and not is_one_message:
                length = min(self._chunk_bytes, size - offset)
                async with sending.part(length) as write:
                    response = new_response()
                    response.chunk.offset = offset
                    response.chunk.data = bytes(await self._read(record, offset, length))
                    write.start()
                    yield response
                    del response
                offset += length
        except PayloadGone:
            raise result_expired(record) from None

    async def _read_header(self, record: Record, header: result_pb2.ResultHeader, *, with_tensors: bool) -> None:
        """Fill in the stored header, and what differs between equal jobs, which share a stored result."""
        start = 0 if with_tensors else record.result_bytes
        stored = memoryview(await self._read(record, start, record.result_bytes + record.header_size - start))
        header.MergeFromString(bytes(stored[record.result_bytes - start :]))
        if with_tensors:
            header.data = bytes(stored[: record.result_bytes])
        header.job_id = record.id
        header.cached = record.cached

    async def _read(self, record: Record, offset: int, length: int) -> Data:
        """Read bytes of a result, in a thread only where the store blocks: a thread costs more than a copy."""
        if self._producer.payloads.may_block:
            return await asyncio.get_running_loop().run_in_executor(
                None, self._producer.read_result, record, offset, length
            )
        return self._producer.read_result(record, offset, length)

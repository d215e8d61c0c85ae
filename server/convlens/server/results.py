"""Reads results: a job's stored header and tensors as the response messages of one call.

A stored result is the bytes of its tensors, then its header, a serialized ResultHeader.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Any, TypeVar

from convlens.jobs.payloads.store import Data, PayloadGone
from convlens.jobs.queue.producer import Producer
from convlens.jobs.queue.record import Record, State
from convlens.server.io_threads import IoThreads
from convlens.server.status import ended_without_result, result_expired
from convlens.server.transport.send_budget import CallSendBudget
from convlens.v1 import result_pb2

R = TypeVar("R")


class ResultReader:
    """Reads results from the payload store, in chunks of a size."""

    def __init__(self, producer: Producer, threads: IoThreads, chunk_bytes: int) -> None:
        self._producer = producer
        self._threads = threads
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
            return await self._threads.run(self._producer.read_result, record, offset, length)
        return self._producer.read_result(record, offset, length)

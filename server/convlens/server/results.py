"""Streams a result: the header, then its bytes in chunks from any offset, one chunk read ahead."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from convlens.jobs.payloads import PayloadGone
from convlens.jobs.record import Record, State
from convlens.server.errors import ended_without_result, result_expired
from convlens.server.front import Front
from convlens.v1 import result_pb2


async def header(front: Front, record: Record) -> result_pb2.ResultHeader:
    """The header of an ended job's result. Raises what the caller is to be told where there is none."""
    if record.state is not State.SUCCEEDED:
        raise ended_without_result(record)
    if record.expired:
        raise result_expired(record)
    try:
        return result_pb2.ResultHeader.FromString(await front.call(front.ledger.read_header, record))
    except PayloadGone:
        raise result_expired(record) from None


async def chunks(front: Front, record: Record, offset: int) -> AsyncIterator[result_pb2.ResultChunk]:
    """The result's bytes from `offset` on. Memory: two chunks."""
    size, total = front.settings.chunk_bytes, record.result_bytes

    def read(start: int) -> asyncio.Task[bytes]:
        return asyncio.ensure_future(front.call(front.ledger.read_result, record, start, min(size, total - start)))

    ahead = read(offset) if offset < total else None
    try:
        while ahead:
            data = await ahead
            after = offset + len(data)
            ahead = read(after) if after < total else None
            yield result_pb2.ResultChunk(offset=offset, data=data)
            offset = after
    except PayloadGone:
        raise result_expired(record) from None
    finally:
        if ahead:
            ahead.cancel()

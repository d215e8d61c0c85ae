"""Results as their callers get them: the stored header completed, then the bytes; few ones in the header itself.

Messages are put together as bytes, since the header is stored serialized and the tensors as they travel.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Final

from convlens.jobs.payloads.store import PayloadGone
from convlens.jobs.queue.record import Record, State
from convlens.server.front import Front
from convlens.server.status import ended_without_result, result_expired
from convlens.server.transport.send_budget import Sending
from convlens.v1 import framing, result_pb2

_HEADER: Final = result_pb2.ResultHeader.DESCRIPTOR.fields_by_name
_CHUNK: Final = result_pb2.ResultChunk.DESCRIPTOR.fields_by_name

Part = list[framing.Data]
"""The pieces of a serialized ResultHeader or ResultChunk."""


async def parts(front: Front, record: Record, sending: Sending, offset: int = 0) -> AsyncGenerator[tuple[str, Part]]:
    """The header and, unless it holds them, the chunks from `offset` on; each with the name of its field, serialized.

    Raises what the caller is to be told where there is no result. Each is read once `sending` has room for it, and
    counts as being sent until the next is asked for.
    """
    if record.state is not State.SUCCEEDED:
        raise ended_without_result(record)
    if record.expired:
        raise result_expired(record)
    try:
        whole = record.result_bytes + record.header_size
        if not offset and whole <= front.settings.chunk_bytes:
            async with sending.part(whole) as write:
                stored = memoryview(await _read(front, record, 0, whole))
                body, header = stored[: record.result_bytes], stored[record.result_bytes :]
                write.begin()
                yield "header", [*_completed(record, header), *framing.field(_HEADER["data"].number, body)]
            return
        async with sending.part(record.header_size) as write:
            completed = _completed(record, await _read(front, record, record.result_bytes, record.header_size))
            write.begin()
            yield "header", completed
        while offset < record.result_bytes:
            size = min(front.settings.chunk_bytes, record.result_bytes - offset)
            async with sending.part(size) as write:
                place = framing.number(_CHUNK["offset"].number, offset)
                data = await _read(front, record, offset, size)
                write.begin()
                yield "chunk", [place, *framing.field(_CHUNK["data"].number, data)]
                del data
            offset += size
    except PayloadGone:
        raise result_expired(record) from None


async def _read(front: Front, record: Record, offset: int, length: int) -> framing.Data:
    """Bytes of a result; where they are in memory a thread would take longer than reading them."""
    if front.ledger.payloads.may_block:
        return await front.call(front.ledger.read_result, record, offset, length)
    return front.ledger.read_result(record, offset, length)


def _completed(record: Record, header: framing.Data) -> Part:
    """The stored header with what is the job's own: equal jobs share a result."""
    own: Part = [header, *framing.field(_HEADER["job_id"].number, record.id.encode())]
    return [*own, framing.number(_HEADER["cached"].number, 1)] if record.cached else own


def answered(message: type, name: str) -> Callable[[Part], bytes]:
    """What makes a serialized `message` of the pieces of its field `name`, a message itself."""
    number: int = message.DESCRIPTOR.fields_by_name[name].number  # type: ignore[attr-defined]
    return lambda part: framing.message(framing.field(number, *part))

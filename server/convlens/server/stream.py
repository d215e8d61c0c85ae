"""Many requests on one stream: so many at once, each answer whole, in the order of jobs' ends or of the requests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Final

from convlens.server import results
from convlens.server.requests import JobRequest
from convlens.server.status import Refusal, refusal_of
from convlens.v1 import framing, job_pb2
from convlens.v1.visualization_pb2 import StreamError, VisualizeStreamResponse

Response = VisualizeStreamResponse | bytes
"""A message, or one serialized."""
Turn = Callable[[], Awaitable[None]]
"""Waits until it is an answer's turn to send its result."""
Answer = Callable[[JobRequest, Turn], AsyncGenerator[tuple[str, job_pb2.Job | results.Part]]]
"""The parts of an answer."""

_PARTS: Final = {name: results.answered(VisualizeStreamResponse, name) for name in ("header", "chunk")}
_SEQUENCE: Final = VisualizeStreamResponse.DESCRIPTOR.fields_by_name["sequence"].number


class Stream:
    """Answers with `answer`, `jobs` requests at once: a slow reader slows the taking of requests, not the memory."""

    def __init__(self, answer: Answer, jobs: int) -> None:
        self._answer = answer
        self._room = asyncio.Semaphore(jobs)
        self._turn = asyncio.Lock()
        self._out: asyncio.Queue[tuple[Response, asyncio.Event] | None] = asyncio.Queue(4)
        """Responses, each with the event that it is written."""

    async def responses(self, requests: AsyncIterator[JobRequest]) -> AsyncGenerator[Response]:
        """The parts of all answers. Raises Refusal for a request that cannot be read, after the answers before it."""
        taking = asyncio.create_task(self._take(requests))
        try:
            while (item := await self._out.get()) is not None:
                response, written = item
                yield response
                written.set()
                del item, response  # or it would live until the next one is there
            await taking
        finally:
            taking.cancel()

    async def _take(self, requests: AsyncIterator[JobRequest]) -> None:
        free = asyncio.Event()
        free.set()
        last, failed = free, None
        async with asyncio.TaskGroup() as tasks:
            try:
                async for request in requests:
                    await self._room.acquire()
                    before, after = (last, asyncio.Event()) if request.message.in_order else (free, asyncio.Event())
                    last = after if request.message.in_order else last
                    tasks.create_task(self._one(request, before, after))
                    del request  # its images are needed only until they are stored
            except Refusal as error:
                failed = error
        await self._out.put(None)
        if failed:
            raise failed

    async def _one(self, request: JobRequest, before: asyncio.Event, after: asyncio.Event) -> None:
        """One answer, begun once `before` is set; sets `after`."""
        number = request.message.sequence
        sequence = framing.number(_SEQUENCE, number)
        try:
            async with contextlib.AsyncExitStack() as held:

                async def turn() -> None:
                    await before.wait()
                    await held.enter_async_context(self._turn)

                parts = await held.enter_async_context(contextlib.aclosing(self._answer(request, turn)))
                del request
                async for name, part in parts:
                    if isinstance(part, job_pb2.Job):
                        await self._put(VisualizeStreamResponse(sequence=number, job=part))
                    else:
                        written = await self._put(sequence + _PARTS[name](part))
                        await written.wait()  # until then the part counts as being sent
        except Exception as error:  # noqa: BLE001 - told to the caller, and logged where unforeseen
            status = refusal_of(error).status()
            told = StreamError(code=status.code, message=status.message, status=status.SerializeToString())
            await before.wait()
            await self._put(VisualizeStreamResponse(sequence=number, error=told))
        finally:
            after.set()
            self._room.release()

    async def _put(self, response: Response) -> asyncio.Event:
        written = asyncio.Event()
        await self._out.put((response, written))
        return written

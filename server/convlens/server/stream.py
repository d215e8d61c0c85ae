"""Serves VisualizeStream: many requests at once, each answered whole, as jobs end or in the order of the requests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

from convlens.server.requests import JobRequest
from convlens.server.status import to_status_error
from convlens.v1.visualization_pb2 import StreamError, VisualizeStreamResponse

WaitForTurn = Callable[[], Awaitable[None]]
"""Waits until an answer may send its result."""
Answer = Callable[[JobRequest, WaitForTurn], AsyncGenerator[VisualizeStreamResponse]]
"""Yields the responses to one request, without their sequence."""


class RequestStream:
    """One call of VisualizeStream. A slow reader delays the reading of requests and does not fill memory."""

    def __init__(self, answer: Answer, max_jobs: int) -> None:
        """No more than `max_jobs` requests are answered at once."""
        self._answer = answer
        self._slots = asyncio.Semaphore(max_jobs)
        self._result_lock = asyncio.Lock()
        """Held by the answer that sends its result: results are not interleaved."""
        self._responses: asyncio.Queue[tuple[VisualizeStreamResponse, asyncio.Event] | None] = asyncio.Queue(4)
        """Each with the event that it has been written."""

    async def responses(self, requests: AsyncIterator[JobRequest]) -> AsyncGenerator[VisualizeStreamResponse]:
        """Yield all responses. What reading a request raises ends the stream, after the earlier answers."""
        reading = asyncio.create_task(self._read(requests))
        try:
            while (entry := await self._responses.get()) is not None:
                response, written = entry
                yield response
                written.set()
                del entry, response  # else it lives until the next one comes
            await reading
        finally:
            reading.cancel()

    async def _read(self, requests: AsyncIterator[JobRequest]) -> None:
        """Start a task for each request."""
        unordered = asyncio.Event()
        unordered.set()
        previous = unordered
        error: Exception | None = None
        try:
            async with asyncio.TaskGroup() as tasks:
                try:
                    async for request in requests:
                        await self._slots.acquire()
                        done = asyncio.Event()
                        turn = previous if request.message.in_order else unordered
                        tasks.create_task(self._respond(request, turn, done))
                        previous = done if request.message.in_order else previous
                        del request  # frees its images once they are stored
                except Exception as unreadable:  # noqa: BLE001 - raised once the earlier requests are answered
                    error = unreadable
        except ExceptionGroup as failed:
            error = failed
        await self._responses.put(None)
        if error:
            raise error

    async def _respond(self, request: JobRequest, previous: asyncio.Event, done: asyncio.Event) -> None:
        """Answer one request, its result after `previous` is set; then set `done`."""
        sequence = request.message.sequence
        try:
            async with contextlib.AsyncExitStack() as stack:

                async def wait_for_turn() -> None:
                    await previous.wait()
                    await stack.enter_async_context(self._result_lock)

                answer = await stack.enter_async_context(contextlib.aclosing(self._answer(request, wait_for_turn)))
                del request
                async for response in answer:
                    response.sequence = sequence
                    await self._write(response)
                    del response
        except Exception as error:  # noqa: BLE001 - sent to the caller, and logged where unexpected
            status = to_status_error(error).to_status()
            await previous.wait()
            stream_error = StreamError(code=status.code, message=status.message, status=status.SerializeToString())
            await self._write(VisualizeStreamResponse(sequence=sequence, error=stream_error))
        finally:
            done.set()
            self._slots.release()

    async def _write(self, response: VisualizeStreamResponse) -> None:
        """Return once gRPC has taken the response: until then it counts as being sent."""
        written = asyncio.Event()
        await self._responses.put((response, written))
        await written.wait()

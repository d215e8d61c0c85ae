"""A stream of requests ends, whatever reading one of them raises, after the earlier answers."""

from __future__ import annotations

import asyncio

import pytest

from convlens.server.requests import JobRequest
from convlens.server.stream import RequestStream
from convlens.v1.visualization_pb2 import VisualizeStreamRequest, VisualizeStreamResponse


async def answer(request, wait_for_turn):
    await wait_for_turn()
    yield VisualizeStreamResponse()


async def failing_requests(error):
    yield JobRequest(VisualizeStreamRequest(sequence=7), [])
    raise error


@pytest.mark.parametrize("error", [OSError(24, "too many open files"), RuntimeError("a bug")], ids=repr)
def test_an_unforeseen_error_ends_the_stream_after_the_earlier_answers(error):
    async def run():
        responses = RequestStream(answer, 4).responses(failing_requests(error))
        async with asyncio.timeout(20):
            first = await anext(responses)
            with pytest.raises(type(error)):
                await anext(responses)
        return first.sequence

    assert asyncio.run(run()) == 7


def test_an_answer_that_cannot_be_written_ends_the_stream(monkeypatch):
    async def fail(self, response):
        raise MemoryError

    monkeypatch.setattr(RequestStream, "_write", fail)

    async def requests():
        yield JobRequest(VisualizeStreamRequest(), [])

    async def run():
        async with asyncio.timeout(20):
            async for _ in RequestStream(answer, 4).responses(requests()):
                pass

    with pytest.raises(ExceptionGroup):
        asyncio.run(run())

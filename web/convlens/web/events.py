"""Server-sent events: a job at each of its changes, until it has ended."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Final

from convlens.client import ConvlensError, JobStatus
from convlens.client.json_values import to_json_value
from convlens.web.problems import Problem

MEDIA_TYPE: Final = "text/event-stream"
KEEP_ALIVE_SECONDS: Final = 15.0
"""Between comments while a job does not change, so that proxies keep the connection."""


async def job_events(first: JobStatus, changes: AsyncIterator[JobStatus]) -> AsyncGenerator[str]:
    """Yield an event for `first`, then one for each change; an error ends the stream with an event `error`.

    Closing the generator ends the watch.
    """
    yield _event("job", first)
    following: asyncio.Task[JobStatus | None] | None = None
    try:
        while True:
            following = following or asyncio.create_task(_next(changes))
            done, _ = await asyncio.wait({following}, timeout=KEEP_ALIVE_SECONDS)
            if not done:
                yield ": the job has not changed\n\n"
                continue
            status = following.result()
            if status is None:
                return
            following = None
            yield _event("job", status)
    except ConvlensError as error:
        yield _event("error", Problem.from_error(error).content())
    finally:
        if following:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)


async def _next(changes: AsyncIterator[JobStatus]) -> JobStatus | None:
    """Return the next change; None at the end."""
    return await anext(changes, None)


def _event(name: str, value: Any) -> str:
    return f"event: {name}\ndata: {json.dumps(to_json_value(value))}\n\n"

"""The asynchronous client leaves its event loop free while it reads image files."""

from __future__ import annotations

import asyncio
import os

import pytest

from convlens.client import AsyncClient, GradCAM, InvalidArgument

CALLS = {
    "grad_cam": AsyncClient.grad_cam,
    "submit": lambda client, path: client.submit(path, [GradCAM()]),
    "map": lambda client, path: anext(client.map([path], [GradCAM()])),
}


async def send(call, pipe):
    return await CALLS[call](AsyncClient("localhost:1", connect_timeout=0.1), pipe)


@pytest.mark.parametrize("call", CALLS)
async def test_the_event_loop_runs_while_an_image_file_is_read(call, tmp_path):
    pipe = tmp_path / "image"
    os.mkfifo(pipe)
    reading = asyncio.create_task(send(call, pipe))
    await asyncio.sleep(0)  # reading begins; if it blocked the loop, nobody could write
    await asyncio.to_thread(pipe.write_bytes, b"")
    with pytest.raises(InvalidArgument, match="the file is empty"):
        await reading

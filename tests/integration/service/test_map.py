"""map: very many images, in order, in bounded memory, each with its own result or its own error."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import signal

import numpy as np
import pytest
from PIL import Image

from convlens.client import AsyncClient, Client, ConvlensError, GradCAM, InvalidArgument, Result
from convlens.client.batching import FIRST_SIZE as FIRST
from convlens.client.batching import LARGEST_SIZE as MOST


def photo(n):
    """A PNG unlike the others."""
    file = io.BytesIO()
    Image.fromarray(np.full((16, 16, 3), n % 256, np.uint8)).save(file, "PNG")
    return file.getvalue()


BROKEN = photo(0)[:50]
"""Its header is whole, so that only the worker can tell."""


def kinds(items):
    return [type(item) for item in items]


def test_an_image_without_a_result_has_its_error_and_its_neighbours_have_theirs(client, tmp_path):
    images = [photo(n) for n in range(3 * FIRST + 30)]
    images[1], images[40], images[41], images[50] = b"no image", BROKEN, tmp_path / "gone.png", BROKEN
    found = list(client.map(images, [GradCAM()], errors="return", fresh=True))
    wrong = {1: InvalidArgument, 40: InvalidArgument, 41: FileNotFoundError, 50: InvalidArgument}
    assert kinds(found) == [wrong.get(n, Result) for n in range(len(images))]
    assert all(it["grad_cam"].shape == (1, 14, 14) for it in found if isinstance(it, Result))
    assert found[42].images[0].encoded == images[42]


def test_an_error_is_raised_when_its_turn_comes(client):
    found = client.map([photo(1), photo(2), BROKEN, photo(3)], [GradCAM()], fresh=True)
    assert kinds(itertools.islice(found, 2)) == [Result, Result]
    with pytest.raises(InvalidArgument, match="damaged or truncated"):
        next(found)


def test_an_endless_iterator_is_read_no_further_than_what_is_in_flight(client):
    read = itertools.count()
    found = client.map((photo(next(read)) for _ in itertools.count()), [GradCAM()], in_flight=2)
    for _ in range(3 * MOST):
        next(found)
    found.close()
    assert next(read) <= 3 * MOST + 3 * MOST


def test_what_all_images_share_ends_with_an_error_each(client):
    found = list(client.map([photo(n) for n in range(3)], iter([GradCAM("nowhere")]), errors="return"))
    assert kinds(found) == [InvalidArgument] * 3


def test_a_forked_child_is_told_that_the_iterator_is_its_parents(null_target):
    with Client(null_target, timeout=60) as client:
        found = client.map((photo(n) for n in range(2 * FIRST)), [GradCAM()], in_flight=2)
        next(found)
        child = os.fork()
        if not child:
            signal.alarm(20)
            code = 1
            try:
                next(found)
            except ConvlensError as error:
                code = int("belongs to the process that began it" not in str(error))
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        assert kinds(found) == [Result] * (2 * FIRST - 1)


@contextlib.contextmanager
def another_process(monkeypatch):
    """What runs meanwhile takes itself for another process, as in a child of fork(); in a real one gRPC may crash."""
    with monkeypatch.context() as patched:
        patched.setattr(os, "getpid", lambda: 0)
        yield


def stepped(awaitable):
    """Runs a coroutine as a loop that runs would: until it waits for something."""
    with contextlib.suppress(StopIteration):
        awaitable.__await__().send(None)


async def test_another_process_is_told_so_also_by_the_asynchronous_one(null_target, monkeypatch):
    async with AsyncClient(null_target, timeout=60) as client:
        found = client.map((photo(n) for n in range(2 * FIRST)), [GradCAM()], in_flight=2)
        changes = (await client.submit(photo(0), [GradCAM()])).watch()
        await anext(found)
        await anext(changes)
        for it in (found, changes):
            with (
                another_process(monkeypatch),
                pytest.raises(ConvlensError, match="belongs to the process that began it"),
            ):
                stepped(anext(it))


def test_where_no_event_loop_runs_that_is_told():
    with pytest.raises(ConvlensError, match="no event loop runs in this process"):
        stepped(AsyncClient("localhost:1").models())


def test_another_process_is_told_that_what_it_watches_is_not_its_own(client, monkeypatch):
    changes = client.submit(photo(0), [GradCAM()]).watch()
    next(changes)
    with another_process(monkeypatch), pytest.raises(ConvlensError, match="belongs to the process that began it"):
        next(changes)

"""Client.map(): very many images in order and in bounded memory, each with its own result or error."""

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
    """A PNG of one colour, which is unique for n below 256."""
    file = io.BytesIO()
    Image.fromarray(np.full((16, 16, 3), n % 256, np.uint8)).save(file, "PNG")
    return file.getvalue()


BROKEN = photo(0)[:50]
"""An image with an intact header, so that only the worker notices the damage."""


def types(items):
    return [type(item) for item in items]


def test_an_invalid_image_gets_its_error_and_the_others_their_results(client, tmp_path):
    images = [photo(n) for n in range(3 * FIRST + 30)]
    images[1], images[40], images[41], images[50] = b"no image", BROKEN, tmp_path / "gone.png", BROKEN
    results = list(client.map(images, [GradCAM()], errors="return", fresh=True))
    errors = {1: InvalidArgument, 40: InvalidArgument, 41: FileNotFoundError, 50: InvalidArgument}
    assert types(results) == [errors.get(n, Result) for n in range(len(images))]
    assert all(result["grad_cam"].shape == (1, 14, 14) for result in results if isinstance(result, Result))
    assert results[42].images[0].encoded == images[42]


def test_an_error_is_raised_at_the_position_of_its_image(client):
    results = client.map([photo(1), photo(2), BROKEN, photo(3)], [GradCAM()], fresh=True)
    assert types(itertools.islice(results, 2)) == [Result, Result]
    with pytest.raises(InvalidArgument, match="damaged or truncated"):
        next(results)


def test_an_endless_iterator_is_read_no_further_than_the_batches_in_flight(client):
    counter = itertools.count()
    results = client.map((photo(next(counter)) for _ in itertools.count()), [GradCAM()], in_flight=2)
    for _ in range(3 * MOST):
        next(results)
    results.close()
    assert next(counter) <= 3 * MOST + 3 * MOST


def test_an_invalid_visualization_is_an_error_of_each_image(client):
    results = list(client.map([photo(n) for n in range(3)], iter([GradCAM("nowhere")]), errors="return"))
    assert types(results) == [InvalidArgument] * 3


def test_a_forked_child_cannot_use_its_parents_iterator(null_target):
    with Client(null_target, timeout=60) as client:
        results = client.map((photo(n) for n in range(2 * FIRST)), [GradCAM()], in_flight=2)
        next(results)
        child = os.fork()
        if not child:
            signal.alarm(20)
            code = 1
            try:
                next(results)
            except ConvlensError as error:
                code = int("belongs to the process that began it" not in str(error))
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        assert types(results) == [Result] * (2 * FIRST - 1)


@contextlib.contextmanager
def another_process(monkeypatch):
    """Let the code believe that it runs in a forked child; in a real one gRPC may crash."""
    with monkeypatch.context() as patched:
        patched.setattr(os, "getpid", lambda: 0)
        yield


def run_one_step(awaitable):
    """Run a coroutine without an event loop until it first waits."""
    with contextlib.suppress(StopIteration):
        awaitable.__await__().send(None)


async def test_another_process_cannot_use_asynchronous_iterators(null_target, monkeypatch):
    async with AsyncClient(null_target, timeout=60) as client:
        results = client.map((photo(n) for n in range(2 * FIRST)), [GradCAM()], in_flight=2)
        statuses = (await client.submit(photo(0), [GradCAM()])).watch()
        await anext(results)
        await anext(statuses)
        for iterator in (results, statuses):
            with (
                another_process(monkeypatch),
                pytest.raises(ConvlensError, match="belongs to the process that began it"),
            ):
                run_one_step(anext(iterator))


def test_the_asynchronous_client_reports_a_missing_event_loop():
    with pytest.raises(ConvlensError, match="no event loop runs in this process"):
        run_one_step(AsyncClient("localhost:1").models())


def test_another_process_cannot_continue_to_watch_a_job(client, monkeypatch):
    statuses = client.submit(photo(0), [GradCAM()]).watch()
    next(statuses)
    with another_process(monkeypatch), pytest.raises(ConvlensError, match="belongs to the process that began it"):
        next(statuses)

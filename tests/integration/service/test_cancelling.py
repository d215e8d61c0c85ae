"""Ctrl-C, break, an error and close() end calls at once, while the device is busy, and cancel abandoned jobs."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from processes import until

from convlens.client import AsyncClient, Cancelled, Client, GradCAM, Saliency
from convlens.client.batching import FIRST_SIZE as FIRST

MISSING = ["gone.png"] * FIRST
"""A whole first batch of map() whose errors come at once, without a call."""
SOON = 5.0
"""Seconds; the device takes a minute for each image."""


@pytest.fixture(scope="module")
def slow(start_service):
    """The target of a service whose device takes a minute for a batch of one image."""
    service = start_service()
    worker = service.worker("null=null,device_ms=60000+0", flags=("--max-batch-size", "1", "--consumers", "1"))
    yield service.server()[1]
    worker.kill()  # draining would take a minute


@pytest.fixture
def watcher(slow):
    """A second client, which observes the jobs of a service that has none at first."""
    with Client(slow, timeout=60) as client:
        until(client.models)
        until(lambda: not live(client))
        yield client


def live(client):
    return [*client.jobs("queued"), *client.jobs("running")]


@contextlib.contextmanager
def ends_soon(watcher):
    """Assert that the body of the `with` ends within SOON seconds and leaves no live job."""
    start = time.monotonic()
    yield
    assert time.monotonic() - start < SOON
    until(lambda: not live(watcher), SOON)


def photos(count=200):
    return [np.full((8, 8, 3), n, np.uint8) for n in range(count)]


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / f"{n}.png" for n in range(12)]
    for n, path in enumerate(paths):
        Image.fromarray(np.full((8, 8, 3), n, np.uint8)).save(path)
    return paths


@pytest.mark.parametrize("leave", ["break", "error"])
def test_leaving_the_loop_over_map_ends_its_jobs(slow, watcher, leave):
    with Client(slow, timeout=120) as client:
        with contextlib.suppress(ZeroDivisionError):
            for _ in client.map(MISSING + photos(), [GradCAM()], errors="return", fresh=True):
                until(lambda: live(watcher))
                end = time.monotonic() + SOON
                if leave == "error":
                    raise ZeroDivisionError
                break
        assert time.monotonic() < end
        until(lambda: not live(watcher), SOON)
        assert client.server_info()  # other calls still work


def test_an_error_of_the_images_iterator_ends_the_jobs_before_it(slow, watcher):
    def images():
        yield from photos(3 * FIRST)
        until(lambda: live(watcher))
        raise ZeroDivisionError

    with Client(slow, timeout=120) as client, ends_soon(watcher), pytest.raises(ZeroDivisionError):
        list(client.map(images(), [GradCAM()], fresh=True))


async def test_leaving_the_loop_over_the_asynchronous_map_ends_its_jobs(slow, watcher):
    async with AsyncClient(slow, timeout=120) as client:
        async for _ in client.map(MISSING + photos(), [GradCAM()], errors="return", fresh=True):
            await asyncio.to_thread(until, lambda: live(watcher))
            break
        with ends_soon(watcher):
            task = asyncio.create_task(client.grad_cam(photos(1), fresh=True))
            await asyncio.to_thread(until, lambda: live(watcher))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.to_thread(until, lambda: not live(watcher), SOON)


CALLS = {
    "visualize": lambda client: client.saliency(photos(1), fresh=True),
    "several images": lambda client: client.activations(photos(2), "block1_conv1", fresh=True),
    "map": lambda client: list(client.map(photos(), [Saliency()], errors="return", fresh=True)),
}


@pytest.mark.parametrize("call", CALLS)
def test_close_ends_the_calls_of_other_threads_and_their_jobs(slow, watcher, call):
    client = Client(slow, timeout=120)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(CALLS[call], client)
        until(lambda: live(watcher))
        with ends_soon(watcher):
            client.close()
            with pytest.raises(Cancelled) as caught:
                future.result(SOON)
    assert caught.value.reason == "CLIENT_CLOSED"


def test_close_ends_a_wait_but_not_its_job(slow, watcher):
    client = Client(slow, timeout=120)
    job = client.submit(photos(1), [GradCAM()], fresh=True)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(job.wait)
        until(lambda: watcher.jobs("running"))
        client.close()
        with pytest.raises(Cancelled):
            future.result(SOON)
    assert [status.id for status in live(watcher)] == [job.id]
    watcher.job(job.id).cancel()


def test_close_ends_a_pause_between_attempts():
    client = Client("127.0.0.1:1", timeout=120, connect_timeout=120)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(client.models)
        until(lambda: client._calls.connection.trouble)
        client.close()
        with pytest.raises(Cancelled):
            future.result(SOON)


async def test_close_ends_the_calls_of_other_tasks(slow, watcher):
    for target, is_reachable in ((slow, True), ("127.0.0.1:1", False)):
        client = AsyncClient(target, timeout=120, connect_timeout=120)
        task = asyncio.create_task(client.saliency(photos(1), fresh=True))
        has_begun = (lambda: live(watcher)) if is_reachable else (lambda: client._calls.connection.trouble)  # noqa: B023
        await asyncio.to_thread(until, has_begun)
        with ends_soon(watcher):
            await client.close()
            with pytest.raises(Cancelled) as caught:
                await task
            assert caught.value.reason == "CLIENT_CLOSED"


@contextlib.contextmanager
def killed_at_exit(process):
    """Kill a process at the end of the `with`, also after a failure."""
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


PYTHON = ["env", "--default-signal=INT", sys.executable]
"""A Python that handles SIGINT, which processes in the background of a shell ignore."""
PROGRAM = """
import sys, threading
import numpy as np
from convlens.client import Client, GradCAM
client = Client(sys.argv[1])
results = client.map([np.full((8, 8, 3), n, np.uint8) for n in range(200)], [GradCAM()], fresh=True)
"""
LOOP = "for result in results: pass"
LEAVE = """
threading.Thread(target=list, args=[results], daemon=True).start()
sys.stdin.readline()
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["-c", PROGRAM + LOOP, "TARGET"],
        ["-m", "convlens.client", "--server", "TARGET", "grad-cam", "FILES", "-o", "OUT"],
        ["-m", "convlens.client", "--server", "TARGET", "saliency", "FILE", "-o", "OUT"],
    ],
    ids=["a program over map", "many photos", "one photo"],
)
def test_ctrl_c_ends_a_process_at_once(slow, watcher, files, tmp_path, arguments):
    values = {"TARGET": [slow], "FILES": files, "FILE": files[:1], "OUT": [tmp_path / "out"]}
    command = [*PYTHON, *(str(value) for argument in arguments for value in values.get(argument, [argument]))]
    with killed_at_exit(
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    ) as process:
        until(lambda: live(watcher))
        with ends_soon(watcher):
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
    assert out == ""
    if arguments[0] == "-c":
        assert process.returncode == -signal.SIGINT
        assert "KeyboardInterrupt" in err
    else:
        assert process.returncode == 130
        assert err.strip() == "interrupted"


def test_ctrl_c_ends_a_command_that_cannot_connect(files, tmp_path):
    command = [*PYTHON, "-m", "convlens.client", "--server", "127.0.0.1:1", "--connect-timeout", "60"]
    for arguments in (["models"], ["saliency", *map(str, files), "-o", str(tmp_path)]):
        with killed_at_exit(subprocess.Popen([*command, *arguments], stderr=subprocess.PIPE, text=True)) as process:
            assert "trying for 60 s" in process.stderr.readline()
            start = time.monotonic()
            process.send_signal(signal.SIGINT)
            err = process.communicate(timeout=30)[1]
        assert time.monotonic() - start < SOON
        assert process.returncode == 130
        assert err.strip().splitlines()[-1] == "interrupted"
        assert "Traceback" not in err


def test_a_program_exits_without_waiting_for_the_jobs_of_its_map(slow, watcher):
    command = [sys.executable, "-c", PROGRAM + LEAVE, slow]
    with killed_at_exit(subprocess.Popen(command, stdin=subprocess.PIPE, text=True)) as process:
        until(lambda: live(watcher))
        with ends_soon(watcher):
            process.communicate("\n", timeout=30)
    assert process.returncode == 0

"""Ctrl-C, break, an error and close() end calls at once, whatever the device does, and the jobs that nobody wants."""

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
from convlens.client.packing import FIRST

MISSING = ["gone.png"] * FIRST
"""As many as make a job of map(), which has no call then, and its errors at once."""
SOON = 5.0
"""Seconds; the device takes a minute for each image."""


@pytest.fixture(scope="module")
def slow(start_service):
    """The target of a service whose device takes a minute a batch of one."""
    service = start_service()
    worker = service.worker("null=null,device_ms=60000+0", flags=("--max-batch-size", "1", "--consumers", "1"))
    yield service.server()[1]
    worker.kill()  # it would not drain


@pytest.fixture
def watcher(slow):
    """Another client, which sees what becomes of the jobs; there are none at first."""
    with Client(slow, timeout=60) as client:
        until(client.models)
        until(lambda: not live(client))
        yield client


def live(client):
    return [*client.jobs("queued"), *client.jobs("running")]


@contextlib.contextmanager
def soon(watcher):
    """What is in the `with` ends soon, and leaves no live job."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < SOON
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
                left = time.monotonic()
                if leave == "error":
                    raise ZeroDivisionError
                break
        assert time.monotonic() - left < SOON
        until(lambda: not live(watcher), SOON)
        assert client.server_info()  # other calls do not notice


def test_an_error_of_the_images_iterator_ends_the_jobs_before_it(slow, watcher):
    def images():
        yield from photos(3 * FIRST)
        until(lambda: live(watcher))
        raise ZeroDivisionError

    with Client(slow, timeout=120) as client, soon(watcher), pytest.raises(ZeroDivisionError):
        list(client.map(images(), [GradCAM()], fresh=True))


async def test_leaving_the_loop_over_the_asynchronous_map_ends_its_jobs(slow, watcher):
    async with AsyncClient(slow, timeout=120) as client:
        async for _ in client.map(MISSING + photos(), [GradCAM()], errors="return", fresh=True):
            await asyncio.to_thread(until, lambda: live(watcher))
            break
        with soon(watcher):
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
        called = pool.submit(CALLS[call], client)
        until(lambda: live(watcher))
        with soon(watcher):
            client.close()
            with pytest.raises(Cancelled) as caught:
                called.result(SOON)
    assert caught.value.reason == "CLIENT_CLOSED"


def test_close_ends_a_wait_and_not_its_job(slow, watcher):
    client = Client(slow, timeout=120)
    job = client.submit(photos(1), [GradCAM()], fresh=True)
    with ThreadPoolExecutor(1) as pool:
        called = pool.submit(job.wait)
        until(lambda: watcher.jobs("running"))
        client.close()
        with pytest.raises(Cancelled):
            called.result(SOON)
    assert [it.id for it in live(watcher)] == [job.id]
    watcher.job(job.id).cancel()


def test_close_ends_a_pause_between_attempts():
    client = Client("127.0.0.1:1", timeout=120, connect_timeout=120)
    with ThreadPoolExecutor(1) as pool:
        called = pool.submit(client.models)
        until(lambda: client._connection.trouble)
        client.close()
        with pytest.raises(Cancelled):
            called.result(SOON)


async def test_close_ends_the_calls_of_other_tasks(slow, watcher):
    for target, calls in ((slow, True), ("127.0.0.1:1", False)):
        client = AsyncClient(target, timeout=120, connect_timeout=120)
        task = asyncio.create_task(client.saliency(photos(1), fresh=True))
        await asyncio.to_thread(until, lambda: live(watcher) if calls else client._connection.trouble)  # noqa: B023
        with soon(watcher):
            await client.close()
            with pytest.raises(Cancelled) as caught:
                await task
            assert caught.value.reason == "CLIENT_CLOSED"


@contextlib.contextmanager
def ended(process):
    """A process that has ended with the `with`, also after a failure."""
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


PYTHON = ["env", "--default-signal=INT", sys.executable]
"""Which hears of Ctrl-C, also where the tests are run in the background of a shell."""
PROGRAM = """
import sys, threading
import numpy as np
from convlens.client import Client, GradCAM
client = Client(sys.argv[1])
results = client.map([np.full((8, 8, 3), n, np.uint8) for n in range(200)], [GradCAM()], fresh=True)
"""
LOOP = "for result in results: pass"
LEFT = """
threading.Thread(target=list, args=[results], daemon=True).start()
sys.stdin.readline()
"""


@pytest.mark.parametrize(
    "words",
    [
        ["-c", PROGRAM + LOOP, "TARGET"],
        ["-m", "convlens.client", "--server", "TARGET", "grad-cam", "FILES", "-o", "OUT"],
        ["-m", "convlens.client", "--server", "TARGET", "saliency", "FILE", "-o", "OUT"],
    ],
    ids=["a program over map", "many photos", "one photo"],
)
def test_ctrl_c_ends_a_process_at_once(slow, watcher, files, tmp_path, words):
    values = {"TARGET": [slow], "FILES": files, "FILE": files[:1], "OUT": [tmp_path / "out"]}
    command = [*PYTHON, *(str(word) for part in words for word in values.get(part, [part]))]
    with ended(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)) as process:
        until(lambda: live(watcher))
        with soon(watcher):
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
    assert out == ""
    if words[0] == "-c":
        assert process.returncode == -signal.SIGINT
        assert "KeyboardInterrupt" in err
    else:
        assert process.returncode == 130
        assert err.strip() == "interrupted"


def test_ctrl_c_ends_a_command_that_is_never_answered(files, tmp_path):
    command = [*PYTHON, "-m", "convlens.client", "--server", "127.0.0.1:1", "--connect-timeout", "60"]
    for words in (["models"], ["saliency", *files, "-o", tmp_path]):
        with ended(subprocess.Popen([*command, *map(str, words)], stderr=subprocess.PIPE, text=True)) as process:
            assert "trying for 60 s" in process.stderr.readline()
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            err = process.communicate(timeout=30)[1]
        assert time.monotonic() - began < SOON
        assert process.returncode == 130
        assert err.strip().splitlines()[-1] == "interrupted"
        assert "Traceback" not in err


def test_a_program_that_ends_does_not_wait_for_the_jobs_of_its_map(slow, watcher):
    command = [sys.executable, "-c", PROGRAM + LEFT, slow]
    with ended(subprocess.Popen(command, stdin=subprocess.PIPE, text=True)) as process:
        until(lambda: live(watcher))
        with soon(watcher):
            process.communicate("\n", timeout=30)
    assert process.returncode == 0

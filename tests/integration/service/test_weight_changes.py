"""Changing a model's weights: each answer carries the digest that made it, none is mixed, and no caller notices."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import seeded_worker
from nets import SIZE, build
from processes import running, until

from convlens.client import Client, ConvlensError, GradCAM, JobFailed, NotFound
from convlens.v1 import job_pb2

LEASE = 1.0
OLD, NEW = seeded_worker.digest(1), seeded_worker.digest(2)
SEEDS = {OLD: 1, NEW: 2}


@pytest.fixture
def service(tmp_path, own_valkey, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(seeded_worker.__file__).parent), prepend=os.pathsep)
    with running(tmp_path, own_valkey, lease=LEASE) as service:
        yield service


def serve(service, *seeds, flags=()):
    """A worker of the models m of these weights."""
    return service.start("seeded_worker", *(word for seed in seeds for word in ("--model", f"m=random:{seed}")), *flags)[0]


def shown(client):
    """The digest that callers see of the model m; empty while it is not served."""
    return next((it.digest for it in client.models()), "")


def image(number=0):
    return np.full((SIZE, SIZE, 3), number, np.uint8)


def is_right(result):
    """True for one whose arrays are those of the weights that it says made it."""
    return (result["grad_cam"] == SEEDS[result.model_digest]).all()


class Mapping:
    """A caller's `map` over images without end, in a thread, until a `with` ends."""

    def __init__(self, client):
        self._client = client
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.results = []
        self.error = None

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()

    def await_answer(self, digest):
        """Waits until an answer by these weights comes."""
        before = len(self.results)
        until(lambda: self.error or any(it.model_digest == digest for it in self.results[before:]))
        assert self.error is None

    def _images(self):
        while not self._over.is_set():
            yield image(len(self.results) % 50)

    def _run(self):
        try:
            for result in self._client.map(self._images(), [GradCAM()]):
                self.results.append(result)
        except ConvlensError as error:
            self.error = error


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two models of one architecture and the first class's logit of each for some images, by Keras."""
    folder = tmp_path_factory.mktemp("models")
    pixels = np.random.default_rng(0).integers(0, 256, (10, SIZE, SIZE, 3), np.uint8)
    found = []
    for seed in (1, 2):
        model = build("uneven", seed)  # whose output are logits
        model.save(path := folder / f"{seed}.keras")
        found.append((path, model.predict(pixels.astype(np.float32), verbose=0)[:, 0]))
    return pixels, found


def test_two_workers_with_different_weights_under_one_name_never_mix_their_answers(service, files):
    pixels, ((first, one), (second, other)) = files
    service.worker(f"m={first},preprocess=none")
    with Client(service.server()[1], timeout=60) as client, ThreadPoolExecutor(8) as pool:
        until(client.models)
        logits = {shown(client): one}
        assert_right = lambda number, result: np.testing.assert_allclose(  # noqa: E731
            result.explained[0]["grad_cam"].score, logits[result.model_digest][number], rtol=1e-3, atol=1e-3
        )
        for number in range(10):
            assert_right(number, client.grad_cam(pixels[number], target=0))
        service.worker(f"m={second},preprocess=none")
        until(lambda: shown(client) not in logits)
        logits[shown(client)] = other
        numbers = [number % 10 for number in range(300)]
        found = list(pool.map(lambda it: client.grad_cam(pixels[it], target=0, fresh=it % 2 == 0), numbers))
        for number, result in zip(numbers, found, strict=True):
            assert_right(number, result)
            assert result.model_digest == shown(client)
        assert any(result.cached for result in found)


def test_callers_notice_neither_a_rolling_change_of_weights_nor_the_way_back(service, monkeypatch):
    monkeypatch.setenv("BATCH_SECONDS", "0.02")
    old = serve(service, 1)
    with Client(service.server()[1], timeout=60) as client:
        until(client.models)
        with Mapping(client) as load:
            load.await_answer(OLD)
            new = serve(service, 2)
            until(lambda: shown(client) == NEW)
            assert client.grad_cam(image(99)).model_digest == NEW
            old.terminate()
            assert old.wait(30) == 0
            load.await_answer(NEW)

            old = serve(service, 1)
            assert client.grad_cam(image(98)).model_digest == NEW  # it came before, and is no newcomer
            new.terminate()
            assert new.wait(30) == 0
            load.await_answer(OLD)
            assert shown(client) == OLD
    assert load.error is None
    assert all(map(is_right, load.results))
    assert {it.model_digest for it in load.results} == {OLD, NEW}


def test_a_worker_of_the_old_weights_that_restarts_gets_no_new_jobs(service):
    old = serve(service, 1)
    with Client(service.server()[1], timeout=60) as client:
        until(client.models)
        request = "00000000-0000-4000-8000-000000000001"
        assert client.grad_cam(image(), request_id=request).model_digest == OLD
        serve(service, 2)
        until(lambda: shown(client) == NEW)
        for number in (signal.SIGTERM, signal.SIGKILL):
            old.send_signal(number)
            old.wait(30)
            old = serve(service, 1)
            found = [client.grad_cam(image(it), fresh=True) for it in range(10)]
            assert {it.model_digest for it in found} == {NEW}
            assert all(map(is_right, found))
        assert client.grad_cam(image()).model_digest == NEW
        assert client.grad_cam(image(), request_id=request).model_digest == OLD  # the same call is the same job


def test_jobs_of_weights_whose_last_worker_was_killed_are_computed_by_the_new_ones_or_say_why_not(service, monkeypatch):
    monkeypatch.setenv("BATCH_SECONDS", "600")
    old = serve(service, 1, flags=("--max-batch-size", "1"))
    monkeypatch.setenv("BATCH_SECONDS", "0")
    with Client(service.server()[1], timeout=60) as client, ThreadPoolExecutor(8) as pool:
        until(client.models)
        jobs = [client.submit(image(number), [GradCAM()], timeout=60) for number in range(8)]
        waiting = [pool.submit(client.grad_cam, image(number % 12)) for number in range(16)]
        until(lambda: len(list(client.jobs("queued"))) >= 8 and list(client.jobs("running")))
        serve(service, 2)
        until(lambda: shown(client) == NEW)
        old.kill()
        for call in waiting:
            assert call.result().model_digest == NEW
            assert is_right(call.result())
        for number, job in enumerate(jobs):
            with pytest.raises(JobFailed, match="submit it again") as failed:
                job.result(10)
            assert failed.value.reason == "MODEL_CHANGED"
            again = client.submit(image(number), [GradCAM()], request_id=job.request_id)
            assert again.id == job.id
            assert is_right(again.result())
            assert again.status().state == job_pb2.JOB_STATE_SUCCEEDED


def test_models_that_cannot_be_served_are_listed_with_the_reason_and_the_others_served(service, tmp_path):
    refused = {
        "gone": f"{tmp_path}/gone.keras", "deep": "random:903", "layer": "random:901", "memory": "random:902",
        "shapes": "random:904", "m": "random:7", "odd": "what?",
    }  # fmt: skip
    words = [word for name, source in refused.items() for word in ("--model", f"{name}={source}")]
    worker = service.start("seeded_worker", "--model", "m=random:1", *words, "--model", "nonsense", "--name", "w")[0]
    with Client(service.server()[1], timeout=60) as client:
        until(client.models)
        assert is_right(client.grad_cam(image()))
        listed = client.refused_models()
        assert [it.name for it in listed] == sorted([*refused, "nonsense"])
        assert {it.worker for it in listed} == {"w"}
        found = {it.name: it for it in listed}
        for name, reason in {
            "gone": "there is no file", "deep": "too deep", "layer": "no such layer", "memory": "MemoryError",
            "shapes": "shapes do not fit", "m": "another --model has that name", "odd": "no source 'what?'",
            "nonsense": "NAME=SOURCE is needed",
        }.items():  # fmt: skip
            assert reason in found[name].reason
        assert (found["gone"].source, found["deep"].source) == ("gone.keras", "random:903")
        for ask in (client.model, lambda name: client.grad_cam(image(), model=name)):
            with pytest.raises(NotFound, match=r"served are: m; w cannot serve it: .*shapes do not fit"):
                ask("shapes")
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == 0
        until(lambda: not client.refused_models())


def test_a_worker_that_can_serve_nothing_ends_and_says_why_last(service, tmp_path):
    with pytest.raises(AssertionError):
        service.start("seeded_worker", "--model", "a=random:901", "--model", "b=random:904")
    assert service._processes[-1].wait(30) == 1
    (log,) = tmp_path.glob("seeded_worker-*.log")
    last = log.read_text().splitlines()[-1]
    assert "none of the models can be served" in last
    assert "no such layer" in last
    assert "shapes do not fit" in last

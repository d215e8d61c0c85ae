"""Changing a model's weights: each result carries the digest of the weights that made it, and no call fails."""

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
    """Start a worker of the model m with the weights of these seeds."""
    model_flags = [flag for seed in seeds for flag in ("--model", f"m=random:{seed}")]
    return service.start("seeded_worker", *model_flags, *flags)[0]


def listed_digest(client):
    """The digest in the model card of m; empty while no worker serves it."""
    return next((card.digest for card in client.models()), "")


def image(number=0):
    return np.full((SIZE, SIZE, 3), number, np.uint8)


def is_consistent(result):
    """True when the arrays were made by the weights whose digest the result carries."""
    return (result["grad_cam"] == SEEDS[result.model_digest]).all()


class EndlessMap:
    """A context manager that runs Client.map() over endless images in a thread."""

    def __init__(self, client):
        self._client = client
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.results = []
        self.error = None

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def await_result(self, digest):
        """Wait for a new result made by the weights of this digest."""
        before = len(self.results)
        until(lambda: self.error or any(result.model_digest == digest for result in self.results[before:]))
        assert self.error is None

    def _images(self):
        while not self._stop.is_set():
            yield image(len(self.results) % 50)

    def _run(self):
        try:
            for result in self._client.map(self._images(), [GradCAM()]):
                self.results.append(result)
        except ConvlensError as error:
            self.error = error


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Images, and for each of two models of one architecture its file and Keras' logits of class 0 of these images."""
    folder = tmp_path_factory.mktemp("models")
    pixels = np.random.default_rng(0).integers(0, 256, (10, SIZE, SIZE, 3), np.uint8)
    models = []
    for seed in (1, 2):
        model = build("uneven", seed)  # a model whose outputs are logits
        model.save(path := folder / f"{seed}.keras")
        models.append((path, model.predict(pixels.astype(np.float32), verbose=0)[:, 0]))
    return pixels, models


def test_workers_with_different_weights_under_one_name_never_mix_their_results(service, files):
    pixels, ((first, first_logits), (second, second_logits)) = files
    service.worker(f"m={first},preprocess=none")
    with Client(service.server()[1], timeout=60) as client, ThreadPoolExecutor(8) as pool:
        until(client.models)
        logits = {listed_digest(client): first_logits}

        def check(number, result):
            expected = logits[result.model_digest][number]
            np.testing.assert_allclose(result.explained[0]["grad_cam"].score, expected, rtol=1e-3, atol=1e-3)

        for number in range(10):
            check(number, client.grad_cam(pixels[number], target=0))
        service.worker(f"m={second},preprocess=none")
        until(lambda: listed_digest(client) not in logits)
        logits[listed_digest(client)] = second_logits
        numbers = [number % 10 for number in range(300)]
        results = list(pool.map(lambda n: client.grad_cam(pixels[n], target=0, fresh=n % 2 == 0), numbers))
        for number, result in zip(numbers, results, strict=True):
            check(number, result)
            assert result.model_digest == listed_digest(client)
        assert any(result.cached for result in results)


def test_no_call_fails_during_a_rolling_change_of_weights_and_its_rollback(service, monkeypatch):
    monkeypatch.setenv("BATCH_SECONDS", "0.02")
    old = serve(service, 1)
    with Client(service.server()[1], timeout=60) as client:
        until(client.models)
        with EndlessMap(client) as load:
            load.await_result(OLD)
            new = serve(service, 2)
            until(lambda: listed_digest(client) == NEW)
            assert client.grad_cam(image(99)).model_digest == NEW
            old.terminate()
            assert old.wait(30) == 0
            load.await_result(NEW)

            old = serve(service, 1)
            assert client.grad_cam(image(98)).model_digest == NEW  # a returning pool does not become the newest
            new.terminate()
            assert new.wait(30) == 0
            load.await_result(OLD)
            assert listed_digest(client) == OLD
    assert load.error is None
    assert all(map(is_consistent, load.results))
    assert {result.model_digest for result in load.results} == {OLD, NEW}


def test_a_restarted_worker_of_the_old_weights_gets_no_new_jobs(service):
    old = serve(service, 1)
    with Client(service.server()[1], timeout=60) as client:
        until(client.models)
        request = "00000000-0000-4000-8000-000000000001"
        assert client.grad_cam(image(), request_id=request).model_digest == OLD
        serve(service, 2)
        until(lambda: listed_digest(client) == NEW)
        for number in (signal.SIGTERM, signal.SIGKILL):
            old.send_signal(number)
            old.wait(30)
            old = serve(service, 1)
            results = [client.grad_cam(image(number), fresh=True) for number in range(10)]
            assert {result.model_digest for result in results} == {NEW}
            assert all(map(is_consistent, results))
        assert client.grad_cam(image()).model_digest == NEW
        assert client.grad_cam(image(), request_id=request).model_digest == OLD  # a repeated request gets its job


def test_jobs_of_replaced_weights_are_repeated_by_calls_and_fail_when_submitted(service, monkeypatch):
    monkeypatch.setenv("BATCH_SECONDS", "600")
    old = serve(service, 1, flags=("--max-batch-size", "1"))
    monkeypatch.setenv("BATCH_SECONDS", "0")
    with Client(service.server()[1], timeout=60) as client, ThreadPoolExecutor(8) as pool:
        until(client.models)
        jobs = [client.submit(image(number), [GradCAM()], timeout=60) for number in range(8)]
        calls = [pool.submit(client.grad_cam, image(number % 12)) for number in range(16)]
        until(lambda: len(list(client.jobs("queued"))) >= 8 and list(client.jobs("running")))
        serve(service, 2)
        until(lambda: listed_digest(client) == NEW)
        old.kill()
        for call in calls:
            assert call.result().model_digest == NEW
            assert is_consistent(call.result())
        for number, job in enumerate(jobs):
            with pytest.raises(JobFailed, match="submit it again") as failed:
                job.result(10)
            assert failed.value.reason == "MODEL_CHANGED"
            repeated = client.submit(image(number), [GradCAM()], request_id=job.request_id)
            assert repeated.id == job.id
            assert is_consistent(repeated.result())
            assert repeated.status().state == job_pb2.JOB_STATE_SUCCEEDED


def test_models_that_cannot_be_served_are_listed_with_the_reason_beside_served_ones(service, tmp_path):
    refused = {
        "gone": f"{tmp_path}/gone.keras", "deep": "random:903", "layer": "random:901", "memory": "random:902",
        "shapes": "random:904", "m": "random:7", "odd": "what?",
    }  # fmt: skip
    flags = [flag for name, source in refused.items() for flag in ("--model", f"{name}={source}")]
    worker, _ = service.start("seeded_worker", "--model", "m=random:1", *flags, "--model", "nonsense", "--name", "w")
    with Client(service.server()[1], timeout=60) as client:
        until(client.models)
        assert is_consistent(client.grad_cam(image()))
        refused_models = client.refused_models()
        assert [model.name for model in refused_models] == sorted([*refused, "nonsense"])
        assert {model.worker for model in refused_models} == {"w"}
        models = {model.name: model for model in refused_models}
        for name, reason in {
            "gone": "there is no file", "deep": "too deep", "layer": "no such layer", "memory": "MemoryError",
            "shapes": "shapes do not fit", "m": "another --model has that name", "odd": "no source 'what?'",
            "nonsense": "NAME=SOURCE is needed",
        }.items():  # fmt: skip
            assert reason in models[name].reason
        assert (models["gone"].source, models["deep"].source) == ("gone.keras", "random:903")
        for call in (client.model, lambda name: client.grad_cam(image(), model=name)):
            with pytest.raises(NotFound, match=r"served are: m; w cannot serve it: .*shapes do not fit"):
                call("shapes")
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == 0
        until(lambda: not client.refused_models())


def test_a_worker_that_can_serve_no_model_ends_and_logs_the_reasons_last(service, tmp_path):
    with pytest.raises(AssertionError):
        service.start("seeded_worker", "--model", "a=random:901", "--model", "b=random:904")
    assert service._processes[-1].wait(30) == 1
    (log,) = tmp_path.glob("seeded_worker-*.log")
    last = log.read_text().splitlines()[-1]
    assert "none of the models can be served" in last
    assert "no such layer" in last
    assert "shapes do not fit" in last

"""What a test can make the fake server do, and what it shares with the real one's sources."""

from __future__ import annotations

import dataclasses
import math
import re
import subprocess
import sys
import threading
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from convlens.client import (
    Activations,
    Client,
    DeadlineExceeded,
    GradCAM,
    InvalidArgument,
    JobFailed,
    JobState,
    Layer,
    ModelCard,
    NotFound,
    Overloaded,
    Saliency,
    TopK,
    Unavailable,
)
from convlens.client.testing import serve, vgg16

PHOTO = np.random.default_rng(8).integers(0, 256, (16, 12, 3), np.uint8)
PAGE = Path(__file__).parents[2] / "docs" / "testing.md"


@pytest.fixture
def server():
    """A fake server, not yet started."""
    return serve()


@pytest.fixture
def client(server):
    """A client of it."""
    with server as target, Client(target, timeout=10) as client:
        yield client


def test_values_depend_on_the_image_the_array_and_the_target(client):
    visualizations = [Saliency(), GradCAM(), Activations("fc1")]
    first, again = (client.visualize([PHOTO, PHOTO[::-1]], visualizations, fresh=True) for _ in range(2))
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
        assert not np.array_equal(first[name][0], first[name][1])
    alone = client.grad_cam(PHOTO)
    np.testing.assert_array_equal(alone["grad_cam"][0], first["grad_cam"][0])
    others = client.grad_cam(PHOTO, target=TopK(3))["grad_cam"][0]
    np.testing.assert_array_equal(others[0], alone["grad_cam"][0])
    assert not np.array_equal(others[0], others[1])


def test_a_refused_call_is_repeated_by_the_sdk_after_the_delay_of_the_error(server, client):
    server.fail_next("QUEUE_FULL", times=2, retry_after=0.01)
    assert client.grad_cam(PHOTO)["grad_cam"].shape == (1, 14, 14)
    assert [request.method for request in server.requests] == ["VisualizeUnary"] * 3
    assert len({request.message.request_id for request in server.requests}) == 1


@pytest.mark.parametrize(
    ("reason", "kind", "retry_after"),
    [("QUEUE_FULL", Overloaded, 60), ("NO_WORKERS", Unavailable, 60), ("ATTEMPTS_EXHAUSTED", JobFailed, None)],
)
def test_a_refused_call_raises_what_the_reason_stands_for(server, client, reason, kind, retry_after):
    server.fail_next(reason, "out of order", retry_after=retry_after)
    with pytest.raises(kind, match="out of order") as refused:
        client.grad_cam(PHOTO)
    assert (refused.value.reason, refused.value.retry_after) == (reason, retry_after)
    client.grad_cam(PHOTO)


def test_an_error_for_a_method_leaves_the_others(server, client):
    server.fail_next("INTERNAL", method="ListModels")
    client.grad_cam(PHOTO)
    with pytest.raises(Exception, match="INTERNAL"):
        client.models()
    assert client.models()


def test_a_failed_job_has_its_reason_and_its_field(server, client):
    server.fail_next_job("IMAGE_UNREADABLE", field="spec.images[0]", times=2)
    with pytest.raises(InvalidArgument) as failed:
        client.grad_cam(PHOTO)
    assert (failed.value.reason, failed.value.field) == ("IMAGE_UNREADABLE", "spec.images[0]")
    job = client.submit(PHOTO, [GradCAM()])
    status = job.wait()
    assert (status.state, status.error.reason, status.error.field) == (
        JobState.FAILED, "IMAGE_UNREADABLE", "spec.images[0]",
    )  # fmt: skip
    with pytest.raises(InvalidArgument):
        job.result()
    server.fail_next_job("INTERNAL")
    with pytest.raises(JobFailed) as failed:
        client.grad_cam(PHOTO)
    assert failed.value.job_id
    server.fail_next_job("MODEL_CHANGED")
    assert not client.grad_cam(PHOTO).cached


def test_an_unknown_reason_is_an_error_of_the_test(server):
    for make in (server.fail_next, server.fail_next_job):
        with pytest.raises(ValueError, match="no reason 'QUEUE_FUL'"):
            make("QUEUE_FUL")


def test_a_result_expires_when_the_test_says_so(server, client):
    job = client.submit(PHOTO, [GradCAM()])
    job.wait()
    server.expire_result(job.id)
    assert job.status().result_expired
    with pytest.raises(NotFound) as expired:
        job.result()
    assert (expired.value.reason, expired.value.job_id) == ("RESULT_EXPIRED", job.id)
    assert not client.grad_cam(PHOTO).cached


def test_a_server_that_never_answers_lets_timeouts_pass(server, client):
    server.delay = math.inf
    with pytest.raises(DeadlineExceeded):
        client.grad_cam(PHOTO, timeout=0.1)
    job = client.submit(PHOTO, [GradCAM()])
    assert (job.status().state, job.status().queue_position) == (JobState.QUEUED, 0)
    watched = threading.Event()
    watcher = threading.Thread(target=lambda: [watched.set() for _ in job.watch()])
    watcher.start()
    assert watched.wait(10)
    assert job.cancel().state is JobState.CANCELLED
    watcher.join(10)
    assert not watcher.is_alive()


def test_requests_are_recorded_in_order(server, client):
    client.models()
    client.submit([PHOTO, PHOTO], [Saliency("guided")], target=7, priority="low").wait()
    assert [request.method for request in server.requests] == ["ListModels", "SubmitJob", "WatchJob"]
    spec = server.requests[1].message.spec
    assert (len(spec.images), spec.targets[0].index) == (2, 7)


def test_a_card_of_the_tests_own_decides_names_and_shapes():
    card = ModelCard(
        name="small", input_shape=(32, 48, 1), cam_layer="c2", labels=("cat", "dog"),
        layers=(Layer("c1", "Conv2D", (32, 48, 4)), Layer("c2", "Conv2D", (16, 24, 8)), Layer("fc", "Dense", (2,))),
    )  # fmt: skip
    with serve([card, dataclasses.replace(card, name="blunt", synthetic=True)]) as target, Client(target) as client:
        result = client.visualize(PHOTO, [GradCAM(), GradCAM("c1", upsampled=True), Saliency()], target="dog")
        assert (result.model, result.explained[0]["grad_cam"].index) == ("small", 1)
        assert {name: array.shape[1:] for name, array in result.items()} == {
            "grad_cam": (16, 24), "grad_cam/c1/upsampled": (32, 48), "saliency": (32, 48),
        }  # fmt: skip
        assert [card.name for card in client.models()] == ["blunt", "small"]
    with serve([]) as target, Client(target, timeout=0.9) as client, pytest.raises(Unavailable) as refused:
        client.grad_cam(PHOTO)
    assert refused.value.reason == "NO_WORKERS"


def test_health_is_served():
    with serve([vgg16("birds")]) as target, grpc.insecure_channel(target) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", "convlens.v1.JobService", "model/birds"):
            assert health.Check(health_pb2.HealthCheckRequest(service=name)).status == 1


def test_it_imports_what_the_sdk_needs_and_nothing_else():
    code = (
        "import sys, convlens.client.testing\n"
        "heavy = {'tensorflow', 'redis', 'celery', 'pydantic', 'PIL', 'convlens.jobs', 'convlens.server'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_example_of_the_page_passes(tmp_path):
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    file = tmp_path / "test_example.py"
    file.write_text(block)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(file)]
    run = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
    assert "3 passed" in run.stdout

"""Progress of calls: what a callback receives, in both clients."""

from __future__ import annotations

import numpy as np
import pytest

from convlens.client import AsyncClient, GradCAM, JobState, Progress, Saliency

PHOTO = np.random.default_rng(3).integers(0, 256, (16, 12, 3), np.uint8)
BATCH = np.stack([PHOTO, PHOTO[::-1]])
STATES = [None, JobState.QUEUED, JobState.RUNNING, JobState.SUCCEEDED]


def check_job(steps):
    """Check the steps of a job of two images: from none to all of them, its states in their order."""
    assert [step.done for step in steps] == sorted(step.done for step in steps)
    assert {step.total for step in steps} == {2}
    assert steps[-1] == Progress(2, 2, JobState.SUCCEEDED)
    order = [STATES.index(step.state) for step in steps]
    assert order == sorted(order)


@pytest.mark.parametrize("name", ["other", "null"])
def test_a_call_reports_its_job_from_the_start_to_the_result(slow_client, name):
    steps = []
    result = slow_client.visualize(BATCH, [GradCAM()], model=name, fresh=True, progress=steps.append)
    assert result["grad_cam"].shape == (2, 14, 14)
    assert steps[0] == Progress(0, 2)
    check_job(steps)
    if name == "other":
        assert JobState.RUNNING in {step.state for step in steps}


def test_a_single_image_and_a_shortcut_report_too(slow_client):
    steps = []
    slow_client.saliency(PHOTO, model="other", fresh=True, progress=steps.append)
    assert (steps[0], steps[-1]) == (Progress(0, 1), Progress(1, 1, JobState.SUCCEEDED))
    assert len(steps) > 2


@pytest.mark.parametrize("method", ["wait", "result"])
def test_a_job_reports_from_any_process(slow_client, method):
    job = slow_client.submit(BATCH, [Saliency()], model="other", fresh=True)
    steps = []
    getattr(slow_client.job(job.id), method)(progress=steps.append)
    check_job(steps)


def test_map_counts_images_before_they_are_yielded(client):
    steps = []
    outcomes = client.map([PHOTO, b"no image", PHOTO[::-1]], [GradCAM()], errors="return", progress=steps.append)
    seen = [steps[-1] for _ in outcomes]
    assert steps == [Progress(done, 3) for done in range(4)]
    assert seen == steps[1:]


def test_map_does_not_know_the_number_of_images_of_a_generator_and_that_of_a_batch(client):
    steps = []
    list(client.map((image for image in BATCH), [GradCAM()], progress=steps.append))
    list(client.map(BATCH, [GradCAM()], progress=steps.append))
    assert steps == [Progress(done, total) for total in (None, 2) for done in range(3)]
    assert [step.fraction for step in steps[2:]] == [None, 0, 0.5, 1]


async def test_the_asynchronous_client_reports_alike(targets):
    async with AsyncClient(targets[1], timeout=60) as client:
        steps = []
        await client.visualize(BATCH, [GradCAM()], model="other", fresh=True, progress=steps.append)
        check_job(steps)
        steps.clear()
        await (await client.submit(BATCH, [GradCAM()], model="other", fresh=True)).result(progress=steps.append)
        check_job(steps)
        steps.clear()
        async for _ in client.map(BATCH, [GradCAM()], progress=steps.append):
            pass
        assert steps == [Progress(done, 2) for done in range(3)]


def test_an_error_in_a_callback_ends_the_call(slow_client):
    def fail(progress):
        if progress.state is JobState.RUNNING:
            raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        slow_client.grad_cam(PHOTO, model="other", fresh=True, progress=fail)
    with pytest.raises(ZeroDivisionError):
        list(slow_client.map([PHOTO], [GradCAM()], progress=lambda progress: 1 / (1 - progress.done)))

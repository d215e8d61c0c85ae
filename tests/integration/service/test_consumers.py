"""A worker's consumers, one or several: the device keeps none of them from claiming, and no call gets lost."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from processes import until

from convlens.client import Client, GradCAM, JobState

PHOTO = np.zeros((8, 8, 3), np.uint8)


@pytest.fixture(scope="module")
def client(start_service):
    """A client of the model `null`, and of one whose device takes 3 s: of one consumer each, and of four."""
    service = start_service()
    for consumers in (1, 4):
        models = (f"null{consumers}=null", f"slow{consumers}=null,device_ms=3000+0")
        service.worker(*models, flags=("--consumers", str(consumers)))
    with Client(service.server()[1], timeout=60) as client:
        until(lambda: len(client.models()) == 4)
        yield client


@pytest.mark.parametrize("consumers", [1, 4])
def test_a_job_is_claimed_while_the_device_computes_the_only_other_one(client, consumers):
    model = f"slow{consumers}"
    first = client.submit(PHOTO, [GradCAM()], model=model, fresh=True)
    until(lambda: first.status().state is JobState.RUNNING)
    second = client.submit(PHOTO, [GradCAM()], model=model, fresh=True)
    until(lambda: second.status().state is JobState.RUNNING)
    assert first.status().state is JobState.RUNNING
    for job in (first, second):
        assert job.result()["grad_cam"].shape == (1, 14, 14)


@pytest.mark.parametrize("consumers", [1, 4])
def test_calls_of_ever_more_threads_are_all_answered(client, consumers):
    """Jobs come alone, in twos and in groups."""
    number, threads = 40, 6
    answered = []

    def call(first):
        for target in range(first, first + number):
            result = client.saliency(PHOTO, model=f"null{consumers}", target=target, fresh=True)
            answered.append((target, result.explained[0]["saliency"].index))

    callers = [threading.Thread(target=call, args=(number * thread,)) for thread in range(threads)]
    for caller in callers:
        client.saliency(PHOTO, model=f"null{consumers}", fresh=True)
        caller.start()
    for caller in callers:
        caller.join()
    assert sorted(answered) == [(target, target) for target in range(number * threads)]

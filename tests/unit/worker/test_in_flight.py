"""Jobs between the device and the committer."""

from __future__ import annotations

import threading
from concurrent.futures import Future

import numpy as np

from convlens.v1 import model_pb2
from convlens.worker.engine.outputs import Outputs
from convlens.worker.engine.plan import Plan, Saliency
from convlens.worker.pipeline.batcher import Batcher, Owner
from convlens.worker.pipeline.in_flight import InFlightJob

SECONDS = 20
PLAN = Plan((Saliency(),))


class Model:
    """A served model that returns zeros."""

    card = model_pb2.Model(name="zeros")

    def run(self, images, plan, targets):
        zeros = np.zeros(len(images), np.float32)
        return Outputs(dict.fromkeys(plan.maps, zeros), targets, None, None, None, None, None)

    def warm_up(self):
        pass


def job_of(pieces):
    return InFlightJob(None, None, None, (), (), PLAN, pieces=pieces)


def test_a_job_is_committed_once_after_its_last_piece_in_whatever_order_they_end():
    pieces = [Future() for _ in range(3)]
    pieces[1].set_result(None)
    job = job_of(pieces)
    committed = []
    job.call_when_computed(committed.append)
    pieces[2].set_exception(ValueError())
    assert not committed
    pieces[0].set_result(None)
    assert committed == [job]


def test_a_device_that_waits_for_the_committer_is_not_busy():
    batcher = Batcher(Model(), 4)
    called, proceed = threading.Event(), threading.Event()

    def commit(_):
        called.set()
        assert proceed.wait(SECONDS)

    images = np.zeros((1, 4, 4, 3), np.uint8)
    pieces = batcher.submit(images, np.zeros((1, 1), np.int32), PLAN, Owner("flow", lambda: True, 0.0))
    job_of(pieces).call_when_computed(commit)
    try:
        assert called.wait(SECONDS)
        assert batcher.on_device == ()
    finally:
        proceed.set()
        batcher.close()

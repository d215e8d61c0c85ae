"""The batcher: work with one plan shares a pass, flows take turns, and a failure affects only its own work."""

from __future__ import annotations

import threading
from concurrent.futures import wait

import numpy as np
import pytest

from convlens.v1 import model_pb2
from convlens.worker.engine.outputs import Outputs
from convlens.worker.engine.plan import Activation, Plan, Saliency
from convlens.worker.pipeline.batcher import Abandoned, Batcher, Owner

ONE, OTHER = Plan((Saliency(),)), Plan((Saliency("guided"),))
SECONDS = 20
POISON = 255


class Recorder:
    """A served model that returns each image's first value, records its batches, and runs once its gate is open."""

    def __init__(self):
        self.card = model_pb2.Model()
        self.batches: list[tuple[Plan, list[float], str]] = []
        self.started = threading.Semaphore(0)
        self.gate = threading.Event()

    def run(self, images, plan, targets):
        self.started.release()
        assert self.gate.wait(SECONDS)
        values = images[:, 0, 0, 0].astype(np.float32)
        self.batches.append((plan, values.tolist(), images.dtype.name))
        if (images == POISON).any():
            raise ValueError("poisoned")
        return Outputs(dict.fromkeys(plan.maps, values), targets, None, None, None, None, None)

    def warm_up(self):
        pass


@pytest.fixture
def model():
    return Recorder()


@pytest.fixture
def batcher(model):
    """A batcher of at most four images, whose device is busy with image 0 until the gate opens."""
    batcher = Batcher(model, 4)
    submit(batcher, [0])
    assert model.started.acquire(timeout=SECONDS)
    yield batcher
    model.gate.set()
    batcher.close()


def submit(batcher, values, plan=ONE, dtype=np.uint8, is_wanted=lambda: True, flow="m", alone=False):
    images = np.array(values, dtype)[:, None, None, None] * np.ones((1, 1, 1, 3), dtype)
    return batcher.submit(images, np.array(values, np.int32)[:, None], plan, Owner(flow, is_wanted, 0.0, "", alone))


def finish(batcher, model):
    """Open the gate, close the batcher, and return the batches after that of image 0."""
    model.gate.set()
    batcher.close()
    assert model.batches[0][1] == [0]
    return [values for _, values, _ in model.batches[1:]]


def results(futures):
    """Wait for the futures and return the value of each image."""
    return [float(value) for future in futures for value in next(iter(future.result(SECONDS).outputs.maps.values()))]


def test_waiting_work_becomes_one_batch_in_order_of_age(batcher, model):
    jobs = [submit(batcher, [n]) for n in (3, 1, 2)]
    assert finish(batcher, model) == [[3, 1, 2]]
    assert [results(job) for job in jobs] == [[3], [1], [2]]
    result = jobs[1][0].result()
    assert result.statistics.batch_size == 3
    assert result.outputs.targets.tolist() == [[1]]
    assert result.statistics.waited > 0


def test_a_lone_image_is_computed_at_once_and_alone(model):
    model.gate.set()
    batcher = Batcher(model, 4)
    assert results(submit(batcher, [9])) == [9]
    batcher.close()
    assert model.batches == [(ONE, [9], "uint8")]


def test_no_batch_exceeds_the_maximum_and_smaller_work_fills_the_batch_of_the_oldest(batcher, model):
    for values in ([1, 2], [3, 4, 5], [6], [7], [8]):
        submit(batcher, values)
    assert finish(batcher, model) == [[1, 2, 6, 7], [3, 4, 5, 8]]


def test_a_large_job_is_split_and_its_results_are_in_order(batcher, model):
    futures = submit(batcher, range(1, 12))
    batches = finish(batcher, model)
    assert [len(batch) for batch in batches] == [4, 4, 3]
    assert results(futures) == list(range(1, 12))


@pytest.mark.parametrize(
    "other", [{"plan": OTHER}, {"plan": Plan((Saliency(),), predictions=5)}, {"dtype": np.float32},
              {"plan": Plan((Saliency(),), scored_layer="fc1")}, {"plan": Plan((Activation("c1"),))}]
)  # fmt: skip
def test_work_of_another_plan_or_dtype_never_shares_a_pass(batcher, model, other):
    jobs = [submit(batcher, [n], **(other if n % 2 else {})) for n in (1, 2, 3, 4)]
    assert finish(batcher, model) == [[1, 3], [2, 4]]
    assert [results(job) for job in jobs] == [[1], [2], [3], [4]]


def test_work_that_may_have_hung_the_device_shares_no_pass(batcher, model):
    jobs = [submit(batcher, [n], alone=n == 2) for n in (1, 2, 3)]
    assert finish(batcher, model) == [[1, 3], [2]]
    assert [results(job) for job in jobs] == [[1], [2], [3]]


def test_the_work_on_the_device_is_visible(batcher, model):
    assert [work.targets.tolist() for work in batcher.on_device] == [[[0]]]
    finish(batcher, model)
    assert batcher.on_device == ()


def test_unwanted_work_is_not_computed(batcher, model):
    unwanted = submit(batcher, [1], is_wanted=lambda: False)
    pending = submit(batcher, [2])
    assert finish(batcher, model) == [[2]]
    assert results(pending) == [2]
    with pytest.raises(Abandoned):
        unwanted[0].result(SECONDS)


def test_a_batch_of_unwanted_work_causes_no_pass(batcher, model):
    unwanted = submit(batcher, [1], is_wanted=lambda: False)
    assert finish(batcher, model) == []
    assert isinstance(unwanted[0].exception(SECONDS), Abandoned)


def test_only_the_work_that_causes_a_failure_fails(batcher, model):
    jobs = [submit(batcher, [n]) for n in (1, POISON, 3)]
    assert finish(batcher, model) == [[1, POISON, 3], [1], [POISON], [3]]
    assert results(jobs[0]) == [1]
    assert results(jobs[2]) == [3]
    with pytest.raises(ValueError, match="poisoned"):
        jobs[1][0].result(SECONDS)
    assert jobs[0][0].result().statistics.batch_size == 1


def test_work_after_a_failure_is_computed(batcher, model):
    bad = submit(batcher, [POISON])
    model.gate.set()
    assert bad[0].exception(SECONDS)
    assert results(submit(batcher, [5])) == [5]


def test_closing_computes_the_waiting_work(batcher, model):
    futures = [future for n in range(1, 10) for future in submit(batcher, [n])]
    closing = threading.Thread(target=batcher.close)
    closing.start()
    model.gate.set()
    closing.join(SECONDS)
    assert not closing.is_alive()
    assert results(futures) == list(range(1, 10))


def test_each_of_many_threads_gets_its_own_results(batcher, model):
    model.gate.set()
    values = {}

    def compute(n):
        values[n] = results(submit(batcher, [n, n + 1], plan=(ONE, OTHER)[n % 2]))

    threads = [threading.Thread(target=compute, args=(n,)) for n in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert values == {n: [n, n + 1] for n in range(100)}
    assert all(len(batch) <= 4 for _, batch, _ in model.batches)


def test_every_future_is_done_after_closing(batcher, model):
    futures = [future for n in range(50) for future in submit(batcher, [n, n])]
    finish(batcher, model)
    assert not wait(futures, 0).not_done


def test_flows_take_turns_however_much_one_submits(batcher, model):
    for n in range(1, 13):
        submit(batcher, [n], flow="flood")
    submit(batcher, [50], flow="other", plan=OTHER)
    submit(batcher, [51], flow="other", plan=OTHER)
    assert finish(batcher, model) == [[1, 2, 3, 4], [50, 51], [5, 6, 7, 8], [9, 10, 11, 12]]


def test_the_number_of_computed_images_is_reported(model):
    batcher = Batcher(model, 4)
    model.gate.set()
    counts = []
    images = np.zeros((6, 1, 1, 3), np.uint8)
    futures = batcher.submit(images, np.zeros((6, 1), np.int32), ONE, Owner("m", lambda: True, 0.0), counts.append)
    wait(futures, SECONDS)
    batcher.close()
    assert counts == [4, 2]


def test_a_new_flow_precedes_one_that_was_served(batcher, model):
    submit(batcher, [1] * 4)
    submit(batcher, [2] * 4)
    submit(batcher, [9], flow="modest")
    assert finish(batcher, model) == [[9], [1] * 4, [2] * 4]

"""The batcher: what waits shares a pass, nothing shares what it must not, and nobody pays for another's mistake."""

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
    """A served model that returns each image's first value, writes down its batches, and starts when it is let."""

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
    """Of at most four images, its device busy with image 0 until the gate opens."""
    batcher = Batcher(model, 4)
    submit(batcher, [0])
    assert model.started.acquire(timeout=SECONDS)
    yield batcher
    model.gate.set()
    batcher.close()


def submit(batcher, values, plan=ONE, dtype=np.uint8, wanted=lambda: True, flow="m", alone=False):
    images = np.array(values, dtype)[:, None, None, None] * np.ones((1, 1, 1, 3), dtype)
    return batcher.submit(images, np.array(values, np.int32)[:, None], plan, Owner(flow, wanted, 0.0, "", alone))


def finish(batcher, model):
    """The batches that were run while the device had been busy with image 0."""
    model.gate.set()
    batcher.close()
    assert model.batches[0][1] == [0]
    return [values for _, values, _ in model.batches[1:]]


def got(futures):
    return [float(v) for it in futures for v in next(iter(it.result(SECONDS).outputs.maps.values()))]


def test_what_waits_becomes_one_batch_in_order_of_age(batcher, model):
    futures = [submit(batcher, [n]) for n in (3, 1, 2)]
    assert finish(batcher, model) == [[3, 1, 2]]
    assert [got(it) for it in futures] == [[3], [1], [2]]
    done = futures[1][0].result()
    assert done.statistics.batch_size == 3
    assert done.outputs.targets.tolist() == [[1]]
    assert done.statistics.waited > 0


def test_a_lone_piece_is_taken_at_once_and_alone(model):
    model.gate.set()
    batcher = Batcher(model, 4)
    assert got(submit(batcher, [9])) == [9]
    batcher.close()
    assert model.batches == [(ONE, [9], "uint8")]


def test_no_batch_is_above_the_maximum_and_what_does_not_fit_lets_smaller_work_go_with_the_oldest(batcher, model):
    for values in ([1, 2], [3, 4, 5], [6], [7], [8]):
        submit(batcher, values)
    assert finish(batcher, model) == [[1, 2, 6, 7], [3, 4, 5, 8]]


def test_a_big_job_is_cut_and_comes_back_in_order(batcher, model):
    futures = submit(batcher, range(1, 12))
    batches = finish(batcher, model)
    assert [len(it) for it in batches] == [4, 4, 3]
    assert got(futures) == list(range(1, 12))


@pytest.mark.parametrize(
    "other", [{"plan": OTHER}, {"plan": Plan((Saliency(),), predictions=5)}, {"dtype": np.float32},
              {"plan": Plan((Saliency(),), scored_layer="fc1")}, {"plan": Plan((Activation("c1"),))}]
)  # fmt: skip
def test_what_differs_never_shares_a_pass(batcher, model, other):
    futures = [submit(batcher, [n], **(other if n % 2 else {})) for n in (1, 2, 3, 4)]
    assert finish(batcher, model) == [[1, 3], [2, 4]]
    assert [got(it) for it in futures] == [[1], [2], [3], [4]]


def test_what_a_device_may_have_hung_on_shares_no_pass(batcher, model):
    futures = [submit(batcher, [n], alone=n == 2) for n in (1, 2, 3)]
    assert finish(batcher, model) == [[1, 3], [2]]
    assert [got(it) for it in futures] == [[1], [2], [3]]


def test_what_is_on_the_device_can_be_seen(batcher, model):
    assert [it.targets.tolist() for it in batcher.on_device] == [[[0]]]
    finish(batcher, model)
    assert batcher.on_device == ()


def test_work_that_nobody_wants_any_more_is_not_computed(batcher, model):
    gone = submit(batcher, [1], wanted=lambda: False)
    kept = submit(batcher, [2])
    assert finish(batcher, model) == [[2]]
    assert got(kept) == [2]
    with pytest.raises(Abandoned):
        gone[0].result(SECONDS)


def test_a_batch_of_nothing_wanted_is_no_pass(batcher, model):
    gone = submit(batcher, [1], wanted=lambda: False)
    assert finish(batcher, model) == []
    assert isinstance(gone[0].exception(SECONDS), Abandoned)


def test_of_a_batch_that_fails_only_the_guilty_work_fails(batcher, model):
    futures = [submit(batcher, [n]) for n in (1, POISON, 3)]
    assert finish(batcher, model) == [[1, POISON, 3], [1], [POISON], [3]]
    assert got(futures[0]) == [1]
    assert got(futures[2]) == [3]
    with pytest.raises(ValueError, match="poisoned"):
        futures[1][0].result(SECONDS)
    assert futures[0][0].result().statistics.batch_size == 1


def test_after_a_failure_the_device_goes_on(batcher, model):
    bad = submit(batcher, [POISON])
    model.gate.set()
    assert bad[0].exception(SECONDS)
    assert got(submit(batcher, [5])) == [5]


def test_closing_computes_what_waits(batcher, model):
    futures = [it for n in range(1, 10) for it in submit(batcher, [n])]
    closing = threading.Thread(target=batcher.close)
    closing.start()
    model.gate.set()
    closing.join(SECONDS)
    assert not closing.is_alive()
    assert got(futures) == list(range(1, 10))


def test_many_threads_get_each_their_own_answers(batcher, model):
    model.gate.set()
    answers = {}

    def ask(n):
        answers[n] = got(submit(batcher, [n, n + 1], plan=(ONE, OTHER)[n % 2]))

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert answers == {n: [n, n + 1] for n in range(100)}
    assert all(len(values) <= 4 for _, values, _ in model.batches)


def test_nothing_is_left_unanswered_when_closed(batcher, model):
    futures = [it for n in range(50) for it in submit(batcher, [n, n])]
    finish(batcher, model)
    assert not wait(futures, 0).not_done


def test_flows_take_turns_whatever_waits_of_one(batcher, model):
    for n in range(1, 13):
        submit(batcher, [n], flow="flood")
    submit(batcher, [50], flow="other", plan=OTHER)
    submit(batcher, [51], flow="other", plan=OTHER)
    assert finish(batcher, model) == [[1, 2, 3, 4], [50, 51], [5, 6, 7, 8], [9, 10, 11, 12]]


def test_what_the_device_is_through_with_is_told(model):
    batcher = Batcher(model, 4)
    model.gate.set()
    told = []
    images = np.zeros((6, 1, 1, 3), np.uint8)
    pieces = batcher.submit(images, np.zeros((6, 1), np.int32), ONE, Owner("m", lambda: True, 0.0), told.append)
    wait(pieces, SECONDS)
    batcher.close()
    assert told == [4, 2]


def test_a_flow_that_comes_anew_goes_before_one_that_was_served(batcher, model):
    submit(batcher, [1] * 4)
    submit(batcher, [2] * 4)
    submit(batcher, [9], flow="modest")
    assert finish(batcher, model) == [[9], [1] * 4, [2] * 4]

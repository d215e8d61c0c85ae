"""A work queue: order, batches, the bound, errors, and what closing it leaves undone: nothing."""

from __future__ import annotations

import threading

import pytest

from convlens.jobs.runtime import background
from convlens.jobs.runtime.background import WorkQueue

SECONDS = 20


class Worker:
    """Records the batches that it is called with, one at a time as they are let through; raises for items of 13."""

    def __init__(self):
        self.batches = []
        self.started = threading.Semaphore(0)
        self.permits = threading.Semaphore(0)

    def __call__(self, items):
        self.started.release()
        assert self.permits.acquire(timeout=SECONDS)
        self.batches.append(items)
        if 13 in items:
            raise ValueError("13")


@pytest.fixture
def worker():
    return Worker()


@pytest.fixture
def make_queue(worker):
    queues = []

    def make(**options):
        queues.append(WorkQueue("test", worker, **options))
        queues[-1].start()
        return queues[-1]

    yield make
    worker.permits.release(1000)
    for queue in queues:
        queue.close()


def test_what_waits_is_worked_on_together_in_order(worker, make_queue):
    queue = make_queue(batch=3)
    queue.put(0)
    assert worker.started.acquire(timeout=SECONDS)
    for number in range(1, 6):
        queue.put(number)
    worker.permits.release(3)
    queue.close()
    assert worker.batches == [[0], [1, 2, 3], [4, 5]]


def test_threads_work_on_batches_side_by_side(worker, make_queue):
    queue = make_queue(threads=2)
    queue.put(1)
    queue.put(2)
    for _ in range(2):
        assert worker.started.acquire(timeout=SECONDS)


def test_put_waits_while_the_queue_is_full(worker, make_queue):
    queue = make_queue(capacity=1)
    queue.put(1)
    assert worker.started.acquire(timeout=SECONDS)
    queue.put(2)
    third = threading.Thread(target=queue.put, args=(3,))
    third.start()
    third.join(0.1)
    assert third.is_alive()
    worker.permits.release()
    third.join(SECONDS)
    assert not third.is_alive()


def test_a_batch_that_fails_does_not_end_the_thread(worker, make_queue):
    queue = make_queue()
    queue.put(13)
    queue.put(14)
    worker.permits.release(2)
    for _ in range(2):
        assert worker.started.acquire(timeout=SECONDS)
    assert not background.unhealthy_loops()


def test_close_works_on_what_is_queued(worker, make_queue):
    queue = make_queue(threads=3, batch=2)
    for number in range(100):
        queue.put(number)
    worker.permits.release(100)
    queue.close()
    assert sorted(number for batch in worker.batches for number in batch) == list(range(100))

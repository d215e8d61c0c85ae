"""A budget is never overdrawn, whoever waits gets his turn, and more than there is can be had alone."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from processes import until

from convlens.worker.pipeline.memory_budget import Budget


def test_what_is_held_together_stays_within_it():
    budget, lock, held, most = Budget(10), threading.Lock(), 0, 0

    def hold(amount):
        nonlocal held, most
        with budget.reserve(amount):
            with lock:
                held += min(amount, 10)
                most = max(most, held)
            with lock:
                held -= min(amount, 10)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(hold, [1, 4, 7, 25] * 200))
    assert most <= 10


def test_a_large_amount_is_not_overtaken_for_ever():
    budget, order = Budget(10), []
    waiting = []

    def take(amount):
        waiting.append(amount)
        with budget.reserve(amount):
            order.append(amount)

    with ThreadPoolExecutor(2) as threads, budget.reserve(5):
        threads.submit(take, 10)
        until(lambda: waiting == [10] and len(budget._waiting) == 1)
        threads.submit(take, 1)
        until(lambda: len(budget._waiting) == 2)
        assert order == []
    assert order == [10, 1]


def test_it_is_given_back_after_an_error():
    budget = Budget(1)
    for _ in range(2):
        with contextlib.suppress(ZeroDivisionError), budget.reserve(1):
            raise ZeroDivisionError
    with budget.reserve(5):
        pass
    with pytest.raises(ZeroDivisionError), budget.reserve(1):
        raise ZeroDivisionError

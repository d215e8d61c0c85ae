"""The memory budget is never exceeded, reservations are granted in order, and one above the total is granted alone."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from processes import until

from convlens.worker.pipeline.limits import Budget


def test_concurrent_reservations_never_exceed_the_budget():
    budget, lock, reserved, maximum = Budget(10), threading.Lock(), 0, 0

    def reserve(amount):
        nonlocal reserved, maximum
        with budget.reserve(amount):
            with lock:
                reserved += min(amount, 10)
                maximum = max(maximum, reserved)
            with lock:
                reserved -= min(amount, 10)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(reserve, [1, 4, 7, 25] * 200))
    assert maximum <= 10


def test_a_large_reservation_is_not_overtaken_by_a_small_one():
    budget, order = Budget(10), []
    waiting = []

    def reserve(amount):
        waiting.append(amount)
        with budget.reserve(amount):
            order.append(amount)

    with ThreadPoolExecutor(2) as threads, budget.reserve(5):
        threads.submit(reserve, 10)
        until(lambda: waiting == [10] and len(budget._waiting) == 1)
        threads.submit(reserve, 1)
        until(lambda: len(budget._waiting) == 2)
        assert order == []
    assert order == [10, 1]


def test_a_reservation_is_returned_after_an_error():
    budget = Budget(1)
    for _ in range(2):
        with contextlib.suppress(ZeroDivisionError), budget.reserve(1):
            raise ZeroDivisionError
    with budget.reserve(5):
        pass
    with pytest.raises(ZeroDivisionError), budget.reserve(1):
        raise ZeroDivisionError

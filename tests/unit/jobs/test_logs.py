"""Repeated warnings do not fill the log."""

from __future__ import annotations

import io
import logging

import pytest

from convlens.jobs.runtime.logs import MOST, RateLimit


@pytest.fixture
def output():
    return io.StringIO()


@pytest.fixture
def logger(output):
    logger = logging.getLogger("convlens.test")
    handler = logging.StreamHandler(output)
    handler.addFilter(RateLimit())
    logger.addHandler(handler)
    yield logger
    logger.removeHandler(handler)


def emit(logger, level, second, message, *values):
    record = logger.makeRecord("test", level, "file", 1, message, values, None)
    record.created = second
    logger.handle(record)


def test_the_same_warning_is_logged_a_few_times_a_second_and_then_counted(logger, output):
    for number in range(100):
        emit(logger, logging.WARNING, 5.5, "peer=%d is rejected", number)
    emit(logger, logging.WARNING, 6.1, "peer=%d is rejected", 100)
    lines = output.getvalue().splitlines()
    assert lines[:2] == ["peer=0 is rejected", "peer=1 is rejected"]
    assert lines[MOST:] == [f"peer=100 is rejected ({100 - MOST} more like this were not logged)"]


def test_other_messages_and_lower_levels_are_logged(logger, output):
    for number in range(100):
        emit(logger, logging.INFO, 5.5, "job=%d", number)
    for letter in "ab":
        emit(logger, logging.ERROR, 5.5, f"{letter} failed")
    assert len(output.getvalue().splitlines()) == 102

"""Background loops survive errors, which are logged once and counted; dead and late loops are unhealthy."""

from __future__ import annotations

import threading
import time

import pytest
import redis
from processes import until
from prometheus_client import REGISTRY

from convlens.jobs.queue.scripts import ScriptFailed
from convlens.jobs.runtime import background
from convlens.jobs.runtime.background import Loop


@pytest.fixture
def run():
    """Starts a loop, which the end of the test stops."""
    loops = []

    def start(name, work, interval=0.01, **options):
        loops.append(Loop(name, work, interval, **options))
        loops[-1].start()
        return loops[-1]

    yield start
    for loop in loops:
        loop.request_stop()


def errors(name):
    return REGISTRY.get_sample_value("convlens_background_errors_total", {"loop": name})


class Raising:
    """Rounds that raise `error` while it is set."""

    def __init__(self, error):
        self.error = error
        self.rounds = 0

    def __call__(self):
        self.rounds += 1
        if self.error:
            raise self.error


@pytest.mark.parametrize(
    "error",
    [ValueError("x"), UnicodeDecodeError("utf-8", b"x", 0, 1, "x"), IsADirectoryError("lost+found"), KeyError("x"),
     redis.ConnectionError("away"), redis.ResponseError("WRONGTYPE"), ScriptFailed("x.lua"), MemoryError()],
)  # fmt: skip
def test_an_error_is_logged_once_counted_and_followed_by_other_rounds(run, caplog, error):
    name = f"raising-{type(error).__name__}"
    work = Raising(error)
    loop = run(name, work)
    until(lambda: work.rounds > 5)
    assert errors(name) >= 5
    assert sum(f"loop={name}" in record.getMessage() for record in caplog.records) == 1
    assert loop.is_healthy
    caplog.set_level("INFO")
    work.error = None
    until(lambda: "works again" in caplog.text)


def test_another_cause_is_logged_too(run, caplog):
    work = Raising(ValueError("one"))
    run("causes", work)
    until(lambda: work.rounds > 2)
    work.error = KeyError("two")
    until(lambda: "two" in caplog.text)


def test_a_loop_without_interval_pauses_after_a_round_that_raises(run):
    work = Raising(ValueError("x"))
    run("pausing", work, 0.0)
    until(lambda: work.rounds == 1)
    time.sleep(0.2)
    assert work.rounds == 1


def test_a_loop_that_hangs_or_keeps_failing_is_unhealthy_unless_redis_is_unavailable(run):
    forever = threading.Event()
    run("hanging", forever.wait, deadline=0.2)
    run("failing", Raising(ScriptFailed("x")), deadline=0.2)
    run("without Redis", Raising(redis.ConnectionError("away")), deadline=0.2)
    run("healthy", Raising(None), deadline=0.2)
    try:
        until(lambda: background.unhealthy_loops() == ["hanging", "failing"])
    finally:
        forever.set()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_loop_is_unhealthy_and_a_stopped_one_is_not(run):
    def exit_thread():
        raise SystemExit

    run("dead", exit_thread)
    stopped = run("stopped", Raising(None))
    stopped.stop()
    until(lambda: background.unhealthy_loops() == ["dead"])


def test_stopping_ends_the_thread_after_its_last_work(run):
    ended = []
    loop = run("ending", Raising(None), 60, at_end=lambda: ended.append(True))
    loop.stop()
    assert ended == [True]
    assert "ending" not in {thread.name for thread in threading.enumerate()}

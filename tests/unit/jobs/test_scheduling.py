"""Threads do not preempt one another."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other kernels have no such policy")
PROGRAM = """
import os, threading
from convlens.jobs.runtime import process
os.sched_setscheduler(0, {before}, os.sched_param(0))
process.use_batch_policy()
thread = threading.Thread(target=lambda: print(os.sched_getscheduler(0)))
thread.start()
thread.join()
"""


@pytest.mark.parametrize(("before", "after"), [("SCHED_OTHER", "SCHED_BATCH"), ("SCHED_IDLE", "SCHED_IDLE")])
def test_new_threads_have_the_batch_policy_unless_another_was_set(before, after):
    program = [sys.executable, "-c", PROGRAM.format(before=f"os.{before}")]
    printed = subprocess.run(program, check=True, capture_output=True, text=True).stdout
    assert int(printed) == getattr(os, after)

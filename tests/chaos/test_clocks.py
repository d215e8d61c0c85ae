"""A jump of the wall clock deletes no results."""

from __future__ import annotations

import time

from chaos.cases import null
from chaos.stack import SETTINGS, running_stack
from chaos.storage_faults import HOURS

from convlens.client import Client

RECONCILER_RUNS = 8
"""Runs of the reconciler, which deletes expired payloads, during the jump."""


def test_results_in_a_folder_survive_a_jump_of_the_clock(tmp_path):
    case = null(5)
    with running_stack(tmp_path, payloads_in_folder=True) as stack, Client(stack.target, timeout=60) as client:
        job = client.submit(case.images, case.visualizations, model="null", target=case.target)
        assert case.matches(job.result())
        stack.clock.write_text(str(HOURS))
        end = time.monotonic() + RECONCILER_RUNS * SETTINGS["reconcile_interval"]
        while time.monotonic() < end and any(stack.payloads.iterdir()):
            time.sleep(0.05)
        stack.clock.write_text("0")
        assert case.matches(job.result())

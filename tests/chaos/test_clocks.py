"""A wall clock that jumps and comes back has taken nothing with it."""

from __future__ import annotations

import time

from chaos.questions import null
from chaos.stack import SETTINGS, stacked
from chaos.stores import HOURS

from convlens.client import Client

LOOKS = 8
"""Of the reconciler, which also deletes what has outlived its time."""


def test_results_in_a_folder_outlive_a_jump_of_the_clock(tmp_path):
    question = null(5)
    with stacked(tmp_path, payloads_in_folder=True) as stack, Client(stack.target, timeout=60) as client:
        job = client.submit(question.images, question.visualizations, model="null", target=question.target)
        assert question.answered_by(job.result())
        stack.clock.write_text(str(HOURS))
        end = time.monotonic() + LOOKS * SETTINGS["reconcile_interval"]
        while time.monotonic() < end and any(stack.payloads.iterdir()):
            time.sleep(0.05)
        stack.clock.write_text("0")
        assert question.answered_by(job.result())

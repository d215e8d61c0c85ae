"""Run faults under load, wait after each until the stack has recovered, and check every job."""

from __future__ import annotations

import itertools
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from chaos.cases import Case, null
from chaos.fault import Fault
from chaos.load import Load, Submission, cases_of
from chaos.stack import Stack, running_stack
from chaos.table import Lane
from convlens.client import Client, ConvlensError
from convlens.v1 import job_pb2


@dataclass(frozen=True, slots=True)
class Row:
    """The outcome of one fault."""

    fault: str
    jobs: int
    lost: int
    """Jobs that ended with an error that the fault does not allow."""
    wrong: int
    """Results that differ from the expected ones in any bit."""
    doubled: int
    """Jobs whose record or result changed after the end, and jobs that no caller submitted."""
    recovery: float
    """The longest time in seconds that a job took after the fault, or after its start if that was later."""
    errors: tuple[str, ...]
    """Errors after which callers of the SDK repeated a call."""
    problems: tuple[str, ...]
    """Descriptions of everything lost, wrong or doubled."""


def rows(lane: Lane, faults: Sequence[Fault], folder: Path, jobs: int, pause: float) -> Iterator[Row]:
    """Run faults of a lane one after another, each with at least `jobs` jobs. A broken stack is replaced."""
    with ExitStack() as exit_stack:
        stack, cases = None, []
        for number, fault in enumerate(faults):
            if stack is None:
                options = {"shapes": lane.shapes, "payloads_in_folder": lane.payloads_in_folder}
                stack = exit_stack.enter_context(running_stack(folder / f"{lane.name}-{number}", **options))
                cases = cases_of(stack)
            try:
                yield run(fault, stack, cases, jobs, pause)
            except Exception:  # noqa: BLE001 - any error fails this row, and the faults after it still run
                yield Row(fault.name, 0, 0, 0, 0, 0.0, (), (traceback.format_exc(),))
                exit_stack.pop_all().close()
                stack = None


def run(fault: Fault, stack: Stack, cases: list[Case], jobs: int, pause: float) -> Row:
    """Run one fault and return its row."""
    load = Load(stack, cases, fault.errors, fault.call_seconds)
    load.start(jobs, pause)
    try:
        load.await_completions(4)
        fault.inject(stack, load)
        stack.await_models()
        load.submit(null(7, "mine"))  # the victim works again
        load.stop()
    except Exception:
        load.abandon()
        raise
    return _check(fault, stack, load)


def _check(fault: Fault, stack: Stack, load: Load) -> Row:
    problems: list[str] = []
    lost = wrong = doubled = 0
    with Client(stack.target, timeout=60) as client:
        for job in load.submissions:
            if job.error:
                is_lost = fault.failing.get(job.case, "?") not in job.error
                lost += is_lost
                problems += [f"{job.job_id}: {job.error}"] * is_lost
                continue
            change = _change(client, job)
            wrong += not job.is_correct
            doubled += bool(change)
            problems += [f"{job.job_id}: wrong"] * (not job.is_correct) + [f"{job.job_id}: {change}"] * bool(change)
        stack.job_ids |= {job.job_id for job in load.submissions}
        newest = itertools.islice(client.jobs(), len(load.submissions))
        strays = [status.id for status in newest if status.id not in stack.job_ids]
    doubled += len(strays)
    problems += [f"{job_id}: submitted by no caller" for job_id in strays]
    errors = tuple(sorted(load.errors))
    return Row(fault.name, len(load.submissions), lost, wrong, doubled, load.recovery, errors, tuple(problems))


def _change(client: Client, submission: Submission) -> str:
    """Fetch an ended job once more and describe what differs; empty when nothing does."""
    try:
        job = client.job(submission.job_id)
        now, result = job.status(), job.result()
    except ConvlensError as error:
        # a full Redis drops results that nobody asked to keep
        is_dropped = error.reason == "RESULT_EXPIRED" and not submission.is_kept
        return "" if is_dropped else f"existed before, and now {error}"
    if now != submission.final or now.state != job_pb2.JOB_STATE_SUCCEEDED:
        return f"ended twice: {submission.final} and {now}"
    is_same = result.timing == submission.timing and submission.case.matches(result)
    return "" if is_same else f"has another result: {submission.timing} and {result.timing}"

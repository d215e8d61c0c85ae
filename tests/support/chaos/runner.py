"""Runs faults under load, waits after each until all is well again, and takes stock."""

from __future__ import annotations

import itertools
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from chaos.fault import Fault
from chaos.load import Asked, Load, pool
from chaos.questions import Question, null
from chaos.stack import Stack, stacked
from chaos.table import Lane
from convlens.client import Client, ConvlensError
from convlens.v1 import job_pb2


@dataclass(frozen=True, slots=True)
class Row:
    """What a fault did."""

    fault: str
    jobs: int
    lost: int
    """Jobs that ended otherwise than they had to."""
    wrong: int
    """Answers that were not, bit for bit, the right ones."""
    doubled: int
    """Jobs whose end or answer was another when seen again, and jobs that nobody asked for."""
    recovery: float
    """Seconds: the longest that a job took from the fault, or from its asking where that was later, to its answer."""
    met: tuple[str, ...]
    """Errors that callers of the SDK met, and asked again."""
    told: tuple[str, ...]
    """What went wrong, for people; empty when nothing did."""


def rows(lane: Lane, faults: Sequence[Fault], folder: Path, jobs: int, pause: float) -> Iterator[Row]:
    """The rows of some faults of a lane, at least `jobs` jobs each; a broken stack is replaced."""
    with ExitStack() as held:
        stack, questions = None, []
        for number, fault in enumerate(faults):
            if stack is None:
                options = {"shapes": lane.shapes, "payloads_in_folder": lane.payloads_in_folder}
                stack = held.enter_context(stacked(folder / f"{lane.name}-{number}", **options))
                questions = pool(stack)
            try:
                yield run(fault, stack, questions, jobs, pause)
            except Exception:  # noqa: BLE001 - whatever it is, it is this row's, and the next ones are run all the same
                yield Row(fault.name, 0, 0, 0, 0, 0.0, (), (traceback.format_exc(),))
                held.pop_all().close()
                stack = None


def run(fault: Fault, stack: Stack, questions: list[Question], jobs: int, pause: float) -> Row:
    """The row of one fault."""
    load = Load(stack, questions, fault.errors, fault.patience)
    load.start(jobs, pause)
    try:
        load.more(4)
        fault.act(stack, load)
        stack.await_whole()
        load.begin(null(7, "mine"))  # the victim works again
        load.stop()
    except Exception:
        load.abandon()
        raise
    return _stock(fault, stack, load)


def _stock(fault: Fault, stack: Stack, load: Load) -> Row:
    told: list[str] = []
    lost = wrong = doubled = 0
    with Client(stack.target, timeout=60) as client:
        for it in load.jobs:
            if it.error:
                bad = fault.fails.get(it.question, "?") not in it.error
                lost += bad
                told += [f"{it.job_id}: {it.error}"] * bad
                continue
            again = _again(client, it)
            wrong += not it.right
            doubled += bool(again)
            told += [f"{it.job_id}: wrong"] * (not it.right) + [f"{it.job_id}: {again}"] * bool(again)
        stack.known |= {it.job_id for it in load.jobs}
        newest = itertools.islice(client.jobs(), len(load.jobs))
        strays = [it.id for it in newest if it.id not in stack.known]
    doubled += len(strays)
    told += [f"{it}: nobody asked for it" for it in strays]
    met = tuple(sorted(load.met))
    return Row(fault.name, len(load.jobs), lost, wrong, doubled, load.recovery, met, tuple(told))


def _again(client: Client, it: Asked) -> str:
    """What is different when a job is taken up once more by its id; empty when nothing is."""
    try:
        job = client.job(it.job_id)
        now, result = job.status(), job.result()
    except ConvlensError as error:
        dropped = error.reason == "RESULT_EXPIRED" and not it.kept  # as a Redis that was full had to
        return "" if dropped else f"was there once, and now {error}"
    if now != it.final or now.state != job_pb2.JOB_STATE_SUCCEEDED:
        return f"ended twice: {it.final} and {now}"
    same = result.timing == it.timing and it.question.answered_by(result)
    return "" if same else f"has another result: {it.timing} and {result.timing}"

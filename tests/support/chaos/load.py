"""Steady load: callers that run jobs with known results, and a record of how each job ended."""

from __future__ import annotations

import itertools
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from processes import until

from chaos.cases import Case, null, scenes
from chaos.fault import CALL_SECONDS
from chaos.stack import Stack
from convlens.client import Client, ConvlensError, Job
from convlens.v1 import job_pb2

CALLERS = 4
JOB_SECONDS = 120.0
RETRY_SECONDS = 0.3
"""Pause of a caller before it repeats a call that met an error."""


@dataclass(slots=True, eq=False)
class Submission:
    """One job, from the first call for it to its end."""

    case: Case
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    started_at: float = field(default_factory=time.monotonic)
    ended_at: float | None = None
    job_id: str = ""
    is_kept: bool = False
    """True when it was submitted, so that its result is kept; the result of a waiting call may be dropped."""
    is_correct: bool = False
    final: job_pb2.Job | None = None
    """The record when the job was first seen to have ended."""
    timing: object = None
    error: str = ""


class Load:
    """Callers in threads and the record of their jobs.

    After one of `errors`, a caller repeats its call under the same request id.
    """

    def __init__(
        self,
        stack: Stack,
        cases: Sequence[Case],
        errors: tuple[type[ConvlensError], ...] = (),
        call_seconds: float = CALL_SECONDS,
    ) -> None:
        self._stack = stack
        self._cases = cases
        self._errors = errors
        self._call_seconds = call_seconds
        self._threads = ThreadPoolExecutor(CALLERS + 8, thread_name_prefix="caller")
        self._lock = threading.Lock()
        self._counter = itertools.count()
        self._stop = threading.Event()
        self._is_abandoned = False
        self._callers: list[Future[None]] = []
        self._extra: list[Future[None]] = []
        """The jobs of submit() and call()."""
        self._fault_time = 0.0
        self.submissions: list[Submission] = []
        self.errors: set[str] = set()
        """The errors after which callers repeated a call, by type and reason."""

    # --- used by faults ---

    @property
    def completed(self) -> int:
        """The number of jobs that have ended."""
        return sum(job.ended_at is not None for job in self.submissions)

    def mark_fault(self) -> None:
        """Record the present time as the time of the fault."""
        self._fault_time = self._fault_time or time.monotonic()

    @property
    def recovery(self) -> float:
        """The longest time in seconds that a job took after the fault, or after its start if that was later."""
        times = ((max(job.started_at, self._fault_time), job.ended_at) for job in self.submissions)
        return max(end - start for start, end in times)

    def submit(self, case: Case) -> Job:
        """Run one more job in a thread, and return it once the server has acknowledged it."""
        job = self._record(case)
        self._extra.append(self._threads.submit(self._run, job, self._submit_and_fetch))
        until(lambda: job.job_id or job.error)
        assert job.job_id, job.error
        return self._client().job(job.job_id)

    def call(self, case: Case) -> Future[None]:
        """Run one more job in a single waiting call in a thread, and return at once."""
        self._extra.append(future := self._threads.submit(self._run, self._record(case), self._visualize))
        return future

    def await_completions(self, count: int) -> None:
        """Wait until `count` further jobs have ended."""
        total = self.completed + count
        until(lambda: self.completed >= total)

    # --- used by the runner ---

    def start(self, jobs: int, pause: float) -> None:
        """Start the callers. Each pauses between two jobs and runs until stop(), and until there are `jobs` in all."""

        def run_caller() -> None:
            while not self._is_abandoned and (not self._stop.is_set() or len(self.submissions) < jobs):
                number = next(self._counter)
                # a waiting call's timeout ends its job too, so with a short timeout callers only submit
                is_waiting = number % 2 and self._call_seconds >= CALL_SECONDS
                run = self._visualize if is_waiting else self._submit_and_fetch
                self._run(self._record(self._cases[number % len(self._cases)]), run)
                time.sleep(pause)

        self._callers = [self._threads.submit(run_caller) for _ in range(CALLERS)]

    def stop(self) -> None:
        """Stop the callers and wait until every job has ended."""
        self._stop.set()
        for future in (*self._callers, *self._extra):
            future.result()
        self._threads.shutdown()

    def abandon(self) -> None:
        """Stop the callers without waiting for their jobs."""
        self._is_abandoned = True
        self._stop.set()
        self._threads.shutdown(wait=False, cancel_futures=True)

    # --- callers ---

    def _record(self, case: Case) -> Submission:
        with self._lock:
            self.submissions.append(job := Submission(case))
        return job

    def _client(self) -> Client:
        return Client(self._stack.target, timeout=self._call_seconds, connect_timeout=self._call_seconds)

    def _run(self, job: Submission, run: Callable[[Client, Submission], object]) -> None:
        """Repeat `run` until it returns a result or meets an error that is not expected."""
        end = time.monotonic() + JOB_SECONDS
        while job.ended_at is None:
            try:
                with self._client() as client:
                    result = run(client, job)
                    job.final = client.job(job.job_id).status()
            except self._errors as error:
                self.errors.add(f"{type(error).__name__} {error.reason}".strip())
                if time.monotonic() < end:
                    time.sleep(RETRY_SECONDS)
                    continue
                job.error = f"never answered, at last {error}"
            except ConvlensError as error:
                job.job_id = job.job_id or error.job_id
                job.error = f"{type(error).__name__}: {error}"
            else:
                job.is_correct = job.case.matches(result)
                job.timing = result.timing
            job.ended_at = time.monotonic()

    def _visualize(self, client: Client, job: Submission):
        """Wait for the result in one call."""
        result = client.visualize(**self._arguments(job))
        job.job_id = result.job_id
        return result

    def _submit_and_fetch(self, client: Client, job: Submission):
        """Submit the job, and fetch its result by its id over another connection."""
        job.is_kept = True
        if not job.job_id:
            job.job_id = client.submit(**self._arguments(job), timeout=JOB_SECONDS).id
        with self._client() as later:
            return later.job(job.job_id).result()

    def _arguments(self, job: Submission) -> dict[str, object]:
        case = job.case
        return {
            "images": case.images, "visualizations": case.visualizations, "model": case.model, "target": case.target,
            "request_id": job.request_id, "fresh": True,
        }  # fmt: skip


def cases_of(stack: Stack) -> list[Case]:
    """The cases that callers of `stack` run in turn."""
    cases: list[Case] = [null(unit) for unit in range(24)]
    if stack.shapes is not None:
        with Client(stack.target) as client:
            shapes: Iterator[Case] = itertools.cycle(scenes(client))
        cases[::4] = itertools.islice(shapes, 6)
    return cases

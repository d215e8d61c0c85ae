"""Steady load: callers that ask questions with known answers, and the account of what became of each."""

from __future__ import annotations

import itertools
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from processes import until

from chaos.fault import PATIENCE
from chaos.questions import Question, null, scenes
from chaos.stack import Stack
from convlens.client import Client, ConvlensError, Job
from convlens.v1 import job_pb2

CALLERS = 4
JOB_SECONDS = 120.0
AGAIN = 0.3
"""Seconds that a caller waits who asks again after an error."""


@dataclass(slots=True, eq=False)
class Asked:
    """One job from the asking to what became of it."""

    question: Question
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    asked: float = field(default_factory=time.monotonic)
    ended: float | None = None
    job_id: str = ""
    kept: bool = False
    """True for one that was submitted; the result of a call that has its answer may go."""
    right: bool = False
    final: job_pb2.Job | None = None
    """The record when it was first seen to have ended."""
    timing: object = None
    error: str = ""


class Load:
    """Asks and keeps account. `errors` are what callers may meet: they ask again then, under the same request id."""

    def __init__(
        self,
        stack: Stack,
        pool: Sequence[Question],
        errors: tuple[type[ConvlensError], ...] = (),
        patience: float = PATIENCE,
    ) -> None:
        self._stack = stack
        self._pool = pool
        self._errors = errors
        self._patience = patience
        self._threads = ThreadPoolExecutor(CALLERS + 8, thread_name_prefix="caller")
        self._lock = threading.Lock()
        self._counter = itertools.count()
        self._over = threading.Event()
        self._given_up = False
        self._callers: list[Future[None]] = []
        self._directed: list[Future[None]] = []
        self.jobs: list[Asked] = []
        self._struck = 0.0
        self.met: set[str] = set()
        """The errors that callers met, by type and reason."""

    # --- what a fault does with it ---

    @property
    def ended(self) -> int:
        """Jobs that have ended."""
        return sum(it.ended is not None for it in self.jobs)

    def strike(self) -> None:
        """Says that the fault comes now."""
        self._struck = self._struck or time.monotonic()

    @property
    def recovery(self) -> float:
        """The longest that a job took from the fault, or from its asking where that was later, until its answer."""
        ends = ((max(it.asked, self._struck), it.ended) for it in self.jobs)
        return max(end - begin for begin, end in ends)

    def begin(self, question: Question) -> Job:
        """Has one more question asked and returns its job once it is acknowledged."""
        asked = self._note(question)
        self._directed.append(self._threads.submit(self._follow, asked, self._returning))
        until(lambda: asked.job_id or asked.error)
        assert asked.job_id, asked.error
        return self._client().job(asked.job_id)

    def call(self, question: Question) -> Future[None]:
        """Has one more question asked, in one call that waits; returns at once."""
        self._directed.append(future := self._threads.submit(self._follow, self._note(question), self._waiting))
        return future

    def more(self, count: int) -> None:
        """Waits until `count` further jobs have ended."""
        enough = self.ended + count
        until(lambda: self.ended >= enough)

    # --- what the runner does with it ---

    def start(self, jobs: int, pause: float) -> None:
        """Callers ask, each with a pause between two jobs, until stop() and until there were `jobs`."""

        def caller() -> None:
            while not self._given_up and (not self._over.is_set() or len(self.jobs) < jobs):
                number = next(self._counter)
                # a call's deadline is its job's, so impatient callers only submit
                ask = self._waiting if number % 2 and self._patience >= PATIENCE else self._returning
                self._follow(self._note(self._pool[number % len(self._pool)]), ask)
                time.sleep(pause)

        self._callers = [self._threads.submit(caller) for _ in range(CALLERS)]

    def stop(self) -> None:
        """Ends the load once everything asked has ended."""
        self._over.set()
        for future in (*self._callers, *self._directed):
            future.result()
        self._threads.shutdown()

    def abandon(self) -> None:
        """Leaves the load to itself: nobody asks any more, and nobody waits for what was asked."""
        self._given_up = True
        self._over.set()
        self._threads.shutdown(wait=False, cancel_futures=True)

    # --- callers ---

    def _note(self, question: Question) -> Asked:
        with self._lock:
            self.jobs.append(asked := Asked(question))
        return asked

    def _client(self) -> Client:
        return Client(self._stack.target, timeout=self._patience, connect_timeout=self._patience)

    def _follow(self, asked: Asked, ask: Callable[[Client, Asked], object]) -> None:
        """Asks until there is an answer, or an error that is not to be met."""
        end = time.monotonic() + JOB_SECONDS
        while asked.ended is None:
            try:
                with self._client() as client:
                    result = ask(client, asked)
                    asked.final = client.job(asked.job_id).status()
            except self._errors as error:
                self.met.add(f"{type(error).__name__} {error.reason}".strip())
                if time.monotonic() < end:
                    time.sleep(AGAIN)
                    continue
                asked.error = f"never answered, at last {error}"
            except ConvlensError as error:
                asked.job_id = asked.job_id or error.job_id
                asked.error = f"{type(error).__name__}: {error}"
            else:
                asked.right = asked.question.answered_by(result)
                asked.timing = result.timing
            asked.ended = time.monotonic()

    def _waiting(self, client: Client, asked: Asked):
        """A caller who waits in one call."""
        result = client.visualize(**self._words(asked))
        asked.job_id = result.job_id
        return result

    def _returning(self, client: Client, asked: Asked):
        """A caller who goes away, and comes back with the job's id."""
        asked.kept = True
        if not asked.job_id:
            asked.job_id = client.submit(**self._words(asked), timeout=JOB_SECONDS).id
        with self._client() as later:
            return later.job(asked.job_id).result()

    def _words(self, asked: Asked) -> dict[str, object]:
        it = asked.question
        return {
            "images": it.images, "visualizations": it.visualizations, "model": it.model, "target": it.target,
            "request_id": asked.request_id, "fresh": True,
        }  # fmt: skip


def pool(stack: Stack) -> list[Question]:
    """What callers of `stack` ask in turn."""
    found: list[Question] = [null(unit) for unit in range(24)]
    if stack.shapes is not None:
        with Client(stack.target) as client:
            known: Iterator[Question] = itertools.cycle(scenes(client))
        found[::4] = itertools.islice(known, 6)
    return found

"""Feeds a model's device: whatever waits when the device becomes free, and can share a pass, is the next batch.

There is no timer: under load batches are full, and an idle device starts at once. Flows take turns: the first work of a
batch is that of the flow that had the least of the device lately. Knows arrays and plans; no jobs, no wire.
"""

from __future__ import annotations

import enum
import functools
import logging
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from convlens.jobs.runtime.background import Loop
from convlens.worker import metrics
from convlens.worker.engine.outputs import Ints, Outputs
from convlens.worker.engine.plan import Plan
from convlens.worker.models.model_protocol import ServedModel

log = logging.getLogger(__name__)


class Abandoned(RuntimeError):
    """Work whose job had ended when its turn came."""


class Cause(enum.StrEnum):
    """Why a batch had no more images; the names are those of convlens.v1.BatchCause."""

    FULL = "full"
    NOTHING_WAITED = "nothing_waited"
    OTHER_PLAN = "other_plan"
    """Everything else that waited had another plan."""
    NO_ROOM = "no_room"
    """What waited with the same plan had more images than fitted."""


@dataclass(frozen=True, slots=True)
class Pass:
    """The statistics of a pass of a piece of work."""

    waited: float
    """Seconds until its batch started."""
    computed: float
    """Seconds that its batch took on the device."""
    batch_size: int
    """Images in its batch, its own included."""
    cause: Cause
    """Why they were no more."""


@dataclass(frozen=True, slots=True)
class BatchResult:
    """The outputs of a piece of work."""

    outputs: Outputs
    statistics: Pass


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose work it is."""

    flow: str
    """Whose turn it takes."""
    is_wanted: Callable[[], bool]
    """Called when its turn comes; False drops it."""
    claimed_at: float
    """When this process claimed it, by time.monotonic()."""
    name: str = ""
    """Its name in the log."""
    alone: bool = False
    """True: the device may have hung on it before; it shares no pass."""


@dataclass(slots=True, eq=False)
class Work:
    """Images with one plan."""

    images: npt.NDArray[np.generic]
    """(n,H,W,3), n no more than the largest batch."""
    targets: Ints
    """(n,T)"""
    plan: Plan
    owner: Owner
    future: Future[BatchResult] = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)

    def shares_pass(self, other: Work) -> bool:
        """True when both can be one batch."""
        alone = self.owner.alone or other.owner.alone
        return not alone and self.plan == other.plan and self.images.dtype == other.images.dtype


class Batcher:
    """One model, one device, one thread. A batch never has more than `max_batch_size` images."""

    def __init__(self, model: ServedModel, max_batch_size: int, deadline: float = math.inf) -> None:
        """With no batch started or ended for `deadline` seconds the thread counts as late."""
        self._model = model
        self._max = max_batch_size
        self._waiting: list[Work] = []
        self._served: dict[str, int] = {}
        self.on_device: tuple[Work, ...] = ()
        """The work on the device now; another tuple for each pass."""
        self._metrics = metrics.DeviceMetrics(model.card.name, Cause)
        self._changed = threading.Condition()
        self._closing = False
        self._loop = Loop("device", self._round, at_end=self._compute_rest, deadline=deadline)
        self._loop.start()

    def submit(
        self,
        images: npt.NDArray[np.generic],
        targets: Ints,
        plan: Plan,
        owner: Owner,
        on_done: Callable[[int], object] = lambda _: None,
    ) -> list[Future[BatchResult]]:
        """Queue images in pieces of at most a batch; return one future a piece, in order. Each may raise Abandoned.

        `on_done` is called with the number of images of each piece once the device is through with them.
        """
        cuts = [slice(i, i + self._max) for i in range(0, len(images), self._max)]
        works = [Work(images[cut], targets[cut], plan, owner) for cut in cuts]
        for work in works:
            work.future.add_done_callback(functools.partial(_call_back, on_done, len(work.images)))
        with self._changed:
            self._waiting += works
            self._changed.notify()
        return [work.future for work in works]

    def close(self) -> None:
        """Compute what waits, then end the thread."""
        with self._changed:
            self._closing = True
            self._loop.request_stop()
            self._changed.notify()
        self._loop.stop()

    def _round(self) -> None:
        """Compute the next batch, for which it waits a second. Whatever happens, each of its works has an outcome."""
        if next_batch := self._next():
            batch, cause = next_batch
            try:
                still_wanted = [work for work in batch if self._check_wanted(work)]
                if still_wanted:
                    self._compute(still_wanted, cause)
            except Exception as error:
                for work in batch:
                    if not work.future.done():
                        work.future.set_exception(error)
                raise
            finally:
                self.on_device = ()

    def _compute_rest(self) -> None:
        """Compute what still waits."""
        while self._waiting:
            with self._loop.guard():
                self._round()

    def _next(self) -> tuple[list[Work], Cause] | None:
        """The oldest work of the flow whose turn it is, and what can share its pass; None where nothing waits."""
        with self._changed:
            if not self._waiting and not self._closing:
                self._changed.wait(1.0)
            batch: list[Work] = []
            free = self._max
            rest: list[Work] = []
            for work in self._in_fair_order():
                if len(work.images) <= free and (not batch or work.shares_pass(batch[0])):
                    batch.append(work)
                    free -= len(work.images)
                else:
                    rest.append(work)
            self._waiting = rest
            for work in batch:
                self._served[work.owner.flow] = self._served.get(work.owner.flow, 0) + len(work.images)
            return (batch, _cause(batch, rest, free)) if batch else None

    def _in_fair_order(self) -> list[Work]:
        """What waits, the oldest work of the flow that was served least first, then all in order of age.

        A newly active flow counts as served as much as the least served of the others, and goes before it.
        """
        flows = dict.fromkeys(work.owner.flow for work in self._waiting)
        if len(flows) < 2:
            self._served = dict.fromkeys(flows, 0)
            return self._waiting
        known = self._served
        least = min((known[flow] for flow in flows if flow in known), default=0)
        self._served = {flow: known.get(flow, least) for flow in flows}
        turn = min(flows, key=lambda flow: (self._served[flow], flow in known))
        return sorted(self._waiting, key=lambda work: work.owner.flow != turn)

    @staticmethod
    def _check_wanted(work: Work) -> bool:
        """True where the work is still wanted; else its future raises Abandoned."""
        if work.owner.is_wanted():
            return True
        work.future.set_exception(Abandoned("the job ended before its turn on the device came"))
        return False

    def _compute(self, batch: list[Work], cause: Cause) -> None:
        self.on_device = tuple(batch)
        size = sum(len(work.images) for work in batch)
        claimed_at = min(work.owner.claimed_at for work in batch)
        began = self._metrics.start_pass(size, cause, claimed_at, (work.since for work in batch))
        try:
            images = batch[0].images if len(batch) == 1 else np.concatenate([work.images for work in batch])
            targets = np.concatenate([work.targets for work in batch])
            outputs = self._model.run(images, batch[0].plan, targets)
        except Exception as error:
            self._metrics.end_pass()
            if len(batch) == 1:
                batch[0].future.set_exception(error)
                return
            log.exception("a batch of %d jobs failed; each is tried alone", len(batch))
            for work in batch:
                self._compute([work], cause)
            return
        took = self._metrics.end_pass()
        self.on_device = ()  # setting a result may wait for the committer
        for work, piece in zip(batch, outputs.split([len(work.images) for work in batch]), strict=True):
            work.future.set_result(BatchResult(piece, Pass(began - work.since, took, size, cause)))


def _cause(batch: list[Work], rest: list[Work], free: int) -> Cause:
    """Why `batch`, with so many places free, does not include `rest`."""
    if not free:
        return Cause.FULL
    if not rest:
        return Cause.NOTHING_WAITED
    return Cause.NO_ROOM if any(work.shares_pass(batch[0]) for work in rest) else Cause.OTHER_PLAN


def _call_back(on_done: Callable[[int], object], images: int, _: Future[BatchResult]) -> None:
    on_done(images)

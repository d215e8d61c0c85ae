"""Feeds a model's device: whatever waits when the device comes free, and can share a pass, is the next batch.

No timer: under load batches are full, and an idle device begins at once. Flows take turns: the next batch is begun by
the flow that had least of the device lately. Knows arrays and plans; no jobs, no wire.
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
    """Work that nobody waited for any more when its turn came."""


class Cause(enum.StrEnum):
    """Why a batch had no more images; the names are those of convlens.v1.BatchCause."""

    FULL = "full"
    NOTHING_WAITED = "nothing_waited"
    OTHER_PLAN = "other_plan"
    """All else that waited wanted another plan."""
    NO_ROOM = "no_room"
    """What waited and wanted the same had more images than there was room left for."""


@dataclass(frozen=True, slots=True)
class Pass:
    """What is told of a pass of a piece of work."""

    waited: float
    """Seconds until the device took it."""
    computed: float
    """Seconds that its batch took on the device."""
    batch_size: int
    """Images in its batch, its own included."""
    cause: Cause
    """Why they were no more."""


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What became of a piece of work."""

    outputs: Outputs
    took: Pass


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose work it is."""

    flow: str
    """Whose turn it takes."""
    wanted: Callable[[], bool]
    """Asked when its turn comes; False drops it."""
    taken: float
    """When it came to this process, by time.monotonic()."""
    name: str = ""
    """What it is called in the log."""
    alone: bool = False
    """True: the device may have hung on it before; it shares no pass."""


@dataclass(slots=True, eq=False)
class Work:
    """Images that want the same plan."""

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
        """With no batch taken or ended for `deadline` seconds it counts as late."""
        self._model = model
        self._max = max_batch_size
        self._waiting: list[Work] = []
        self._served: dict[str, int] = {}
        self.on_device: tuple[Work, ...] = ()
        """What the device has just now; another tuple for each pass."""
        self._seen = metrics.DeviceMetrics(model.card.name, Cause)
        self._changed = threading.Condition()
        self._closing = False
        self._loop = Loop("device", self._round, at_end=self._rest, deadline=deadline)
        self._loop.start()

    def submit(
        self,
        images: npt.NDArray[np.generic],
        targets: Ints,
        plan: Plan,
        owner: Owner,
        done: Callable[[int], object] = lambda _: None,
    ) -> list[Future[BatchResult]]:
        """Queues images in pieces of a batch at most; one future a piece, in order. Each may raise Abandoned.

        `done` is told the images of each piece once the device is through with them.
        """
        cuts = [slice(i, i + self._max) for i in range(0, len(images), self._max)]
        works = [Work(images[cut], targets[cut], plan, owner) for cut in cuts]
        for work in works:
            work.future.add_done_callback(functools.partial(_tell, done, len(work.images)))
        with self._changed:
            self._waiting += works
            self._changed.notify()
        return [work.future for work in works]

    def close(self) -> None:
        """Computes what waits, then ends the thread."""
        with self._changed:
            self._closing = True
            self._loop.request_stop()
            self._changed.notify()
        self._loop.stop()

    def _round(self) -> None:
        """Computes the next batch, for which it waits a second. Whatever happens, each of its works has an outcome."""
        if found := self._next():
            batch, cause = found
            try:
                wanted = [work for work in batch if self._claim(work)]
                if wanted:
                    self._compute(wanted, cause)
            except Exception as error:
                for work in batch:
                    if not work.future.done():
                        work.future.set_exception(error)
                raise
            finally:
                self.on_device = ()

    def _rest(self) -> None:
        """Computes what still waits."""
        while self._waiting:
            self._round()

    def _next(self) -> tuple[list[Work], Cause] | None:
        """The oldest work of the flow whose turn it is, and what can share its pass; None where nothing waits."""
        with self._changed:
            if not self._waiting and not self._closing:
                self._changed.wait(1.0)
            batch: list[Work] = []
            room = self._max
            rest: list[Work] = []
            for work in self._in_turn():
                if len(work.images) <= room and (not batch or work.shares_pass(batch[0])):
                    batch.append(work)
                    room -= len(work.images)
                else:
                    rest.append(work)
            self._waiting = rest
            for work in batch:
                self._served[work.owner.flow] = self._served.get(work.owner.flow, 0) + len(work.images)
            return (batch, _cause(batch, rest, room)) if batch else None

    def _in_turn(self) -> list[Work]:
        """What waits, the oldest work of the flow that was served least first, then all in order of age.

        A flow that comes anew was served as much as the least of the others, and goes before it.
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
    def _claim(work: Work) -> bool:
        if work.owner.wanted():
            return True
        work.future.set_exception(Abandoned("the job ended before its turn on the device came"))
        return False

    def _compute(self, batch: list[Work], cause: Cause) -> None:
        self.on_device = tuple(batch)
        size = sum(len(work.images) for work in batch)
        taken = min(work.owner.taken for work in batch)
        began = self._seen.start_pass(size, cause, taken, (work.since for work in batch))
        try:
            images = batch[0].images if len(batch) == 1 else np.concatenate([work.images for work in batch])
            targets = np.concatenate([work.targets for work in batch])
            outputs = self._model.run(images, batch[0].plan, targets)
        except Exception as error:
            self._seen.end_pass()
            if len(batch) == 1:
                batch[0].future.set_exception(error)
                return
            log.exception("a batch of %d jobs failed; each is tried alone", len(batch))
            for work in batch:
                self._compute([work], cause)
            return
        took = self._seen.end_pass()
        for work, piece in zip(batch, outputs.split([len(work.images) for work in batch]), strict=True):
            work.future.set_result(BatchResult(piece, Pass(began - work.since, took, size, cause)))


def _cause(batch: list[Work], rest: list[Work], room: int) -> Cause:
    """Why `batch`, with room for so many images left, goes without `rest`."""
    if not room:
        return Cause.FULL
    if not rest:
        return Cause.NOTHING_WAITED
    return Cause.NO_ROOM if any(work.shares_pass(batch[0]) for work in rest) else Cause.OTHER_PLAN


def _tell(done: Callable[[int], object], images: int, _: Future[BatchResult]) -> None:
    done(images)

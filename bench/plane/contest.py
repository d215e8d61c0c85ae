"""Cases run in interleaved rounds, so that what else the machine does meets all of them, and what came of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, median

from bench.plane.load import Order, percentile
from bench.plane.subject import DidNotRun, Measured, Subject

WARM_UP_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Case:
    """One service under one order."""

    service: str
    subject: Subject
    order: Order

    @property
    def name(self) -> str:
        """For the table of costs."""
        order = self.order
        pace = f"{order.rate:g}/s" if order.rate else f"{order.in_flight} in flight"
        return f"{self.service}: {order.call} {order.kind}, {pace}"


@dataclass(slots=True)
class Result:
    """A case's rounds."""

    case: Case
    rounds: list[Measured] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Images a second: the rounds' median."""
        return median(it.report.rate for it in self.rounds)

    @property
    def images(self) -> int:
        """Of all rounds."""
        return sum(it.report.images for it in self.rounds)

    @property
    def latencies(self) -> list[float]:
        """Seconds, of all rounds."""
        return [latency for it in self.rounds for latency in it.report.latencies]

    @property
    def failed(self) -> int:
        """Calls that raised, in all rounds."""
        return sum(it.report.failed for it in self.rounds)

    @property
    def batch_sizes(self) -> list[int]:
        """Of each image."""
        return [size for it in self.rounds for size in it.report.batch_sizes]

    @property
    def waits(self) -> list[float]:
        """Of each image, seconds."""
        return [wait for it in self.rounds for wait in it.report.waits]

    @property
    def causes(self) -> dict[str, float]:
        """Why passes had no more images: the share of the images of each cause."""
        found = Counter(cause for it in self.rounds for cause in it.report.causes)
        return {cause: number / found.total() for cause, number in found.most_common()}

    @property
    def others(self) -> float:
        """The share of the machine that others took: the rounds' mean."""
        return fmean(it.others for it in self.rounds)

    def latency(self, share: float) -> float:
        """A percentile, seconds."""
        return percentile(self.latencies, share)

    def cost(self) -> dict[str, float]:
        """CPU milliseconds an image by process, of all rounds."""
        roles = {role for it in self.rounds for role in it.cpu}
        return {role: sum(it.cpu.get(role, 0.0) for it in self.rounds) / max(1, self.images) * 1e3 for role in roles}

    def error(self) -> str:
        """The last one told."""
        return next((it.report.error for it in reversed(self.rounds) if it.report.error), "")


def contest(cases: Sequence[Case], rounds: int) -> list[Result]:
    """Each case once a round, after a short one that is not counted. DidNotRun when one has no answer at all."""
    results = [Result(case) for case in cases]
    for case in cases:
        case.subject.run(replace(case.order, seconds=min(WARM_UP_SECONDS, case.order.seconds)))
    for _ in range(rounds):
        for result in results:
            result.rounds.append(result.case.subject.run(result.case.order))
    for result in results:
        if not result.images:
            raise DidNotRun(f"{result.case.name}: no answer: {result.error()}")
    return results

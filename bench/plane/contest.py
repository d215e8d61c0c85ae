"""Run cases in interleaved rounds, so that other load of the machine affects all of them alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, median

from bench.plane.load import Workload, percentile
from bench.plane.subject import DidNotRun, Measured, Subject

WARM_UP_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Case:
    """One service under one workload."""

    service: str
    subject: Subject
    workload: Workload

    @property
    def name(self) -> str:
        """For the table of costs."""
        workload = self.workload
        pace = f"{workload.rate:g}/s" if workload.rate else f"{workload.in_flight} in flight"
        return f"{self.service}: {workload.call} {workload.kind}, {pace}"


@dataclass(slots=True)
class Result:
    """A case's rounds."""

    case: Case
    rounds: list[Measured] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Images a second: the rounds' median."""
        return median(measured.report.rate for measured in self.rounds)

    @property
    def images(self) -> int:
        """Of all rounds."""
        return sum(measured.report.images for measured in self.rounds)

    @property
    def latencies(self) -> list[float]:
        """Seconds, of all rounds."""
        return [latency for measured in self.rounds for latency in measured.report.latencies]

    @property
    def failed(self) -> int:
        """Calls that raised, in all rounds."""
        return sum(measured.report.failed for measured in self.rounds)

    @property
    def batch_sizes(self) -> list[int]:
        """Of each image."""
        return [size for measured in self.rounds for size in measured.report.batch_sizes]

    @property
    def waits(self) -> list[float]:
        """Of each image, seconds."""
        return [wait for measured in self.rounds for wait in measured.report.waits]

    @property
    def causes(self) -> dict[str, float]:
        """Why passes had no more images: the share of the images of each cause."""
        counts = Counter(cause for measured in self.rounds for cause in measured.report.causes)
        return {cause: number / counts.total() for cause, number in counts.most_common()}

    @property
    def others(self) -> float:
        """The share of the machine that others took: the rounds' mean."""
        return fmean(measured.others for measured in self.rounds)

    def latency(self, share: float) -> float:
        """A percentile, seconds."""
        return percentile(self.latencies, share)

    def cost(self) -> dict[str, float]:
        """CPU milliseconds an image by process, of all rounds."""
        roles = {role for measured in self.rounds for role in measured.cpu}
        return {
            role: sum(measured.cpu.get(role, 0.0) for measured in self.rounds) / max(1, self.images) * 1e3
            for role in roles
        }

    def error(self) -> str:
        """Return the last error message."""
        return next((measured.report.error for measured in reversed(self.rounds) if measured.report.error), "")


def contest(cases: Sequence[Case], rounds: int) -> list[Result]:
    """Run each case once per round, after a short warm-up. Raises DidNotRun when a case has no response at all."""
    results = [Result(case) for case in cases]
    for case in cases:
        case.subject.run(replace(case.workload, seconds=min(WARM_UP_SECONDS, case.workload.seconds)))
    for _ in range(rounds):
        for result in results:
            result.rounds.append(result.case.subject.run(result.case.workload))
    for result in results:
        if not result.images:
            raise DidNotRun(f"{result.case.name}: no answer: {result.error()}")
    return results

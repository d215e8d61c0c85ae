"""The rows that compare images a second: services, images in flight and targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bench.plane.contest import Case, Result
from bench.plane.load import Workload
from bench.plane.rows.bench import Bench
from bench.plane.services import ECHO, IN_REDIS, MOSEC, OURS, SERVICES, TWO
from bench.plane.table import Line

BOTH: Final = (64, 256)
SHALLOW: Final = (64,)
DEEP: Final = (256,)
ONE: Final = (32,)


@dataclass(frozen=True, slots=True)
class Entry:
    """A service in a row; each number of images in flight is a case of its own."""

    service: str
    call: str
    in_flight: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Aim:
    """Our rate as a share of the peer's, each at its best."""

    ours: str
    peer: str
    """The beginning of its name: of mosec ×1 and mosec ×2 the faster one counts."""
    share: float | None


@dataclass(frozen=True, slots=True)
class Rates:
    """A row."""

    what: str
    kind: str
    entries: tuple[Entry, ...]
    aims: tuple[Aim, ...]

    def __call__(self, bench: Bench) -> None:
        """Run the row."""
        with bench.running({entry.service: SERVICES[entry.service] for entry in self.entries}) as subjects:
            cases = [
                Case(entry.service, subjects[entry.service], Workload(self.kind, entry.call, number, bench.seconds))
                for entry in self.entries
                if entry.service in subjects
                for number in entry.in_flight
            ]
            results = bench.contest(cases)
        for aim in self.aims:
            bench.lines += self._compare(aim, results)

    def _compare(self, aim: Aim, results: Sequence[Result]) -> list[Line]:
        """Compare at equal numbers in flight, for information, and each at its best."""
        ours = [result for result in results if result.case.service == aim.ours]
        peers = [result for result in results if result.case.service.startswith(aim.peer)]
        if not ours or not peers:
            return []
        numbers = sorted(
            {result.case.workload.in_flight for result in ours} & {result.case.workload.in_flight for result in peers}
        )
        lines = []
        for number in numbers if len(numbers) > 1 else ():
            same = [
                _best([result for result in side if result.case.workload.in_flight == number]) for side in (ours, peers)
            ]
            lines.append(self._line(aim, *same, is_final=False))
        return [*lines, self._line(aim, _best(ours), _best(peers), is_final=True)]

    def _line(self, aim: Aim, ours: Result, peer: Result, *, is_final: bool) -> Line:
        numbers = [result.case.workload.in_flight for result in (ours, peer)]
        pace = f"{numbers[0]} in flight" if numbers[0] == numbers[1] else f"{numbers[0]} and {numbers[1]} in flight"
        best = ", each at its best" if is_final else ""
        return Line(
            f"{self.what}: {aim.ours} / {peer.case.service}, {pace}{best}",
            f"{ours.rate:,.0f}/s", f"{peer.rate:,.0f}/s", ours.rate / peer.rate,
            aim.share if is_final else None,
        )  # fmt: skip


def _best(results: Sequence[Result]) -> Result:
    return max(results, key=lambda result: result.rate)


MAP_RAW: Final = Rates(
    "map, pixels in, float32 out",
    "raw",
    (
        Entry(OURS, "map", BOTH),
        Entry(f"{MOSEC} ×1", "single", BOTH),
        Entry(f"{MOSEC} ×2", "single", BOTH),
        Entry(ECHO, "map", BOTH),
    ),
    (
        Aim(OURS, MOSEC, 0.75),
        Aim(OURS, ECHO, 0.65),
    ),
)
MAP_REDIS: Final = Rates(
    "map, pixels in, float32 out",
    "raw",
    (
        Entry(IN_REDIS, "map", DEEP),
        Entry(f"{MOSEC} ×1", "single", SHALLOW),
        Entry(f"{MOSEC} ×2", "single", SHALLOW),
    ),
    (Aim(IN_REDIS, MOSEC, 0.42),),
)
"""By itself, because the system goes on writing its append-only file during the turns of others."""
MAP_JPEG: Final = Rates(
    "map, JPEG of 224×224 in, uint8 out",
    "jpeg",
    (
        Entry(OURS, "map", BOTH),
        Entry(TWO, "map", (256, 1024)),
        Entry(f"{MOSEC} ×1", "single", BOTH),
        Entry(f"{MOSEC} ×2", "single", BOTH),
    ),
    (Aim(TWO, MOSEC, 1.3), Aim(OURS, MOSEC, None), Aim(OURS, f"{MOSEC} ×1", None)),
)
MAP_PHOTO: Final = Rates(
    "map, JPEG of a whole photo in, uint8 out",
    "photo",
    (Entry(OURS, "map", BOTH), Entry(f"{MOSEC} ×2", "single", BOTH)),
    (Aim(OURS, MOSEC, None),),
)
"""For information: both spend nearly all of their time in the same decoder."""
UNARY: Final = Rates(
    "an image a call",
    "raw",
    (
        Entry(OURS, "single", ONE),
        Entry(f"{MOSEC} ×1", "single", ONE),
        Entry(f"{MOSEC} ×2", "single", ONE),
        Entry(ECHO, "single", ONE),
    ),
    (Aim(OURS, MOSEC, 0.3), Aim(OURS, f"{MOSEC} ×1", None), Aim(OURS, ECHO, None)),
)
OTHERS: Final = Rates(
    "an image a call",
    "raw",
    (
        Entry(OURS, "single", ONE),
        Entry("LitServe", "single", ONE),
        Entry("BentoML", "single", ONE),
        Entry("Celery", "single", ONE),
        Entry("Celery", "map", ONE),
    ),
    (Aim(OURS, "LitServe", None), Aim(OURS, "BentoML", None), Aim(OURS, "Celery", None)),
)
"""Separate from the rows with targets, because these peers use CPU when idle."""
RAY: Final = Rates(
    "an image a call, JPEG",
    "jpeg",
    (Entry(OURS, "single", ONE), Entry("Ray Serve", "single", ONE)),
    (Aim(OURS, "Ray Serve", None),),
)
"""By itself, because it uses a sixth of the machine when idle."""

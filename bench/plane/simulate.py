"""A small discrete simulation of the service, fed with measured CPU costs and held against measured points.

`python -m bench.plane.simulate MEASURED.json`, a file that `python -m bench.plane --json` wrote.

A job of n images passes its client, a front, Redis, a worker, a device, and all of them back. Each process takes
a + b·n seconds of CPU for it, half on the way in and half on the way back; a and b are solved from two measured points,
single images and packed ones. A process computes one thing at a time (the interpreter's lock), and on one machine all
processes share its cores. While others compute, a second of CPU takes longer than a second, since processes wait for
one another in ways that are not modelled: how much is solved from one point, pixels in packs, 128 images in flight. The
network adds half a round trip each way. Nothing else is in the model: no bandwidth, no memory, no failures.
"""

from __future__ import annotations

import argparse
import heapq
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Final

from bench.plane import measured
from bench.plane.measured import Measured, Point
from bench.plane.services import IN_REDIS, OURS

ROLES: Final = ("client", "front", "redis", "worker")
CASES: Final = ((OURS, "raw"), (IN_REDIS, "raw"), (OURS, "jpeg"))
SIZES: Final = ((1, 1, 1), (1, 1, 2), (2, 1, 2), (2, 1, 4), (4, 1, 8), (8, 1, 16), (32, 4, 100), (64, 16, 100))
"""Fronts, Redis shards, workers."""
IN_FLIGHT: Final = 128
"""Images for each worker."""
BATCH_SECONDS: Final = 0.002
IMAGE_SECONDS: Final = 0.001
ROUND_TRIPS: Final = (0.0, 0.001, 0.01, 0.05, 0.1)
SECONDS: Final = 10.0
"""Simulated, twice."""
Then = Callable[[], None]
Row = tuple[str, ...]
Table = tuple[Row, list[Row]]


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU seconds of one process."""

    job: float
    image: float

    def half(self, images: int) -> float:
        """Of one way."""
        return (self.job + self.image * images) / 2


@dataclass(frozen=True, slots=True)
class Setup:
    """What is simulated."""

    costs: Mapping[str, Cost]
    processes: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(ROLES, 1))
    """Of each role; of clients, fronts and Redis shards any number, each worker with a device of its own."""
    cores: int = 0
    """That all processes share; 0: every process has its own."""
    in_flight: int = 128
    """Images of all clients together."""
    images_a_job: int = 32
    batch: int = 8
    """Images in a pass, at most."""
    batch_seconds: float = 0.0
    image_seconds: float = 0.0
    """What the device takes."""
    round_trip: float = 0.0
    """Seconds between client and front."""
    stretch: float = 1.0
    """Seconds that a second of CPU takes while other processes compute."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a simulation found."""

    rate: float
    """Images a second."""
    latency: float
    """Seconds of a job, the mean."""
    busy: Mapping[str, float]
    """The share of time that the processes of a role compute, the mean; and devices."""


class Clock:
    """Simulated time, and what is to happen at it."""

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, int, Then]] = []
        self._number = count()

    def after(self, seconds: float, then: Then) -> None:
        """Has `then` happen so much later."""
        heapq.heappush(self._due, (self.now + seconds, next(self._number), then))

    def run(self, until: float) -> None:
        """Lets time pass."""
        while self._due and self._due[0][0] <= until:
            self.now, _, then = heapq.heappop(self._due)
            then()


class Places:
    """So many places, first come, first served: processes, or cores."""

    def __init__(self, free: float) -> None:
        self._free = free
        self._waiting: deque[Then] = deque()

    def take(self, then: Then) -> None:
        """Calls `then` once a place is had."""
        if self._free:
            self._free -= 1
            then()
        else:
            self._waiting.append(then)

    def leave(self) -> None:
        """Gives a place back."""
        if self._waiting:
            self._waiting.popleft()()
        else:
            self._free += 1


class Device:
    """Takes whatever waits as its next batch, up to a size."""

    def __init__(self, clock: Clock, setup: Setup) -> None:
        self._clock = clock
        self._setup = setup
        self._waiting: deque[tuple[int, Then]] = deque()
        self._idle = True
        self.worked = 0.0

    def put(self, images: int, then: Then) -> None:
        """A piece of a job, no larger than a batch."""
        self._waiting.append((images, then))
        if self._idle:
            self._next()

    def _next(self) -> None:
        room, taken = self._setup.batch, []
        while self._waiting and self._waiting[0][0] <= room:
            images, then = self._waiting.popleft()
            room -= images
            taken.append(then)
        self._idle = not taken
        if taken:
            seconds = self._setup.batch_seconds + self._setup.image_seconds * (self._setup.batch - room)
            self.worked += seconds
            self._clock.after(seconds, lambda: self._done(taken))

    def _done(self, taken: list[Then]) -> None:
        for then in taken:
            then()
        self._next()


class Simulation:
    """A closed loop: as many jobs in flight as make the images."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._clock = Clock()
        self._cores = Places(setup.cores or float("inf"))
        self._processes = {role: [Places(1) for _ in range(setup.processes[role])] for role in ROLES}
        self._devices = [Device(self._clock, setup) for _ in range(setup.processes["worker"])]
        self._turns = count()
        self._worked = dict.fromkeys(ROLES, 0.0)
        self._computing = 0
        self._done = 0
        self._latencies = 0.0

    def run(self, seconds: float) -> Outcome:
        """What comes of it in the second half of twice that time, in which it has settled."""
        for _ in range(max(1, self._setup.in_flight // self._setup.images_a_job)):
            self._clock.after(0.0, self._start)
        self._clock.run(seconds)
        done, latencies, worked = self._done, self._latencies, dict(self._worked)
        devices = sum(it.worked for it in self._devices)
        self._clock.run(2 * seconds)
        jobs = self._done - done
        busy = {role: (self._worked[role] - worked[role]) / seconds / len(self._processes[role]) for role in ROLES}
        busy["device"] = (sum(it.worked for it in self._devices) - devices) / seconds / len(self._devices)
        latency = (self._latencies - latencies) / jobs if jobs else float("nan")
        return Outcome(jobs * self._setup.images_a_job / seconds, latency, busy)

    def _start(self) -> None:
        turn, began = next(self._turns), self._clock.now
        way = [("client", 0.0), ("front", self._setup.round_trip / 2), ("redis", 0.0), ("worker", 0.0)]
        back = [("worker", 0.0), ("redis", 0.0), ("front", 0.0), ("client", self._setup.round_trip / 2)]

        def ended() -> None:
            self._done += 1
            self._latencies += self._clock.now - began
            self._start()

        self._pass(turn, way, lambda: self._compute(turn, lambda: self._pass(turn, back, ended)))

    def _pass(self, turn: int, way: list[tuple[str, float]], then: Then) -> None:
        """Through the processes of `way`, each after its time on the network."""
        if not way:
            then()
            return
        (role, network), rest = way[0], way[1:]
        processes = self._processes[role]
        process = processes[turn % len(processes)]
        seconds = self._setup.costs[role].half(self._setup.images_a_job)

        def finished() -> None:
            self._computing -= 1
            self._worked[role] += seconds
            self._cores.leave()
            process.leave()
            self._pass(turn, rest, then)

        def compute() -> None:
            slower = self._setup.stretch if self._computing else 1.0
            self._computing += 1
            self._clock.after(slower * seconds, finished)

        def begin() -> None:
            process.take(lambda: self._cores.take(compute))

        self._clock.after(network, begin)

    def _compute(self, turn: int, then: Then) -> None:
        """On the worker's device, in pieces."""
        device = self._devices[turn % len(self._devices)]
        whole, rest = divmod(self._setup.images_a_job, self._setup.batch)
        pieces = [self._setup.batch] * whole + [rest] * bool(rest)
        left = len(pieces)

        def one() -> None:
            nonlocal left
            left -= 1
            if not left:
                then()

        for piece in pieces:
            device.put(piece, one)


def solved(single: Point, packed: Point) -> dict[str, Cost]:
    """Costs a job and an image from those of single images and of packed ones."""
    costs = {}
    for role in ROLES:
        one, many = single.cpu.get(role, 0.0), packed.cpu.get(role, 0.0)
        job = max(0.0, (one - many) / (1 - 1 / packed.images_a_job))
        costs[role] = Cost(job, many - job / packed.images_a_job)
    return costs


def base(found: Measured, service: str, kind: str) -> Setup | None:
    """One machine's setup with a service's costs; none where its points are missing."""
    single = found.find(service, kind, "single", 32) or found.find(OURS, kind, "single", 32)
    packed = found.find(service, kind, "map", 128)
    if single is None or packed is None:
        return None
    return Setup(solved(single, packed), cores=found.cores, images_a_job=packed.images_a_job)


def stretch(found: Measured) -> float:
    """Solved from pixels in packs, 128 in flight, by halving."""
    setup, point = base(found, OURS, "raw"), found.find(OURS, "raw", "map", 128)
    if setup is None or point is None:
        raise SystemExit("the file has no points of the rows map-raw and unary")
    low, high = 1.0, 4.0
    for _ in range(12):
        middle = (low + high) / 2
        faster = Simulation(replace(setup, stretch=middle)).run(SECONDS).rate > point.rate
        low, high = (middle, high) if faster else (low, middle)
    return low


def checks(found: Measured) -> Iterator[tuple[str, Setup, Point]]:
    """The measured points that the model is held against, and how it is set up for each."""
    slower = stretch(found)
    for service, kind in CASES:
        if (setup := base(found, service, kind)) is None:
            continue
        setup = replace(setup, stretch=slower)
        for call, number in (("single", 1), ("single", 32), ("map", 32), ("map", 128)):
            if point := found.find(service, kind, call, number):
                yield (
                    f"{service}, {kind}: {call}, {number} in flight",
                    replace(setup, in_flight=number, images_a_job=point.images_a_job), point,
                )  # fmt: skip
        if kind == "jpeg":
            paced = replace(setup, batch_seconds=BATCH_SECONDS, image_seconds=IMAGE_SECONDS)
            for workers, name in ((1, "Convlens, a paced device"), (2, "Convlens, two paced devices")):
                if point := found.find(name, kind, "map", 128):
                    yield name, replace(paced, processes=setup.processes | {"worker": workers}), point


def capacities(found: Measured) -> Table:
    """What one process of each role carries with a core of its own, by service and kind, and which is the least."""
    rows: list[Row] = []
    for service, kind in CASES:
        setup, point = base(found, service, kind), found.find(service, kind, "map", 128)
        if setup is not None and point is not None:
            most = {role: 1 / point.cpu[role] if point.cpu.get(role) else float("inf") for role in ROLES}
            rows.append((f"{service}, {kind}", f"{point.bytes_an_image / 1e3:,.0f}",
                         *(f"{most[role]:,.0f}" for role in ROLES), min(most, key=most.__getitem__)))  # fmt: skip
    return ("images/s of one process, a core each", "kB an image", *ROLES, "first"), rows


def agreement(found: Measured) -> Table:
    """Measured points beside simulated ones."""
    rows: list[Row] = []
    for name, setup, point in checks(found):
        outcome = Simulation(setup).run(SECONDS)
        latency = (f"{point.median * 1e3:.1f}", f"{outcome.latency * 1e3:.1f}") if point.median else ("", "")
        ratio = f"{outcome.rate / point.rate:.2f}"
        rows.append((name, f"{point.rate:,.0f}", f"{outcome.rate:,.0f}", ratio, *latency))
    return ("", "images/s measured", "simulated", "ratio", "median ms measured", "mean ms simulated"), rows


def larger(found: Measured) -> Table:
    """What follows for more processes, a core each, every worker at a device's pace: who is busy, who is full."""
    rows: list[Row] = []
    slower = stretch(found)
    for service, kind in CASES:
        if (setup := base(found, service, kind)) is None:
            continue
        for fronts, shards, workers in SIZES:
            processes = {"client": workers, "front": fronts, "redis": shards, "worker": workers}
            outcome = Simulation(
                replace(setup, processes=processes, cores=0, in_flight=IN_FLIGHT * workers, stretch=slower,
                        batch_seconds=BATCH_SECONDS, image_seconds=IMAGE_SECONDS)
            ).run(SECONDS)  # fmt: skip
            busy = {role: share * (slower if role in ROLES else 1.0) for role, share in outcome.busy.items()}
            full = max(busy, key=busy.__getitem__)
            rows.append((f"{service}, {kind}: {fronts} fronts, {shards} Redis, {workers} workers",
                         f"{outcome.rate:,.0f}", f"{busy['device']:.0%}", f"{full} {busy[full]:.0%}"))  # fmt: skip
    return ("a device of 2 ms a batch of 8 and 1 ms an image each", "images/s", "devices busy", "busiest"), rows


def far(found: Measured) -> Table:
    """What a network's round trip costs, with so much in flight."""
    rows: list[Row] = []
    setup = base(found, OURS, "jpeg")
    if setup is not None:
        paced = replace(
            setup, cores=0, stretch=stretch(found), batch_seconds=BATCH_SECONDS, image_seconds=IMAGE_SECONDS
        )
        for seconds in ROUND_TRIPS:
            rates = [Simulation(replace(paced, round_trip=seconds, in_flight=number)).run(SECONDS).rate for number in
                     (32, 128, 512)]  # fmt: skip
            rows.append((f"{seconds * 1e3:g} ms", *(f"{rate:,.0f}" for rate in rates)))
    return ("round trip", "images/s, 32 in flight", "128", "512"), rows


def main() -> None:
    """Prints the tables of docs/scaling.md."""
    parser = argparse.ArgumentParser("python -m bench.plane.simulate", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("measured", type=Path)
    found = measured.read(parser.parse_args().measured)
    print(f"a second of CPU takes {stretch(found):.2f} s while others compute\n")
    for head, rows in (capacities(found), agreement(found), larger(found), far(found)):
        lines = (head, ("---",) * len(head), *rows)
        print("\n".join(f"| {' | '.join(line)} |" for line in lines), end="\n\n")


if __name__ == "__main__":
    main()

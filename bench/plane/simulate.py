"""A small discrete simulation of the service, fed with measured CPU costs and held against measured points.

`python -m bench.plane.simulate MEASURED.json`, a file that `python -m bench.plane --json` wrote.

A job of n images passes its client, a front, Redis, a worker, a device, and all of them back. Each process takes
a + b·n seconds of CPU for it, half on the way in and half on the way back; a and b are solved from two measured points,
single images and packed ones. A process computes one thing at a time (the interpreter's lock), and on one machine all
processes share its cores. The network adds half a round trip each way. Waking somebody up takes a time in which nobody
computes, once a hop, solved from the latency of one call at a time. Nothing else is in the model: no bandwidth, no
memory, no failures.
"""

from __future__ import annotations

import argparse
import heapq
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Final

from bench.plane import measured
from bench.plane.measured import Measured, Point

ROLES: Final = ("client", "front", "redis", "worker")
HOPS: Final = 8
"""Handings-over of one job."""
Then = Callable[[], None]


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
    wake: float = 0.0
    """Seconds of one handing-over."""


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
            self._worked[role] += seconds
            self._cores.leave()
            process.leave()
            self._pass(turn, rest, then)

        def begin() -> None:
            process.take(lambda: self._cores.take(lambda: self._clock.after(seconds, finished)))

        self._clock.after(network + self._setup.wake, begin)

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
        costs[role] = Cost(job, max(0.0, one - job))
    return costs


def setups(found: Measured) -> list[tuple[str, Setup, Point]]:
    """The measured points that the model is held against, and how it is set up for each."""
    made = []
    for service, kind in (("Convlens", "raw"), ("Convlens, payloads in Redis", "raw"), ("Convlens", "jpeg")):
        single = found.find(service, kind, "single", 32) or found.find("Convlens", kind, "single", 32)
        packed = found.find(service, kind, "map", 128)
        if single is None or packed is None:
            continue
        base = Setup(solved(single, packed), cores=found.cores)
        alone = found.find(service, kind, "single", 1)
        if alone is not None:
            spent = sum(cost.job + cost.image for cost in base.costs.values())
            base = replace(base, wake=max(0.0, alone.median - spent) / HOPS)
        made += [
            (f"{service}, {kind}: {call}, {number} in flight",
             replace(base, in_flight=number, images_a_job=point.images_a_job), point)
            for call, number in (("single", 1), ("single", 32), ("map", 32), ("map", 128))
            if (point := found.find(service, kind, call, number))
        ]  # fmt: skip
        if kind == "jpeg":
            paced = replace(base, batch_seconds=0.002, image_seconds=0.001, images_a_job=packed.images_a_job)
            made += [
                (name, replace(paced, processes=base.processes | {"worker": workers}), point)
                for workers, name in ((1, "Convlens, a paced device"), (2, "Convlens, two paced devices"))
                if (point := found.find(name, kind, "map", 128))
            ]
    return made


def main() -> None:
    """Prints what is measured beside what is simulated, and what follows for other setups."""
    parser = argparse.ArgumentParser("python -m bench.plane.simulate", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("measured", type=Path)
    found = measured.read(parser.parse_args().measured)
    for name, setup, point in setups(found):
        outcome = Simulation(setup).run(5.0)
        print(f"{name:60} {point.rate:8.0f} {outcome.rate:8.0f} {outcome.rate / point.rate:6.2f}"
              f"  {point.median * 1e3:8.1f} {outcome.latency * 1e3:8.1f}")  # fmt: skip


if __name__ == "__main__":
    main()

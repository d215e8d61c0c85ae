"""A discrete simulation of jobs on their way through the service.

First come, first served everywhere; a device takes whatever waits, as the batcher does. See simulate.py for the model.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Final

ROLES: Final = ("client", "server", "redis", "worker")
Then = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU seconds of one process."""

    job: float
    image: float

    def half(self, images: int) -> float:
        """Return the seconds of a job on its way in or back."""
        return (self.job + self.image * images) / 2


@dataclass(frozen=True, slots=True)
class Setup:
    """The parameters of a simulation."""

    costs: Mapping[str, Cost]
    processes: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(ROLES, 1))
    """The number of processes of each role; each worker has its own device."""
    cores: int = 0
    """That all processes share; 0: every process has its own."""
    in_flight: int = 256
    """Images of all clients together."""
    images_a_job: int = 64
    batch: int = 8
    """Images in a pass, at most."""
    batch_seconds: float = 0.0
    image_seconds: float = 0.0
    """What the device takes."""
    round_trip: float = 0.0
    """Seconds between client and server."""
    stretch: float = 1.0
    """Seconds that a second of CPU takes while other processes compute."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a simulation."""

    rate: float
    """Images a second."""
    latency: float
    """Seconds of a job, the mean."""
    busy: Mapping[str, float]
    """The share of time that the processes of a role compute, the mean; and devices."""


class Clock:
    """Simulated time and its scheduled events."""

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, int, Then]] = []
        self._number = count()

    def after(self, seconds: float, then: Then) -> None:
        """Schedule `then`."""
        heapq.heappush(self._due, (self.now + seconds, next(self._number), then))

    def run(self, until: float) -> None:
        """Run everything that is due until a time."""
        while self._due and self._due[0][0] <= until:
            self.now, _, then = heapq.heappop(self._due)
            then()


class Slots:
    """A number of slots, first come, first served: processes, or cores."""

    def __init__(self, free: float) -> None:
        self._free = free
        self._waiting: deque[Then] = deque()

    def acquire(self, then: Then) -> None:
        """Call `then` once a slot is acquired."""
        if self._free:
            self._free -= 1
            then()
        else:
            self._waiting.append(then)

    def release(self) -> None:
        """Release a slot."""
        if self._waiting:
            self._waiting.popleft()()
        else:
            self._free += 1


class Device:
    """Computes the waiting images as the next batch, up to a size."""

    def __init__(self, clock: Clock, setup: Setup) -> None:
        self._clock = clock
        self._setup = setup
        self._waiting: deque[tuple[int, Then]] = deque()
        self._idle = True
        self.worked = 0.0

    def put(self, images: int, then: Then) -> None:
        """Queue a piece of a job, no larger than a batch."""
        self._waiting.append((images, then))
        if self._idle:
            self._next()

    def _next(self) -> None:
        free, batch = self._setup.batch, []
        while self._waiting and self._waiting[0][0] <= free:
            images, then = self._waiting.popleft()
            free -= images
            batch.append(then)
        self._idle = not batch
        if batch:
            seconds = self._setup.batch_seconds + self._setup.image_seconds * (self._setup.batch - free)
            self.worked += seconds
            self._clock.after(seconds, lambda: self._done(batch))

    def _done(self, batch: list[Then]) -> None:
        for then in batch:
            then()
        self._next()


class Simulation:
    """A closed loop: as many jobs in flight as make the images."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._clock = Clock()
        self._cores = Slots(setup.cores or float("inf"))
        self._processes = {role: [Slots(1) for _ in range(setup.processes[role])] for role in ROLES}
        self._devices = [Device(self._clock, setup) for _ in range(setup.processes["worker"])]
        self._turns = count()
        self._worked = dict.fromkeys(ROLES, 0.0)
        self._computing = 0
        self._done = 0
        self._latencies = 0.0

    def run(self, seconds: float) -> Outcome:
        """Simulate twice that time and return the outcome of its second half, which is steady."""
        for _ in range(max(1, self._setup.in_flight // self._setup.images_a_job)):
            self._clock.after(0.0, self._start)
        self._clock.run(seconds)
        done, latencies, worked = self._done, self._latencies, dict(self._worked)
        devices = sum(device.worked for device in self._devices)
        self._clock.run(2 * seconds)
        jobs = self._done - done
        busy = {role: (self._worked[role] - worked[role]) / seconds / len(self._processes[role]) for role in ROLES}
        busy["device"] = (sum(device.worked for device in self._devices) - devices) / seconds / len(self._devices)
        latency = (self._latencies - latencies) / jobs if jobs else float("nan")
        return Outcome(jobs * self._setup.images_a_job / seconds, latency, busy)

    def _start(self) -> None:
        turn, began = next(self._turns), self._clock.now
        way = [("client", 0.0), ("server", self._setup.round_trip / 2), ("redis", 0.0), ("worker", 0.0)]
        back = [("worker", 0.0), ("redis", 0.0), ("server", 0.0), ("client", self._setup.round_trip / 2)]

        def finish() -> None:
            self._done += 1
            self._latencies += self._clock.now - began
            self._start()

        self._pass(turn, way, lambda: self._compute(turn, lambda: self._pass(turn, back, finish)))

    def _pass(self, turn: int, way: list[tuple[str, float]], then: Then) -> None:
        """Pass a job through the processes of `way`, each after its time on the network."""
        if not way:
            then()
            return
        (role, network), rest = way[0], way[1:]
        processes = self._processes[role]
        process = processes[turn % len(processes)]
        seconds = self._setup.costs[role].half(self._setup.images_a_job)

        def leave() -> None:
            self._computing -= 1
            self._cores.release()
            process.release()
            self._pass(turn, rest, then)

        def compute() -> None:
            elapsed = seconds * (self._setup.stretch if self._computing else 1.0)
            self._computing += 1
            self._worked[role] += elapsed
            self._clock.after(elapsed, leave)

        def start() -> None:
            process.acquire(lambda: self._cores.acquire(compute))

        self._clock.after(network, start)

    def _compute(self, turn: int, then: Then) -> None:
        """Compute a job on its worker's device, in pieces."""
        device = self._devices[turn % len(self._devices)]
        whole, rest = divmod(self._setup.images_a_job, self._setup.batch)
        pieces = [self._setup.batch] * whole + [rest] * bool(rest)
        left = len(pieces)

        def finish_piece() -> None:
            nonlocal left
            left -= 1
            if not left:
                then()

        for piece in pieces:
            device.put(piece, finish_piece)

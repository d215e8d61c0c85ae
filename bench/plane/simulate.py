"""The simulation of the service, with measured CPU costs, compared with measured points.

`python -m bench.plane.simulate MEASURED.json`, a file that `python -m bench.plane --json` wrote.

A job of n images passes its client, a server, Redis, a worker, a device, and all of them back. Each process takes
a + b·n seconds of CPU for it, half on the way in and half on the way back; a and b are solved from two measured points,
single images and packed ones. A process computes one thing at a time (the interpreter's lock), and on one machine all
processes share its cores. While others compute, a second of CPU takes longer than a second, since processes wait for
one another in ways that are not modelled: how much is solved from one point, pixels in packs, 256 images in flight. The
network adds half a round trip each way. Nothing else is in the model: no bandwidth, no memory, no failures.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from bench.plane import measured
from bench.plane.measured import Measured, Point
from bench.plane.rows.device import BATCH_SECONDS, IMAGE_SECONDS, ONE, TWO, WIDE
from bench.plane.services import IN_REDIS, OURS
from bench.plane.simulation import ROLES, Cost, Setup, Simulation

CASES: Final = ((OURS, "raw"), (IN_REDIS, "raw"), (OURS, "jpeg"))
SIZES: Final = ((1, 1, 1), (1, 1, 2), (2, 1, 2), (8, 1, 8), (45, 9, 100), (90, 9, 100))
"""Servers, Redis shards, workers."""
IN_FLIGHT: Final = 256
"""Images for each worker."""
BATCH: Final = 32
"""Images in a pass, where it is not the default."""
ROUND_TRIPS: Final = (0.0, 0.001, 0.01, 0.05, 0.1)
SECONDS: Final = 10.0
"""Simulated, twice."""
Row = tuple[str, ...]
Table = tuple[Row, list[Row]]


def solve_costs(single: Point, packed: Point) -> dict[str, Cost]:
    """Solve the costs of a job and an image from single images and bundled ones."""
    costs = {}
    for role in ROLES:
        one, many = single.cpu.get(role, 0.0), packed.cpu.get(role, 0.0)
        job = max(0.0, (one - many) / (1 - 1 / packed.images_a_job))
        costs[role] = Cost(job, many - job / packed.images_a_job)
    return costs


def base_setup(measurements: Measured, service: str, kind: str) -> Setup | None:
    """Return one machine's setup with a service's costs, or None where its points are missing."""
    single = measurements.find(service, kind, "single", 32) or measurements.find(OURS, kind, "single", 32)
    packed = measurements.find(service, kind, "map", 256)
    if single is None or packed is None:
        return None
    return Setup(solve_costs(single, packed), cores=measurements.cores, images_a_job=packed.images_a_job)


def fit_stretch(measurements: Measured) -> float:
    """Fit the stretch to bundled pixels, 256 in flight, by bisection."""
    setup, point = base_setup(measurements, OURS, "raw"), measurements.find(OURS, "raw", "map", 256)
    if setup is None or point is None:
        raise SystemExit("the file has no points of the rows map-raw and unary")
    low, high = 1.0, 4.0
    for _ in range(12):
        middle = (low + high) / 2
        faster = Simulation(replace(setup, stretch=middle)).run(SECONDS).rate > point.rate
        low, high = (middle, high) if faster else (low, middle)
    return low


def list_checks(measurements: Measured) -> Iterator[tuple[str, Setup, Point]]:
    """Yield the measured points with which the simulation is compared, and the setup of each."""
    stretch = fit_stretch(measurements)
    for service, kind in CASES:
        if (setup := base_setup(measurements, service, kind)) is None:
            continue
        setup = replace(setup, stretch=stretch)
        for call, number in (("single", 1), ("single", 32), ("map", 64), ("map", 256)):
            if point := measurements.find(service, kind, call, number):
                yield (
                    f"{service}, {kind}: {call}, {number} in flight",
                    replace(setup, in_flight=number, images_a_job=point.images_a_job), point,
                )  # fmt: skip
        if (service, kind) == (OURS, "jpeg"):
            paced = replace(setup, batch_seconds=BATCH_SECONDS, image_seconds=IMAGE_SECONDS)
            for name, workers, batch in ((ONE, 1, setup.batch), (WIDE, 1, BATCH), (TWO, 2, setup.batch)):
                if point := measurements.find(name, kind, "map", 256):
                    yield name, replace(paced, batch=batch, processes={**setup.processes, "worker": workers}), point


def capacities(measurements: Measured) -> Table:
    """Return the rate of one process of each role with its own core, by service and kind."""
    rows: list[Row] = []
    for service, kind in CASES:
        setup, point = base_setup(measurements, service, kind), measurements.find(service, kind, "map", 256)
        if setup is not None and point is not None:
            most = {role: 1 / point.cpu[role] if point.cpu.get(role) else float("inf") for role in ROLES}
            rows.append((f"{service}, {kind}", f"{point.bytes_an_image / 1e3:,.0f}",
                         *(f"{most[role]:,.0f}" for role in ROLES), min(most, key=most.__getitem__)))  # fmt: skip
    return ("images/s of one process, a core each", "kB an image", *ROLES, "first"), rows


def parts(measurements: Measured) -> Table:
    """Return the cost of a job and of an image for each process."""
    rows: list[Row] = []
    for service, kind in CASES:
        if (setup := base_setup(measurements, service, kind)) is not None:
            each = [f"{cost.job * 1e3:.2f} + {cost.image * 1e3:.2f}·n" for cost in map(setup.costs.__getitem__, ROLES)]
            rows.append((f"{service}, {kind}", *each))
    return ("CPU ms of a job of n images", *ROLES), rows


def agreement(measurements: Measured) -> Table:
    """Return measured points beside simulated ones."""
    rows: list[Row] = []
    for name, setup, point in list_checks(measurements):
        outcome = Simulation(setup).run(SECONDS)
        latency = (f"{point.median * 1e3:.1f}", f"{outcome.latency * 1e3:.1f}") if point.median else ("", "")
        ratio = f"{outcome.rate / point.rate:.2f}"
        rows.append((name, f"{point.rate:,.0f}", f"{outcome.rate:,.0f}", ratio, *latency))
    return ("", "images/s measured", "simulated", "ratio", "median ms measured", "mean ms simulated"), rows


def larger_setups(measurements: Measured) -> Table:
    """Return the rates of more processes with a core each and paced devices, and the busiest role."""
    rows: list[Row] = []
    stretch = fit_stretch(measurements)
    for service, kind in CASES:
        if (setup := base_setup(measurements, service, kind)) is None:
            continue
        for servers, shards, workers in SIZES:
            processes = {"client": workers, "server": servers, "redis": shards, "worker": workers}
            outcome = Simulation(
                replace(setup, processes=processes, cores=0, batch=BATCH, in_flight=IN_FLIGHT * workers,
                        stretch=stretch, batch_seconds=BATCH_SECONDS, image_seconds=IMAGE_SECONDS)
            ).run(SECONDS)  # fmt: skip
            busy = outcome.busy
            full = max(busy, key=busy.__getitem__)
            rows.append((f"{service}, {kind}: {servers} servers, {shards} Redis, {workers} workers",
                         f"{outcome.rate:,.0f}", f"{busy['device']:.0%}", f"{full} {busy[full]:.0%}"))  # fmt: skip
    return ("a device of 2 ms a batch of 32 and 1 ms an image each", "images/s", "devices busy", "busiest"), rows


def distances(measurements: Measured) -> Table:
    """Return the rate by round trip and images in flight."""
    rows: list[Row] = []
    if (setup := base_setup(measurements, OURS, "jpeg")) is not None:
        paced = replace(
            setup,
            cores=0,
            batch=BATCH,
            stretch=fit_stretch(measurements),
            batch_seconds=BATCH_SECONDS,
            image_seconds=IMAGE_SECONDS,
        )
        for seconds in ROUND_TRIPS:
            rates = [Simulation(replace(paced, round_trip=seconds, in_flight=number)).run(SECONDS).rate for number in
                     (32, 128, 512)]  # fmt: skip
            rows.append((f"{seconds * 1e3:g} ms", *(f"{rate:,.0f}" for rate in rates)))
    return ("round trip", "images/s, 32 in flight", "128", "512"), rows


def main() -> None:
    """Print the simulated tables of docs/scaling.md and bench/README.md."""
    parser = argparse.ArgumentParser("python -m bench.plane.simulate", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("measured", type=Path)
    measurements = measured.read(parser.parse_args().measured)
    print(f"a second of CPU takes {fit_stretch(measurements):.2f} s while others compute\n")
    for head, rows in (
        capacities(measurements),
        parts(measurements),
        agreement(measurements),
        larger_setups(measurements),
        distances(measurements),
    ):
        lines = (head, ("---",) * len(head), *rows)
        print("\n".join(f"| {' | '.join(line)} |" for line in lines), end="\n\n")


if __name__ == "__main__":
    main()

"""Results that are large, or large only while they are made, are bounded by the bytes that making them takes."""

from __future__ import annotations

import os
from pathlib import Path

import crashing_worker
import numpy as np
import pytest
from processes import until
from resource_usage import MIB, PHOTO, BackgroundCaller, peak, reset_peak, resident

from convlens.client import Activations, Client, InvalidArgument, Output

LAYERS = [f"block{block}_conv{number}" for block in (1, 2) for number in (1, 2)]


@pytest.fixture(scope="module")
def service(start_service, tmp_path_factory):
    folder = tmp_path_factory.mktemp("payloads")
    service = start_service(payload_dir=folder, max_stored_bytes=16 << 30)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(crashing_worker.__file__).parent), prepend=os.pathsep)
        service.deadly = service.start("crashing_worker", "--model", "null=null")[0]
    service.target = service.server()[1]
    return service


def test_a_result_is_made_in_slices(service, scale):
    """256 MiB of uint8, each four bytes of float32 while they are made, take the worker a fraction of it."""
    worker = service.deadly
    asked = Activations(["block1_conv1"], output=Output((2048, 2048), dtype="uint8"))
    with Client(service.target, timeout=120) as client, BackgroundCaller(service.target) as neighbour:
        before = resident(worker)
        reset_peak(worker)
        jobs = [client.submit(PHOTO + np.uint8(n), [asked], model="null") for n in range(scale)]
        for job in jobs:
            job.wait()
        grown = peak(worker) - before
    assert grown < 128 * MIB, f"{grown / MIB:.0f} MiB"
    assert not neighbour.errors
    assert neighbour.slowest < 3  # 1 s on a machine that nothing else keeps busy
    until(lambda: resident(worker) < before + 80 * MIB)  # of which the allocator may keep 64


def test_what_making_a_result_takes_is_bounded(service):
    """Of a few bytes that gigabytes of activations would be shrunk to, both numbers are told."""
    with Client(service.target) as client, pytest.raises(InvalidArgument, match="working bytes; allowed: ") as caught:
        client.visualize([PHOTO] * 64, [Activations(LAYERS, output=Output((1, 1)))], model="null")
    assert caught.value.field == "spec.visualizations"


def test_results_made_at_once_stay_within_the_budget(service, scale):
    """Jobs that take 400 MiB each do not add up."""
    worker = service.deadly
    asked = Activations(["block1_conv1"], output=Output((1, 1)))
    images = np.random.default_rng(5).integers(0, 256, (12 * scale, 32, 32, 32, 3), np.uint8)
    reset_peak(worker)
    before = resident(worker)
    with Client(service.target, timeout=120) as client, BackgroundCaller(service.target) as neighbour:
        for job in [client.submit(several, [asked], model="null") for several in images]:
            job.wait()
    assert peak(worker) - before < 1400 * MIB, f"{(peak(worker) - before) / MIB:.0f} MiB"
    assert not neighbour.errors
    assert neighbour.slowest < 3

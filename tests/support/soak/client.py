"""One client that calls until it is killed: python -m soak.client KIND TARGET, where KINDS lists the kinds."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import sys
import time
from collections.abc import Callable

import grpc
import numpy as np
from chaos.cases import TINY

from convlens.client import Activations, Client, ConvlensError, GradCAM, Saliency
from convlens.client.images import pack
from convlens.client.request import new_request, new_spec
from convlens.client.stubs import Stubs
from convlens.v1 import job_pb2

SCENE = np.random.default_rng(5).integers(0, 256, (224, 224, 3), np.uint8)
MAPS = [Saliency(), GradCAM()]
LAYER = "block1_conv1"


def steady(client: Client) -> None:
    """Fetch small maps."""
    client.visualize(TINY, MAPS, model="null", fresh=True)


def looking(client: Client) -> None:
    """Fetch real maps."""
    client.visualize(SCENE, MAPS, model="shapes", fresh=True)
    time.sleep(0.2)


def heavy(client: Client) -> None:
    """Fetch 25 MiB."""
    client.activations([TINY] * 2, LAYER, model="null")
    time.sleep(1)


def forgetful(client: Client) -> None:
    """Submit a job and never fetch its result."""
    client.submit(TINY, MAPS, model="null")


def cancelling(client: Client) -> None:
    """Cancel a job that is queued or on the device."""
    job = client.submit(TINY, MAPS, model="slow", timeout=5)
    time.sleep(random.uniform(0, 0.3))
    job.cancel()


def hanging_up(client: Client) -> None:
    """Time out before the result is there."""
    with contextlib.suppress(ConvlensError):
        client.visualize(TINY, MAPS, model="slow", timeout=random.uniform(0.01, 0.4))


def mistaken(client: Client) -> None:
    """Send invalid requests."""
    with contextlib.suppress(ConvlensError):
        client.grad_cam(TINY, layer="no such layer", model="null")
    with contextlib.suppress(ConvlensError):
        client.grad_cam(TINY[: len(TINY) // 2], model="null")


def watching(client: Client) -> None:
    """Submit a job, wait for its end and delete it."""
    job = client.submit(TINY, MAPS, model="null")
    job.wait()
    job.delete()


def slow(client: Client) -> None:
    """Read a large result slowly, over a bare channel."""
    job = client.submit([TINY] * 2, [Activations(LAYER)], model="null")
    job.wait()
    with grpc.insecure_channel(sys.argv[2]) as channel:
        for _ in itertools.islice(Stubs(channel).jobs.ReadJobResult(job_pb2.ReadJobResultRequest(id=job.id)), 60):
            time.sleep(0.05)


def crashing(client: Client) -> None:
    """Exit in the middle of a call."""
    spec = new_spec([Activations(LAYER)], model="null", scored_layer="", predictions=None, priority="low", fresh=True)
    request = new_request(spec, pack([TINY]), None)
    with grpc.insecure_channel(sys.argv[2]) as channel:
        call = Stubs(channel).visualizations.Visualize(request.serialized)
        for _ in itertools.islice(call, random.randrange(8)):
            time.sleep(0.05)
        os._exit(0)


KINDS: dict[str, Callable[[Client], None]] = {
    kind.__name__: kind
    for kind in (steady, looking, heavy, forgetful, cancelling, hanging_up, mistaken, watching, slow, crashing)
}
PAUSE = 0.1


def main(kind: str, target: str) -> None:
    """Make calls of one kind with a pause of PAUSE seconds, and reconnect after every fifty."""
    while True:
        with Client(target, timeout=30, connect_timeout=30) as client:
            for _ in range(50):
                KINDS[kind](client)
                print(kind, flush=True)
                time.sleep(PAUSE)


if __name__ == "__main__":
    main(*sys.argv[1:])

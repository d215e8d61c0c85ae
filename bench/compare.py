"""Compare checkouts by turns: python bench/compare.py [--call map] [--kind jpeg] [--rounds 50] CHECKOUT CHECKOUT…

Each checkout serves the model `null` by a `convlens up` of its own, and is called for a fraction of a second at a time,
in random order. So all meet the same disturbances, and a difference of a few per cent shows on a shared machine, where
medians of whole runs differ by more. Printed are the median time of each, per call or per image, and the median of the
ratios to the first checkout, with its standard error. All run in this environment, with its packages.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import numpy as np
from PIL import Image

PARTS: Final = ("proto", "jobs", "server", "worker", "client", "local")
READY: Final = "ready: grpc "
WARM_UP: Final = 300
NUMBER: Final = {"single": 40, "map": 1500}
"""Calls, or images, of a turn."""


def images(kind: str) -> Iterator[Any]:
    """Yield images of 224×224, no two of them equal."""
    pixels = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=50)
    for number in count():
        if kind == "jpeg":
            yield file.getvalue() + number.to_bytes(4, "big")
        else:
            image = pixels.copy()
            image[0, 0] = number & 255, number >> 8 & 255, number >> 16
            yield image


def run_client(target: str, call: str, kind: str) -> None:
    """Print the seconds of each call, or the mean of each image, for each number that is read."""
    from convlens.client import Client, Output, Saliency

    source = images(kind)
    with Client(target, timeout=60) as client:

        def run(number: int) -> list[float]:
            some = [next(source) for _ in range(number)]
            if call == "map":
                began = perf_counter()
                results = sum(1 for _ in client.map(some, [Saliency(output=Output(dtype="uint8"))]))
                return [(perf_counter() - began) / results]
            seconds = []
            for image in some:
                began = perf_counter()
                client.saliency(image, fresh=True)
                seconds.append(perf_counter() - began)
            return seconds

        for line in sys.stdin:
            print(json.dumps(run(int(line))), flush=True)


@contextmanager
def running(checkout: Path, call: str, kind: str) -> Iterator[subprocess.Popen[str]]:
    """Start a service of a checkout, and give a client of it."""
    paths = os.pathsep.join(str(checkout / part) for part in PARTS)
    env = {**os.environ, "PYTHONPATH": paths, "CONVLENS_LOG_LEVEL": "WARNING"}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        log = stack.enter_context((folder / "log").open("w+"))

        def start(*command: str) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [sys.executable, *command], cwd=folder, env=env, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip
            stack.callback(process.wait)
            stack.callback(process.terminate)
            return process

        service = start("-m", "convlens.local.up", "--port", "0", "--model", "null=null")
        line = next((line for line in service.stdout or () if line.startswith(READY)), "")
        if not line:
            raise SystemExit(f"{checkout}: convlens up ended:\n{(folder / 'log').read_text()}")
        yield start(str(Path(__file__).resolve()), "--client", line.removeprefix(READY).split()[0], call, kind)


def measure(client: subprocess.Popen[str], number: int) -> list[float]:
    """Have a client make so many calls; return their seconds."""
    assert client.stdin
    assert client.stdout
    print(number, file=client.stdin, flush=True)
    return [float(seconds) for seconds in json.loads(client.stdout.readline())]


def main() -> None:
    """Print a line for each checkout."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", nargs="+", type=Path, metavar="CHECKOUT")
    parser.add_argument("--call", choices=NUMBER, default="single")
    parser.add_argument("--kind", choices=("pixels", "jpeg"), default="pixels")
    parser.add_argument("--rounds", type=int, default=50)
    options = parser.parse_args()
    checkouts = [path.resolve() for path in options.checkouts]
    for checkout in checkouts:
        if not (checkout / "client" / "convlens").is_dir():  # or the installed packages would be measured
            parser.error(f"{checkout} is no checkout of Convlens")
    with ExitStack() as stack:
        clients = [stack.enter_context(running(checkout, options.call, options.kind)) for checkout in checkouts]
        for client in clients:
            measure(client, WARM_UP)
        times: list[list[list[float]]] = [[] for _ in clients]
        for _ in range(options.rounds):
            for place in random.sample(range(len(clients)), len(clients)):
                times[place].append(measure(clients[place], NUMBER[options.call]))
    first = [statistics.median(turn) for turn in times[0]]
    for checkout, turns in zip(checkouts, times, strict=True):
        median = statistics.median(second for turn in turns for second in turn)
        ratios = [statistics.median(turn) / base for turn, base in zip(turns, first, strict=True)]
        error = 1.25 * statistics.pstdev(ratios) / math.sqrt(len(ratios))
        print(f"{median * 1e3:7.3f} ms   × {statistics.median(ratios):.3f} ± {error:.3f}   {checkout}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--client"]:
        run_client(*sys.argv[2:])
    else:
        main()

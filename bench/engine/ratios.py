"""Measure each map against a forward pass, and against peers, on the stock VGG16 with seeded weights.

`make bench-engine`. Every row runs once a round, and rounds are interleaved. Ratios of medians are printed, which hold
on a shared machine, where milliseconds do not. Peers are processes in environments of their own, created where missing
(`.venv-peers`), with the same weights and images; the difference of their saliency to ours (1 − cosine) is printed, to
show that the maps are the same. Peers that cannot be installed are listed and skipped.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from convlens.worker.engine.network import Network
from convlens.worker.engine.plan import Activation, GradCAM, Plan, Saliency
from convlens.worker.models.stock import randomise

HERE = Path(__file__).parent
LAYER, CAM = "block4_conv2", "block5_conv3"
FIVE = Activation(LAYER, (0, 1, 2, 3, 4))
FORWARD = "forward pass (the logits of 5 classes)"
CUT = f"forward pass cut at {LAYER}, by Keras' layers"
ACTIVATIONS = f"activations of {LAYER}, 5 channels"
FOUR = "the article's four"
PLANS = {
    FORWARD: Plan((), predictions=5),
    ACTIVATIONS: Plan((FIVE,)),
    "Grad-CAM": Plan((GradCAM(CAM),), predictions=5),
    "saliency": Plan((Saliency(),), predictions=5),
    "guided saliency": Plan((Saliency("guided"),), predictions=5),
    "saliency and Grad-CAM": Plan((Saliency(), GradCAM(CAM)), predictions=5),
    FOUR: Plan((Saliency(), Saliency("guided"), GradCAM(CAM), FIVE), predictions=5),
}


@dataclass(frozen=True, slots=True)
class Bar:
    """A bound for the time of one row divided by that of another."""

    row: str
    base: str
    most: float = float("inf")
    least: float = 0.0

    def describe(self, times: dict[str, float]) -> str | None:
        """Return a line of the report; None when a row was skipped."""
        if not {self.row, self.base} <= times.keys():
            return None
        ratio = times[self.row] / times[self.base]
        bound = f"≥ {self.least:g}" if self.least else f"≤ {self.most:g}"
        verdict = "reached" if self.least <= ratio <= self.most else "missed"
        return f"{self.row} ÷ {self.base}: {ratio:.2f}, {bound} {verdict}"


BARS = (
    Bar("Keras: predict", FORWARD, least=0.97),
    Bar("OpenVINO: forward", FORWARD, least=0.9),
    Bar("saliency", FORWARD, most=2.1),
    Bar("guided saliency", FORWARD, most=2.1),
    Bar("Grad-CAM", FORWARD, most=1.05),
    Bar(ACTIVATIONS, CUT, most=1.02),
    Bar(FOUR, FORWARD, most=3.1),
    Bar(f"Xplique: {FOUR}", FOUR, least=2),
)
FIRST = """
import time; began = time.perf_counter()
import keras, numpy as np
from convlens.worker.engine.network import Network
from convlens.worker.engine.plan import Plan, Saliency
from convlens.worker.models.stock import randomise
model = keras.applications.VGG16(weights=None); randomise(model, 1)
ready = time.perf_counter()
network = Network(model, "caffe"); network.run(np.zeros((1, 224, 224, 3), np.uint8), Plan((Saliency(),)))
print(f"{ready - began:.1f} s to import and build the model, {time.perf_counter() - ready:.1f} s more to its first map")
"""


class Peer:
    """A peer's process: prints its rows, then runs the row of each line that it reads."""

    def __init__(self, name: str, weights: Path, images: Path) -> None:
        log = images.with_name(f"{name}.log").open("w")
        command = [interpreter(name), HERE / "peers" / name / "peer.py", weights, images]
        self._process = subprocess.Popen(
            list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        )
        rows = self._read_line()
        if not rows:
            raise RuntimeError(Path(log.name).read_text().strip().splitlines()[-1])
        self.rows: list[str] = json.loads(rows)

    def run(self, row: str, path: Path | None = None) -> float:
        """Run a row and return the seconds that the peer measured."""
        assert self._process.stdin
        print(row if path is None else f"{row}\t{path}", file=self._process.stdin, flush=True)
        return float(self._read_line())

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()

    def _read_line(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline()


def interpreter(name: str) -> Path:
    """Return the peer's Python, creating its environment; ours where the peer has no requirements."""
    requirements = HERE / "peers" / name / "requirements.txt"
    if not requirements.exists():
        return Path(sys.executable)
    folder = HERE.parents[1] / ".venv-peers" / name
    if not (folder / "created").exists():
        print(f"creating an environment for {name}…", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([folder / "bin" / "pip", "install", "-q", "-r", requirements], check=True)
        (folder / "created").touch()
    return folder / "bin" / "python"


def start_peers(names: list[str], model: keras.Model, prepared: np.ndarray, folder: Path) -> list[Peer]:
    """Start the peers that run; print the others."""
    arrays = {f"{layer.name}/{part}": array for layer in model.layers if layer.weights
              for part, array in zip(("kernel", "bias"), layer.get_weights(), strict=True)}  # fmt: skip
    np.savez(folder / "weights.npz", **arrays)
    np.save(folder / "images.npy", prepared)
    peers = []
    for name in names:
        try:
            peers.append(Peer(name, folder / "weights.npz", folder / "images.npy"))
        except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
            print(f"skipped: {name}: {error}")
    return peers


def main() -> None:
    """Print the table."""
    every = sorted(path.parent.name for path in HERE.glob("peers/*/peer.py"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8, help="images a pass (default: 8)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, each row once in each (default: 5)")
    parser.add_argument("--peers", nargs="*", default=every, choices=every, help="(default: all)")
    options = parser.parse_args()
    model = keras.applications.VGG16(weights=None)
    randomise(model, 1)
    network = Network(model, "caffe")
    images = np.random.default_rng(0).integers(0, 256, (options.batch, 224, 224, 3), dtype=np.uint8)
    prepared = keras.applications.vgg16.preprocess_input(images.astype(np.float32))
    rows: dict[str, Callable[[], float]] = {name: plan_timer(network, images, plan) for name, plan in PLANS.items()}
    rows[CUT] = cut_timer(model, prepared)
    differences: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        peers = start_peers(options.peers, model, prepared, Path(folder))
        ours = network.run(images, PLANS["saliency"]).maps[Saliency()][:, 0]
        for peer in peers:
            for row in peer.rows:
                rows[row] = functools.partial(peer.run, row)
                if row.endswith("saliency"):
                    peer.run(row, Path(folder) / "map.npy")
                    differences[row] = 1 - cosine(ours, np.load(Path(folder) / "map.npy"))
        times: dict[str, list[float]] = {name: [] for name in rows}
        for round_ in range(options.rounds + 1):
            for name, run in rows.items():
                seconds = run()
                if round_:  # the first compiles
                    times[name].append(seconds)
        for peer in peers:
            peer.close()
    one = float(np.median(times[FORWARD]))
    print(f"{platform.machine()}, {os.cpu_count()} cores, TensorFlow {tf.__version__}, batch {options.batch}, float32")
    print(f"{'':42} {'ms/image':>9} {'× forward':>10}   (quartiles)   1 − cosine with ours")
    for name, measured in times.items():
        low, middle, high = np.percentile(measured, (25, 50, 75))
        difference = f"   {differences[name]:.1e}" if name in differences else ""
        print(
            f"{name:42} {middle / options.batch * 1e3:9.1f} {middle / one:10.2f}"
            f"   ({low / one:.2f}–{high / one:.2f}){difference}"
        )
    print("\nThe bars, of medians:")
    medians = {name: float(np.median(seconds)) for name, seconds in times.items()}
    for line in filter(None, (bar.describe(medians) for bar in BARS)):
        print(line)
    first = subprocess.run([sys.executable, "-c", FIRST], check=True, capture_output=True, text=True)
    print(f"from a cold start, one image: {first.stdout.strip()}")


def plan_timer(network: Network, images: np.ndarray, plan: Plan) -> Callable[[], float]:
    """Return a function that measures a plan."""

    def run() -> float:
        began = time.perf_counter()
        network.run(images, plan)
        return time.perf_counter() - began

    return run


def cut_timer(model: keras.Model, prepared: np.ndarray) -> Callable[[], float]:
    """Return a function that measures the Keras layers up to LAYER, compiled; one channel is fetched."""
    cut = keras.Model(model.input, model.get_layer(LAYER).output)
    compiled = tf.function(lambda x: cut(x, training=False)[..., :1], reduce_retracing=True)

    def run() -> float:
        began = time.perf_counter()
        compiled(tf.constant(prepared)).numpy()
        return time.perf_counter() - began

    return run


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Return the cosine of two arrays, in float64."""
    a, b = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


if __name__ == "__main__":
    main()

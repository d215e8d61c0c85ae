"""Compare bfloat16 and float16 with float32, for every method: `python bench/engine/precision.py`.

On `shapes` (unseen scenes) and on the stock VGG16 with seeded weights (noise): the angle (1 − cosine) and the rank
correlation of each map with float32's, median over the images; how often both name the same class; and the
time of the article's four visualizations. float16 is compared on `shapes` alone: few processors have it, and
VGG16 would take hours on the others. TF32 is float32 to the bit where there is no GPU.
"""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from scipy.stats import rankdata

from convlens.worker.engine.explain import explain
from convlens.worker.engine.methods.integrated_gradients import IntegratedGradients, StraightPath
from convlens.worker.engine.methods.occlusion import Occlusion, SlidingPatch
from convlens.worker.engine.methods.score_cam import ScoreCAM
from convlens.worker.engine.methods.smooth_grad import MOMENTS, GaussianNoise, SmoothGrad
from convlens.worker.engine.methods.xrai import XRAI
from convlens.worker.engine.network import Network
from convlens.worker.engine.perturbation import RequestedArray
from convlens.worker.engine.plan import CAM_METHODS, SALIENCY_METHODS, Activation, GradCAM, Plan, Saliency
from convlens.worker.method_registry import METHODS
from convlens.worker.models.stock import randomise
from convlens.worker.shapes import draw
from convlens.worker.shapes.model import load

CAM = "block5_conv3"
ONE_PASS: dict[str, RequestedArray] = {
    **{name: Saliency(name, layer=CAM if row.times == "cam" else "") for name, row in SALIENCY_METHODS.items()},
    **{name: GradCAM(CAM, method=name) for name in CAM_METHODS},
    "activations": Activation("block4_conv2"),
}
MANY_PASSES: dict[str, RequestedArray] = {
    **{name: SmoothGrad(GaussianNoise(8, 0.15), name) for name in MOMENTS},
    "integrated_gradients": IntegratedGradients(StraightPath(8)),
    "xrai": XRAI(StraightPath(8)),
    "score_cam": ScoreCAM(CAM),
    "occlusion": Occlusion(SlidingPatch(56, 28, None)),
}
FEW_CHANNELS = {**MANY_PASSES, "score_cam": ScoreCAM("block1_pool")}
"""On the stock VGG16, whose block5_conv3 has 512 channels, a pass each."""
BAR = 1.8
"""The least speed-up of the article's four in bfloat16."""
FOUR = Plan((Saliency(), Saliency("guided"), GradCAM(CAM), Activation("block4_conv2", (0, 1, 2, 3, 4))), predictions=5)


def angle(a: np.ndarray, b: np.ndarray) -> float:
    """Return 1 − cosine of two maps."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    return 1 - float((a * b).sum() / max(1e-30, np.linalg.norm(a) * np.linalg.norm(b)))


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Return Spearman's correlation; equal values share their mean rank."""
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])


def compare(
    model: keras.Model, images: np.ndarray, methods: dict[str, RequestedArray], precision: str
) -> dict[str, tuple[float, float]]:
    """Return each method's median angle to float32 and rank correlation; of `the same class` the share that agrees."""
    exact = explain(Network(model, "caffe"), images, methods.values(), plan=Plan((), predictions=1))
    network = Network(model, "caffe", precision)
    rough = explain(network, images, methods.values(), exact.targets, plan=Plan((), predictions=1))
    table = {"the same class": (float(np.mean(exact.predicted == rough.predicted)), float("nan"))}
    for name, item in methods.items():
        pairs = list(zip(exact.maps[item], rough.maps[item], strict=True))
        table[name] = (
            float(np.median([angle(a, b) for a, b in pairs])),
            float(np.median([rank_correlation(a, b) for a, b in pairs])),
        )
    return table


def measure_times(model: keras.Model, images: np.ndarray, rounds: int) -> None:
    """Print the time of the article's four in both precisions, rounds interleaved."""
    times: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    networks = {precision: Network(model, "caffe", precision) for precision in times}
    for round_ in range(rounds + 1):
        for precision, network in networks.items():
            began = time.perf_counter()
            network.run(images, FOUR)
            if round_:
                times[precision].append(time.perf_counter() - began)
    exact, rough = (float(np.median(seconds)) for seconds in times.values())
    print(
        f"the article's four, batch {len(images)}: float32 {exact:.2f} s, bfloat16 {rough:.2f} s: {exact / rough:.2f} "
        f"times faster, ≥ {BAR:g} {'reached' if exact / rough >= BAR else 'missed'}"
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=48, help="scenes of shapes; 0: no tables (default: 48)")
    parser.add_argument("--images", type=int, default=4, help="images for VGG16 (default: 4)")
    parser.add_argument(
        "--rounds", type=int, default=5, help="timed rounds of each precision; 0: no times (default: 5)"
    )
    options = parser.parse_args()
    assert set(ONE_PASS) | set(MANY_PASSES) == set(METHODS)
    stock = keras.applications.VGG16(weights=None)
    randomise(stock, 1)
    noise = np.random.default_rng(0).integers(0, 256, (8, 224, 224, 3), dtype=np.uint8)
    if options.scenes:
        scenes = np.stack([draw(27182, i).image for i in range(options.scenes)])
        tables = [
            compare(load(), scenes, {**ONE_PASS, **MANY_PASSES}, "bfloat16"),
            compare(stock, noise[: options.images], {**ONE_PASS, **FEW_CHANNELS}, "bfloat16"),
            compare(load(), scenes, {**ONE_PASS, **MANY_PASSES}, "float16"),
        ]
        print("| method | bfloat16, shapes | | bfloat16, VGG16, random weights | | float16, shapes | |")
        print("| --- " * 7 + "|")
        for name in tables[0]:
            cells = [f"{value:.0%}" if name == "the same class" else f"{value:.1e}" if i == 0 else f"{value:.3f}"
                     for table in tables for i, value in enumerate(table[name])]  # fmt: skip
            print(f"| {name} | " + " | ".join("" if cell.startswith("nan") else cell for cell in cells) + " |")
    if options.rounds:
        measure_times(stock, noise, options.rounds)


if __name__ == "__main__":
    main()

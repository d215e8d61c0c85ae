"""What bfloat16 costs and gains against float32, for every method: `python bench/engine/precision.py`.

On `shapes` (unseen scenes) and on the stock VGG16 with seeded weights (noise): the cosine and the rank correlation of
each method's maps with float32's, median over the images; how often both name the same class; and the time of the
article's four visualizations. Methods of many passes are left out on VGG16, where they take minutes.
"""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from convlens.worker.asked import METHODS
from convlens.worker.engine.explain import explain
from convlens.worker.engine.methods.integrated_gradients import IntegratedGradients, Path
from convlens.worker.engine.methods.occlusion import Covered, Occlusion
from convlens.worker.engine.methods.score_cam import ScoreCAM
from convlens.worker.engine.methods.smooth_grad import MOMENTS, Noisy, SmoothGrad
from convlens.worker.engine.methods.xrai import XRAI
from convlens.worker.engine.network import Network
from convlens.worker.engine.plan import CAM_METHODS, SALIENCY_METHODS, Activation, GradCAM, Plan, Saliency
from convlens.worker.models.stock import randomise
from convlens.worker.shapes import draw
from convlens.worker.shapes.model import load

CAM = "block5_conv3"
ONE_PASS = {
    **{name: Saliency(name, layer=CAM if row.times == "cam" else "") for name, row in SALIENCY_METHODS.items()},
    **{name: GradCAM(CAM, method=name) for name in CAM_METHODS},
    "activations": Activation("block4_conv2"),
}
MANY_PASSES = {
    **{name: SmoothGrad(Noisy(8, 0.15), name) for name in MOMENTS},
    "integrated_gradients": IntegratedGradients(Path(8)),
    "xrai": XRAI(Path(8)),
    "score_cam": ScoreCAM(CAM),
    "occlusion": Occlusion(Covered(56, 28, None)),
}
FOUR = Plan((Saliency(), Saliency("guided"), GradCAM(CAM), Activation("block4_conv2", (0, 1, 2, 3, 4))), predictions=5)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Of two maps."""
    return float((a * b).sum() / max(1e-30, np.linalg.norm(a) * np.linalg.norm(b)))


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's."""
    ranks = [np.argsort(np.argsort(it.ravel())).astype(np.float64) for it in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1])


def compare(model: keras.Model, images: np.ndarray, methods: dict[str, object]) -> dict[str, tuple[float, float]]:
    """By method, the median cosine and rank correlation with float32; `predictions`: the share that agrees."""
    units, found = None, []
    for precision in ("float32", "bfloat16"):
        network = Network(model, "caffe", precision)
        outputs = explain(network, images, methods.values(), units, plan=Plan((), predictions=1))
        units = outputs.targets if units is None else units
        found.append(outputs)
    exact, rough = found
    table = {"predictions": (float((exact.predicted == rough.predicted).mean()), float("nan"))}
    for name, item in methods.items():
        pairs = list(zip(exact.maps[item], rough.maps[item], strict=True))
        table[name] = (
            float(np.median([cosine(a, b) for a, b in pairs])),
            float(np.median([rank_correlation(a, b) for a, b in pairs])),
        )
    return table


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=48, help="scenes of shapes (default: 48)")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds of each precision (default: 5)")
    options = parser.parse_args()
    assert set(ONE_PASS) | set(MANY_PASSES) == set(METHODS)
    scenes = np.stack([draw(27182, i).image for i in range(options.scenes)])
    of_shapes = compare(load(), scenes, {**ONE_PASS, **MANY_PASSES})
    stock = keras.applications.VGG16(weights=None)
    randomise(stock, 1)
    noise = np.random.default_rng(0).integers(0, 256, (8, 224, 224, 3), dtype=np.uint8)
    of_stock = compare(stock, noise, ONE_PASS)
    print(f"| method | shapes: cosine | rank | VGG16, random weights: cosine | rank |\n{'| --- ' * 5}|")
    for name, (a, b) in of_shapes.items():
        c, d = of_stock.get(name, (float("nan"),) * 2)
        print(f"| {name} | " + " | ".join("" if np.isnan(it) else f"{it:.3f}" for it in (a, b, c, d)) + " |")
    times: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    networks = {precision: Network(stock, "caffe", precision) for precision in times}
    for round_ in range(options.rounds + 1):
        for precision, network in networks.items():
            began = time.perf_counter()
            network.run(noise, FOUR)
            if round_:
                times[precision].append(time.perf_counter() - began)
    exact, rough = (float(np.median(times[precision])) for precision in ("float32", "bfloat16"))
    print(
        f"the article's four, batch 8: float32 {exact:.2f} s, bfloat16 {rough:.2f} s, {exact / rough:.2f} times faster"
    )


if __name__ == "__main__":
    main()

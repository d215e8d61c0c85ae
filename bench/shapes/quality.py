"""Measure the maps of every method on unseen scenes of `shapes` with a known object, for docs/quality.md.

python bench/shapes/quality.py [SCENES]: 55 scenes by default, of a seed that neither training nor tests draw; of these,
those classified correctly. Methods have their defaults, for the predicted class; class activation maps are upsampled.
"""

from __future__ import annotations

import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from map_quality import deletion, insertion, mass_inside, pointing

from convlens.worker.engine.explain import explain
from convlens.worker.engine.methods.integrated_gradients import IntegratedGradients, blur
from convlens.worker.engine.methods.occlusion import Occlusion
from convlens.worker.engine.methods.score_cam import ScoreCAM
from convlens.worker.engine.methods.smooth_grad import MOMENTS, SmoothGrad
from convlens.worker.engine.methods.xrai import XRAI
from convlens.worker.engine.network import Network
from convlens.worker.engine.outputs import Floats
from convlens.worker.engine.perturbation import RequestedArray
from convlens.worker.engine.plan import CAM_METHODS, SALIENCY_METHODS, GradCAM, Plan, Saliency, Score
from convlens.worker.method_registry import METHODS
from convlens.worker.shapes import draw
from convlens.worker.shapes.model import PREPROCESS, load

SEED = 31415
CAM = "block5_conv3"
METHOD_MAPS: dict[str, RequestedArray] = {
    **{name: Saliency(name, layer=CAM if row.times == "cam" else "") for name, row in SALIENCY_METHODS.items()},
    **{name: SmoothGrad(moment=name) for name in MOMENTS},
    "integrated_gradients": IntegratedGradients(),
    "xrai": XRAI(),
    **{name: GradCAM(CAM, upsampled=True, method=name) for name in CAM_METHODS},
    "score_cam": ScoreCAM(CAM, upsampled=True),
    "occlusion": Occlusion(),
}


def main(count: int) -> None:
    """Print the table."""
    assert set(METHOD_MAPS) == set(METHODS) - {"activations"}
    network = Network(load(), PREPROCESS)
    scenes = [draw(SEED, i) for i in range(count)]
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:224j, -1:1:224j]
    centre = np.exp(-2 * (x**2 + y**2)).astype(np.float32)
    measures: dict[str, list[tuple[float, ...]]] = {}
    seconds = dict.fromkeys(METHOD_MAPS, 0.0)
    for scene in scenes:
        image = scene.image[None]
        first = network.run(image, Plan((Score(),), predictions=1))
        assert first.predicted is not None
        unit = int(first.predicted[0, 0])
        if unit != scene.label:
            continue
        maps = {"(random)": rng.random((224, 224), np.float32), "(the middle)": centre}
        for name, item in METHOD_MAPS.items():
            began = time.perf_counter()
            maps[name] = explain(network, image, [item]).maps[item][0, 0]
            seconds[name] += time.perf_counter() - began

        def probability(images: Floats, unit: int = unit) -> Floats:
            outputs = network.run(images, Plan((Score(),)), np.full((len(images), 1), unit, np.int32))
            assert outputs.probabilities is not None
            return outputs.probabilities[:, 0]

        real = scene.image.astype(np.float32)
        gray, blurred = np.broadcast_to(np.array(network.preprocess.zero, np.float32), real.shape), blur(real, 12.0)
        for name, map_ in maps.items():
            row = (
                float(pointing(map_[None], scene.mask[None])[0]),
                float(mass_inside(map_[None], scene.mask[None])[0]),
                deletion(map_, real, gray, probability),
                insertion(map_, real, blurred, probability),
            )
            measures.setdefault(name, []).append(row)
    area = np.mean([scene.mask.mean() for scene in scenes])
    print(f"{len(measures['vanilla'])} of {count} scenes classified correctly; objects cover {area:.0%} of a scene")
    print("| method | points at the object | mass on it | deletion ↓ | insertion ↑ | ms an image |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, rows in measures.items():
        hits, mass, deleted, inserted = np.mean(rows, 0)
        took = f"{seconds[name] / len(rows) * 1e3:.0f}" if name in seconds else ""
        print(f"| `{name}` | {hits:.0%} | {mass:.0%} | {deleted:.3f} | {inserted:.3f} | {took} |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 55)

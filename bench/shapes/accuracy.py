"""Measure the accuracy of `shapes` on unseen scenes, and how often a map's maximum lies on the object.

python bench/shapes/accuracy.py [SCENES]: 1100 scenes by default, of a seed that neither training nor tests draw.
"""

from __future__ import annotations

import os
import sys
from collections import defaultdict

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from convlens.worker.engine.cams import CAMS
from convlens.worker.engine.network import Network
from convlens.worker.engine.plan import SALIENCY_METHODS, GradCAM, Map, Plan, Saliency
from convlens.worker.shapes import LABELS, draw
from convlens.worker.shapes.model import PREPROCESS, load

SEED = 31415
BATCH = 25
CAM = "block5_conv3"
MAPS: dict[str, Map] = {
    **{name: Saliency(name, layer=CAM if row.times == "cam" else "") for name, row in SALIENCY_METHODS.items()},
    **{name: GradCAM(CAM, upsampled=True, method=name) for name in CAMS},
}


def main(count: int) -> None:
    """Print the table."""
    network = Network(load(), PREPROCESS)
    correct: defaultdict[str, list[bool]] = defaultdict(list)
    hits: defaultdict[tuple[str, str], list[bool]] = defaultdict(list)
    for start in range(0, count, BATCH):
        scenes = [draw(SEED, i) for i in range(start, min(start + BATCH, count))]
        outputs = network.run(np.stack([scene.image for scene in scenes]), Plan(tuple(MAPS.values()), predictions=1))
        assert outputs.predicted is not None
        for scene, predicted, row in zip(scenes, outputs.predicted[:, 0], range(len(scenes)), strict=True):
            label = LABELS[scene.label]
            correct[label].append(bool(predicted == scene.label))
            for name, item in MAPS.items():
                if correct[label][-1]:
                    map_ = outputs.maps[item][row, 0]
                    hits[label, name].append(bool(scene.mask[np.unravel_index(map_.argmax(), map_.shape)]))
    outcomes = [outcome for label in LABELS for outcome in correct[label]]
    print(f"classified correctly: {np.mean(outcomes):.1%} of {count} scenes; of these, the maximum is on the object in")
    print(f"{'method':20}" + "".join(f"{label:>10}" for label in (*LABELS, "all")))
    for name in MAPS:
        shares = [np.mean(hits[label, name]) for label in LABELS]
        shares.append(np.mean([hit for label in LABELS for hit in hits[label, name]]))
        print(f"{name:20}" + "".join(f"{share:10.0%}" for share in shares))
    print(f"{'(correct)':20}" + "".join(f"{np.mean(correct[label]):10.0%}" for label in LABELS))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1100)

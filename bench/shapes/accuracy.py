"""How right `shapes` is about scenes it never saw, and how often a map's maximum lies on the object.

python bench/shapes/accuracy.py [SCENES]: 1100 scenes by default, of a seed that neither training nor tests draw.
"""

from __future__ import annotations

import os
import sys
from collections import defaultdict

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from convlens.worker.engine.network import Network
from convlens.worker.engine.plan import GradCAM, Plan, Saliency
from convlens.worker.shapes import LABELS, draw
from convlens.worker.shapes.model import PREPROCESS, load

SEED = 31415
BATCH = 25
MAPS = {
    "saliency": Saliency(),
    "guided": Saliency("guided"),
    "Grad-CAM": GradCAM("block5_conv3", upsampled=True),
}


def main(count: int) -> None:
    """Prints the table."""
    network = Network(load(), PREPROCESS)
    right: defaultdict[str, list[bool]] = defaultdict(list)
    hits: defaultdict[tuple[str, str], list[bool]] = defaultdict(list)
    for start in range(0, count, BATCH):
        scenes = [draw(SEED, i) for i in range(start, min(start + BATCH, count))]
        outputs = network.run(np.stack([it.image for it in scenes]), Plan(tuple(MAPS.values()), predictions=1))
        for i, scene in enumerate(scenes):
            label = LABELS[scene.label]
            right[label].append(outputs.predicted[i, 0] == scene.label)
            for name, item in MAPS.items():
                if right[label][-1]:
                    map_ = outputs.maps[item][i, 0]
                    hits[label, name].append(scene.mask[np.unravel_index(map_.argmax(), map_.shape)])
    print(f"{'class':10} {'scenes':>7} {'right':>7}" + "".join(f"{name:>10}" for name in MAPS))
    for label in LABELS:
        shares = "".join(f"{np.mean(hits[label, name]):10.1%}" for name in MAPS)
        print(f"{label:10} {len(right[label]):7} {np.mean(right[label]):7.1%}{shares}")
    every = "".join(f"{np.mean([h for label in LABELS for h in hits[label, name]]):10.1%}" for name in MAPS)
    print(f"{'all':10} {count:7} {np.mean([r for label in LABELS for r in right[label]]):7.1%}{every}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1100)

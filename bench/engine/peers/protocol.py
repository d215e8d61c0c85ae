"""A peer's side of the protocol: print the names of its rows, then the seconds that each row named on stdin took.

Where a path follows the name behind a tab, the result is saved there, so that the bench can compare it with ours.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

WEIGHTS, IMAGES = sys.argv[1:3]
LAYER, CAM = "block4_conv2", "block5_conv3"


def images() -> np.ndarray:
    """Return the preprocessed images, (N,224,224,3) float32."""
    return np.load(IMAGES)


def weights() -> dict[str, np.ndarray]:
    """Return the weights by LAYER/kernel and LAYER/bias."""
    with np.load(WEIGHTS) as arrays:
        return dict(arrays)


def serve(rows: dict[str, Callable[[], Any]]) -> None:
    """Run rows until stdin ends. The output of libraries goes to stderr."""
    with os.fdopen(os.dup(1), "w") as out:
        os.dup2(2, 1)
        print(json.dumps(list(rows)), file=out, flush=True)
        for line in sys.stdin:
            name, _, path = line.rstrip("\n").partition("\t")
            began = time.perf_counter()
            result = rows[name]()
            seconds = time.perf_counter() - began
            if path:
                np.save(path, np.asarray(result))
            print(seconds, file=out, flush=True)

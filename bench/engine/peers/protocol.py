"""What a peer says to the bench: its rows' names, then for each name that it is told the seconds it took.

Results go to the file that is named behind a tab, so that the bench can see that equals are compared.
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
    """(N,224,224,3) float32, preprocessed."""
    return np.load(IMAGES)


def weights() -> dict[str, np.ndarray]:
    """By LAYER/kernel and LAYER/bias."""
    with np.load(WEIGHTS) as arrays:
        return dict(arrays)


def serve(rows: dict[str, Callable[[], Any]]) -> None:
    """Answers until stdin ends. Whatever libraries print goes to stderr."""
    with os.fdopen(os.dup(1), "w") as out:
        os.dup2(2, 1)
        print(json.dumps(list(rows)), file=out, flush=True)
        for line in sys.stdin:
            name, _, path = line.rstrip("\n").partition("\t")
            began = time.perf_counter()
            result = rows[name]()
            took = time.perf_counter() - began
            if path:
                np.save(path, np.asarray(result))
            print(took, file=out, flush=True)

"""`null`: a model that returns zeros of VGG16's shapes, to measure everything but the computation.

With device_ms=A+B a pass takes A ms a batch and B ms an image, as on a device. Imports no TensorFlow.
"""

from __future__ import annotations

import math
import time
from typing import Final

import numpy as np
import numpy.typing as npt

from convlens.v1 import model_pb2
from convlens.worker.engine.outputs import Ints, Outputs
from convlens.worker.engine.plan import Activation, GradCAM, Map, Plan, Score
from convlens.worker.method_registry import METHODS
from convlens.worker.models.source import PRECISIONS, Source, read_labels

SIZE: Final = 224
UNITS: Final = 1000


def _layers() -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return VGG16's layers: kind and output shape by name."""
    layers: dict[str, tuple[str, tuple[int, ...]]] = {}
    for block, (convolutions, channels) in enumerate(((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)), start=1):
        size = SIZE >> (block - 1)
        for i in range(1, convolutions + 1):
            layers[f"block{block}_conv{i}"] = ("Conv2D", (size, size, channels))
        layers[f"block{block}_pool"] = ("MaxPooling2D", (size // 2, size // 2, channels))
    layers["flatten"] = ("Flatten", (7 * 7 * 512,))
    return layers | {name: ("Dense", (n,)) for name, n in (("fc1", 4096), ("fc2", 4096), ("predictions", UNITS))}


LAYERS: Final = _layers()
SHARED_ZEROS: Final = 4 << 20
"""Zeros that are allocated once, since a device would not spend the processor's time on them either."""


class NullModel:
    """Returns zeros; see ServedModel."""

    def __init__(self, source: Source) -> None:
        self._batch_ms, self._image_ms = source.device_ms
        self._shared_zeros = np.full(SHARED_ZEROS, 0, np.float32)
        self._shared_zeros.flags.writeable = False
        self.card = model_pb2.Model(
            source="null",
            input_shape=(SIZE, SIZE, 3),
            layers=[model_pb2.Layer(name=n, kind=kind, shape=shape) for n, (kind, shape) in LAYERS.items()],
            labels=read_labels(source, UNITS),
            preprocess=source.preprocess or "caffe",
            precision=PRECISIONS[source.precision],
            score_layer="predictions",
            cam_layer="block5_conv3",
            synthetic=True,
            has_probability=True,
            methods=sorted(METHODS),
            classes=UNITS,
        )

    def run(self, images: npt.NDArray[np.generic], plan: Plan, targets: Ints) -> Outputs:
        """Return zeros after the time that the simulated device takes."""
        n = len(images)
        end = time.monotonic() + (self._batch_ms + self._image_ms * n) / 1000
        maps = {item: self._zeros((n, *self._shape(item, plan))) for item in plan.maps}
        scores = np.zeros(targets.shape, np.float32) if plan.targeted else None
        best = np.zeros((n, min(plan.predictions, UNITS)), np.float32) if plan.predictions else None
        chosen = np.where(targets < -1, -2 - targets, targets).astype(np.int32)
        predicted = None if best is None else np.broadcast_to(np.arange(best.shape[1], dtype=np.int32), best.shape)
        logits = scores if plan.scored_layer is None else None
        if (remaining := end - time.monotonic()) > 0:
            time.sleep(remaining)
        return Outputs(maps, chosen if plan.targeted else None, scores, logits, predicted, best, best)

    def _zeros(self, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        size = math.prod(shape)
        return self._shared_zeros[:size].reshape(shape) if size <= SHARED_ZEROS else np.zeros(shape, np.float32)

    def warm_up(self) -> None:
        """Do nothing: there is nothing to compile."""

    def _shape(self, item: Map, plan: Plan) -> tuple[int, ...]:
        """Return a map's shape without the batch axis."""
        if isinstance(item, Activation):
            *space, channels = LAYERS[item.layer][1]
            return (*space, len(item.channels) or channels) if item.reduction == "none" else tuple(space)
        if isinstance(item, GradCAM):
            return (plan.targets, *((SIZE, SIZE) if item.upsampled else LAYERS[item.layer][1][:2]))
        if isinstance(item, Score):
            return (plan.targets,)
        return (plan.targets, SIZE, SIZE, *((3,) if item.reduction == "none" else ()))

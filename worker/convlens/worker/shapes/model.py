"""The network of `shapes`: VGG16 with an eighth of its channels, and its trained weights (bench/shapes/train.py)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
from keras import layers as L

from convlens.worker.shapes.scenes import LABELS, SIZE

PREPROCESS: Final = "caffe"
"""As the stock VGG16's."""
WEIGHTS: Final = Path(__file__).with_name("weights.npz")
"""Each variable by its path in the model, float16."""
BLOCKS: Final = ((2, 8), (2, 16), (3, 32), (3, 64), (3, 64))
"""VGG16's five blocks: (convolutions, channels)."""
DENSE: Final = 512


def add_convolutions(x: Any, *, normalized: bool = False) -> Any:
    """Apply VGG16's convolutions and pools to `x`; for training, `normalized` adds BatchNorm before each ReLU."""
    for block, (count, channels) in enumerate(BLOCKS, start=1):
        for i in range(1, count + 1):
            name = f"block{block}_conv{i}"
            if normalized:
                x = L.Conv2D(channels, 3, padding="same", use_bias=False, name=name)(x)
                x = L.ReLU()(L.BatchNormalization(name=f"{name}_bn")(x))
            else:
                x = L.Conv2D(channels, 3, padding="same", activation="relu", name=name)(x)
        x = L.MaxPooling2D(name=f"block{block}_pool")(x)
    return x


def add_head(x: Any) -> Any:
    """Apply VGG16's dense layers to the last pool's output."""
    x = L.Flatten(name="flatten")(x)
    x = L.Dense(DENSE, activation="relu", name="fc1")(x)
    x = L.Dense(DENSE, activation="relu", name="fc2")(x)
    return L.Dense(len(LABELS), activation="softmax", name="predictions")(x)


def build() -> keras.Model:
    """Return the network with fresh weights: preprocessed (N,224,224,3) to (N,11) probabilities."""
    image = keras.Input((SIZE, SIZE, 3))
    return keras.Model(image, add_head(add_convolutions(image)), name="shapes")


def load(path: Path = WEIGHTS) -> keras.Model:
    """Return the trained network."""
    model = build()
    with np.load(path) as weights:
        for variable in model.weights:
            variable.assign(weights[variable.path].astype(np.float32))
    return model

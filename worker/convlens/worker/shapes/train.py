"""Trains `shapes`: python -m convlens.worker.shapes.train WEIGHTS.npz; under half an hour on two cores.

The convolutions are trained first, with BatchNorm and global average pooling: straight through three dense layers a
VGG of this depth stays at chance. BatchNorm is then folded into the convolutions, which become VGG16's own, and the
dense layers are trained on their output.
"""

from __future__ import annotations

import multiprocessing
import sys
from functools import partial
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from keras import layers as L

from convlens.worker.engine.preprocess import PREPROCESS as SCHEMES
from convlens.worker.shapes import model as shapes
from convlens.worker.shapes.scenes import LABELS, SIZE, draw

TRAINING, UNSEEN = 1, 2
"""Seeds of the scenes trained on, and of those that accuracy is told of; tests use others."""
SCENES: Final = 600 * len(LABELS)
BATCH: Final = 32
EPOCHS: Final = 10

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int32]


def scenes(seed: int, count: int) -> tuple[Images, Labels]:
    """`count` scenes of a sequence."""
    with multiprocessing.get_context("spawn").Pool() as pool:
        drawn = pool.map(partial(draw, seed), range(count), chunksize=64)
    return np.stack([it.image for it in drawn]), np.array([it.label for it in drawn], np.int32)


def batches(images: Images, labels: Labels) -> Any:
    """Shuffled batches, turned and mirrored at random: no class depends on how its object lies."""

    def turned(image: Any, label: Any) -> tuple[Any, Any]:
        image = tf.image.random_flip_left_right(image)
        image = tf.image.rot90(image, tf.random.uniform((), 0, 4, tf.int32))
        return SCHEMES[shapes.PREPROCESS].forward(tf.cast(image, tf.float32)), label

    data = tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(len(images), seed=TRAINING)
    return data.map(turned, tf.data.AUTOTUNE).batch(BATCH).prefetch(2)


def fit(model: keras.Model, data: Any, rate: float, epochs: int) -> None:
    """Adam, its rate falling to nothing along a cosine."""
    schedule = keras.optimizers.schedules.CosineDecay(rate, epochs * len(data))
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=0.01)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
    model.fit(data, epochs=epochs, verbose=2)


def train_convolutions(images: Images, labels: Labels) -> keras.Model:
    """The convolutions with BatchNorm, under a head that only pools."""
    x = keras.Input((SIZE, SIZE, 3))
    pooled = L.GlobalAveragePooling2D()(shapes.convolutions(x, normalised=True))
    model = keras.Model(x, L.Dense(len(LABELS), activation="softmax")(pooled))
    fit(model, batches(images, labels), 3e-3, EPOCHS)
    return model


def fold(normalised: keras.Model, plain: keras.Model) -> None:
    """Gives `plain` convolutions that compute what those of `normalised` do after BatchNorm."""
    for layer in normalised.layers:
        if isinstance(layer, L.Conv2D):
            norm = normalised.get_layer(f"{layer.name}_bn")
            gamma, beta, mean, variance = (variable.numpy() for variable in norm.weights)
            scale = gamma / np.sqrt(variance + norm.epsilon)
            plain.get_layer(layer.name).set_weights([layer.kernel.numpy() * scale, beta - mean * scale])


def train_head(model: keras.Model, images: Images, labels: Labels) -> None:
    """The dense layers, on what the convolutions make of the scenes as they lie and mirrored both ways."""
    features = keras.Model(model.input, model.get_layer("block5_pool").output)
    views = [images[:, ::up, ::left] for up in (1, -1) for left in (1, -1)]
    prepare = SCHEMES[shapes.PREPROCESS].forward

    def pooled(view: Images) -> Any:
        data = tf.data.Dataset.from_tensor_slices(view).batch(BATCH).map(lambda it: prepare(tf.cast(it, tf.float32)))
        return features.predict(data, verbose=0)

    x = np.concatenate([pooled(view) for view in views])
    y = np.tile(labels, len(views))
    start = keras.Input(x.shape[1:])
    head = keras.Model(start, shapes.head(start))
    fit(head, tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x), seed=TRAINING).batch(128), 1e-3, 8)
    for name in ("fc1", "fc2", "predictions"):
        model.get_layer(name).set_weights(head.get_layer(name).get_weights())


def main(path: Path) -> None:
    """Trains, saves, and tells the accuracy of what was saved on scenes it never saw."""
    keras.utils.set_random_seed(TRAINING)
    images, labels = scenes(TRAINING, SCENES)
    normalised = train_convolutions(images, labels)
    model = shapes.build()
    fold(normalised, model)
    train_head(model, images, labels)
    shapes.save(model.weights, path)
    unseen, truth = scenes(UNSEEN, 100 * len(LABELS))
    prepared = SCHEMES[shapes.PREPROCESS].forward(tf.cast(unseen, tf.float32))
    found = shapes.load(path).predict(prepared, batch_size=BATCH, verbose=0).argmax(-1)
    print(f"accuracy on {len(truth)} unseen scenes: {(found == truth).mean():.4f}; {path.stat().st_size} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

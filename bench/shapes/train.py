"""Train the `shapes` model: python bench/shapes/train.py WEIGHTS.npz; under half an hour on two cores.

The convolutions are trained first, with BatchNorm and global average pooling, since a VGG of this depth does not learn
through three dense layers. BatchNorm is then folded into the convolutions, which makes them VGG16's own, and the dense
layers are trained on their output.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Iterable
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
"""Seeds of the training scenes and of those that accuracy is measured on; tests use others."""
SCENES: Final = 600 * len(LABELS)
BATCH: Final = 32
EPOCHS: Final = 10

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int32]


def draw_scenes(seed: int, count: int) -> tuple[Images, Labels]:
    """Draw the first `count` scenes of a sequence."""
    with multiprocessing.get_context("spawn").Pool() as pool:
        drawn = pool.map(partial(draw, seed), range(count), chunksize=64)
    return np.stack([scene.image for scene in drawn]), np.array([scene.label for scene in drawn], np.int32)


def batches(images: Images, labels: Labels) -> Any:
    """Shuffle, flip and rotate at random, and batch: no class depends on its object's orientation."""

    def augment(image: Any, label: Any) -> tuple[Any, Any]:
        image = tf.image.random_flip_left_right(image)
        image = tf.image.rot90(image, tf.random.uniform((), 0, 4, tf.int32))
        return SCHEMES[shapes.PREPROCESS].forward(tf.cast(image, tf.float32)), label

    data = tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(len(images), seed=TRAINING)
    return data.map(augment, tf.data.AUTOTUNE).batch(BATCH).prefetch(2)


def fit(model: keras.Model, data: Any, rate: float, epochs: int) -> None:
    """Train with AdamW and cosine decay."""
    schedule = keras.optimizers.schedules.CosineDecay(rate, epochs * len(data))
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=0.01)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
    model.fit(data, epochs=epochs, verbose=2)


def train_convolutions(images: Images, labels: Labels) -> keras.Model:
    """Train the convolutions with BatchNorm, under a head of global average pooling and one dense layer."""
    x = keras.Input((SIZE, SIZE, 3))
    pooled = L.GlobalAveragePooling2D()(shapes.add_convolutions(x, normalized=True))
    model = keras.Model(x, L.Dense(len(LABELS), activation="softmax")(pooled))
    fit(model, batches(images, labels), 3e-3, EPOCHS)
    return model


def fold_batch_norm(normalized: keras.Model, plain: keras.Model) -> None:
    """Fold BatchNorm into the convolutions: set those of `plain` to compute what `normalized` does."""
    for layer in normalized.layers:
        if isinstance(layer, L.Conv2D):
            norm = normalized.get_layer(f"{layer.name}_bn")
            gamma, beta, mean, variance = (variable.numpy() for variable in norm.weights)
            scale = gamma / np.sqrt(variance + norm.epsilon)
            plain.get_layer(layer.name).set_weights([layer.kernel.numpy() * scale, beta - mean * scale])


def train_head(model: keras.Model, images: Images, labels: Labels) -> None:
    """Train the dense layers on the convolutions' features of the scenes, unflipped and flipped both ways."""
    features = keras.Model(model.input, model.get_layer("block5_pool").output)
    views = [images[:, ::rows, ::columns] for rows in (1, -1) for columns in (1, -1)]
    prepare = SCHEMES[shapes.PREPROCESS].forward

    def pooled(view: Images) -> Any:
        data = tf.data.Dataset.from_tensor_slices(view).batch(BATCH).map(lambda x: prepare(tf.cast(x, tf.float32)))
        return features.predict(data, verbose=0)

    x = np.concatenate([pooled(view) for view in views])
    y = np.tile(labels, len(views))
    start = keras.Input(x.shape[1:])
    head = keras.Model(start, shapes.add_head(start))
    fit(head, tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x), seed=TRAINING).batch(128), 1e-3, 8)
    for name in ("fc1", "fc2", "predictions"):
        model.get_layer(name).set_weights(head.get_layer(name).get_weights())


def save(variables: Iterable[Any], path: Path) -> None:
    """Write variables as `shapes.load` reads them."""
    weights: dict[str, Any] = {variable.path: variable.numpy().astype(np.float16) for variable in variables}
    np.savez_compressed(path, **weights)


def main(path: Path) -> None:
    """Train and save the model, and print the accuracy of the saved one on unseen scenes."""
    keras.utils.set_random_seed(TRAINING)
    images, labels = draw_scenes(TRAINING, SCENES)
    normalized = train_convolutions(images, labels)
    model = shapes.build()
    fold_batch_norm(normalized, model)
    train_head(model, images, labels)
    save(model.weights, path)
    unseen, truth = draw_scenes(UNSEEN, 100 * len(LABELS))
    prepared = SCHEMES[shapes.PREPROCESS].forward(tf.cast(unseen, tf.float32))
    predicted = shapes.load(path).predict(prepared, batch_size=BATCH, verbose=0).argmax(-1)
    print(f"accuracy on {len(truth)} unseen scenes: {(predicted == truth).mean():.4f}; {path.stat().st_size} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""A fine-tuned VGG16 (nested base, pooling, BatchNorm, Dropout, four classes, 240×240) from its .keras file.

Against GradientTape and Keras' own layers, on the same file.
"""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L

from convlens.worker.engine.plan import Activation, GradCAM, Plan, Saliency
from convlens.worker.models.file import load
from convlens.worker.models.source import Source
from convlens.worker.models.stock import randomise

SIZE = 240
PLAN = Plan((Saliency(reduction="none"), GradCAM("block5_conv3"), Activation("block5_pool")), predictions=4)
LABELS = ["benign", "malignant", "normal", "unsure"]


@pytest.fixture(scope="module")
def model():
    """The model with seeded weights, whose BatchNorm statistics and scales are far from trivial."""
    base = keras.applications.VGG16(include_top=False, weights=None, input_shape=(SIZE, SIZE, 3))
    randomise(base, 11)
    x = image = keras.Input((SIZE, SIZE, 3))
    x = L.GlobalAveragePooling2D(name="pool")(base(x))
    x = L.Dropout(0.4)(L.BatchNormalization(name="norm")(x))
    model = keras.Model(image, L.Dense(4, activation="softmax", name="classes")(x))
    rng = np.random.default_rng(12)
    model.get_layer("norm").set_weights([rng.uniform(0.5, 2, 512) for _ in range(4)])
    return model


@pytest.fixture(scope="module")
def served(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    model.save(folder / "scan.keras")
    (folder / "scan.txt").write_text("\n".join(LABELS))
    return load(Source("scan", "file", str(folder / "scan.keras"), preprocess="unit", labels=folder / "scan.txt"))


def test_the_card_describes_the_file(served):
    card = served.card
    assert list(card.input_shape) == [SIZE, SIZE, 3]
    assert list(card.labels) == LABELS
    assert (card.cam_layer, card.score_layer, card.preprocess) == ("block5_conv3", "classes", "unit")
    assert next(layer.shape for layer in card.layers if layer.name == "block5_conv3") == [15, 15, 512]


def test_maps_and_predictions_are_those_of_gradienttape(model, served):
    images = np.random.default_rng(13).integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8)
    units = np.array([[3], [0]], np.int32)
    outputs = served.run(images, PLAN, units)

    base, norm, classes = model.get_layer("vgg16"), model.get_layer("norm"), model.get_layer("classes")
    lower = keras.Model(base.input, base.get_layer("block5_conv3").output)
    with tf.GradientTape(persistent=True) as tape:
        x = tf.constant(images, tf.float32) / 255
        tape.watch(x)
        a = lower(x)
        tape.watch(a)
        pooled = base.get_layer("block5_pool")(a)
        logits = norm(tf.reduce_mean(pooled, (1, 2)), training=False) @ classes.kernel + classes.bias
        score = tf.reduce_sum(tf.gather(logits, units[:, 0], batch_dims=1))
    gradient = tape.gradient(score, x).numpy()
    weights = tf.reduce_mean(tape.gradient(score, a), (1, 2))
    cam = tf.nn.relu(tf.einsum("nhwc,nc->nhw", a, weights)).numpy()

    actual = outputs.maps[Saliency(reduction="none")][:, 0]
    cosine = (actual * gradient).sum() / np.linalg.norm(actual) / np.linalg.norm(gradient)
    assert 1 - cosine <= 1e-3  # allows a tie that flips by rounding
    assert np.median(np.abs(actual - gradient)) <= 1e-6 * np.abs(gradient).max()
    np.testing.assert_allclose(outputs.maps[GradCAM("block5_conv3")][:, 0], cam, atol=1e-4 * cam.max())
    np.testing.assert_allclose(  # thirteen convolutions, which each processor's kernels round in their own way
        outputs.maps[Activation("block5_pool")], pooled, atol=1e-5 * float(tf.reduce_max(pooled))
    )
    probabilities = model.predict(images / np.float32(255), verbose=0)
    np.testing.assert_allclose(outputs.predicted_probabilities, -np.sort(-probabilities), atol=1e-5)
    np.testing.assert_array_equal(outputs.predicted, np.argsort(-probabilities))
    np.testing.assert_allclose(outputs.probabilities[:, 0], probabilities[[0, 1], units[:, 0]], atol=1e-5)

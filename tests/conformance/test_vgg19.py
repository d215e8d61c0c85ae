"""VGG19, the other stock chain, full-size with seeded weights, against GradientTape."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from convlens.worker.engine.network import Network
from convlens.worker.engine.plan import GradCAM, Plan, Saliency
from convlens.worker.models.stock import randomise


def test_maps_are_those_of_the_tape():
    model = keras.applications.VGG19(weights=None, classifier_activation=None)
    randomise(model, 4)
    network = Network(model, "caffe")
    assert network.cam_layer == "block5_conv4"
    image = np.random.default_rng(3).integers(0, 256, (1, 224, 224, 3), dtype=np.uint8)
    signed, cam = Saliency(reduction="none"), GradCAM("block5_conv4")
    outputs = network.run(image, Plan((signed, cam), predictions=1))
    both = keras.Model(model.input, [model.get_layer("block5_conv4").output, model.output])
    x = tf.constant(keras.applications.vgg16.preprocess_input(image.astype(np.float32)))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        activation, logits = both(x, training=False)
        score = tf.reduce_max(logits)
    gradient, inner = tape.gradient(score, x).numpy()[..., ::-1], tape.gradient(score, activation).numpy()
    expected = np.maximum((activation.numpy() * inner.mean((1, 2))[:, None, None]).sum(-1), 0)
    actual = outputs.maps[signed][:, 0]
    assert outputs.predicted[0, 0] == int(tf.argmax(logits[0]))
    np.testing.assert_allclose(outputs.maps[cam][:, 0], expected, rtol=0, atol=1e-4 * expected.max())
    assert 1 - (actual * gradient).sum() / np.linalg.norm(actual) / np.linalg.norm(gradient) < 1e-3
    assert np.median(np.abs(actual - gradient)) <= 1e-6 * np.abs(gradient).max()

"""Keras' own predict, GradientTape, and tf-keras-vis, in the environment of the bench."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import keras
import protocol
import tensorflow as tf
from tf_keras_vis.gradcam import Gradcam
from tf_keras_vis.saliency import Saliency
from tf_keras_vis.utils.model_modifiers import GuidedBackpropagation, ReplaceToLinear

model = keras.applications.VGG16(weights=None)
for layer in model.layers:
    if layer.weights:
        layer.set_weights([protocol.weights()[f"{layer.name}/{part}"] for part in ("kernel", "bias")])
logits = keras.models.clone_model(model)
logits.set_weights(model.get_weights())
logits.layers[-1].activation = keras.activations.linear
cut = keras.Model(model.input, model.get_layer(protocol.LAYER).output)
x = protocol.images()
tensor = tf.constant(x)


@tf.function
def tape_saliency(x):
    """Return the saliency of the predicted class."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        score = tf.reduce_max(logits(x, training=False), -1)
    return tf.reduce_max(tf.abs(tape.gradient(score, x)), -1)


def best(output):
    """Return tf-keras-vis' score: that of the predicted class of each image."""
    return tf.reduce_max(output, -1)


plain = Saliency(model, model_modifier=ReplaceToLinear())
guided = Saliency(model, model_modifier=[ReplaceToLinear(), GuidedBackpropagation()])
cam = Gradcam(model, model_modifier=ReplaceToLinear())


def vis_saliency():
    """Return the maps without normalization."""
    return plain(best, x, normalize_map=False, keepdims=False)


def vis_guided():
    """Return the maps without normalization."""
    return guided(best, x, normalize_map=False)


def vis_cam():
    """Return the maps at the layer's size, without normalization."""
    return cam(best, x, penultimate_layer=protocol.CAM, expand_cam=False, normalize_cam=False)


def cut_predict():
    """Return five channels of the layer."""
    return cut.predict(x, batch_size=len(x), verbose=0)[..., :5]


protocol.serve(
    {
        "Keras: predict": lambda: model.predict(x, batch_size=len(x), verbose=0),
        f"Keras: predict cut at {protocol.LAYER}": cut_predict,
        "GradientTape: saliency": lambda: tape_saliency(tensor).numpy(),
        "tf-keras-vis: saliency": vis_saliency,
        "tf-keras-vis: the article's four": lambda: [vis_saliency(), vis_guided(), vis_cam(), cut_predict()][0],
    }
)

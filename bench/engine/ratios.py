"""The time of each map against a forward pass, on the stock VGG16 with seeded weights: `make bench-engine`.

Every row is run once a round, rounds are interleaved, and medians and their ratios are told: these hold on a machine
that others use too, milliseconds do not. Peers on the same weights: Keras' own `predict`, and GradientTape.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from convlens.worker.engine.network import Network
from convlens.worker.engine.plan import Activation, GradCAM, Plan, Saliency
from convlens.worker.models.stock import randomise

CAM = "block5_conv3"
FORWARD = "forward pass (the logits of 5 classes)"
PLANS = {
    FORWARD: Plan((), predictions=5),
    "activations of block4_conv2, 5 channels": Plan((Activation("block4_conv2", (0, 1, 2, 3, 4)),)),
    "Grad-CAM": Plan((GradCAM(CAM),), predictions=5),
    "saliency": Plan((Saliency(),), predictions=5),
    "guided saliency": Plan((Saliency("guided"),), predictions=5),
    "saliency and Grad-CAM": Plan((Saliency(), GradCAM(CAM)), predictions=5),
    "saliency, plain and guided": Plan((Saliency(), Saliency("guided")), predictions=5),
    "the article's four": Plan(
        (Saliency(), Saliency("guided"), GradCAM(CAM), Activation("block4_conv2", (0, 1, 2, 3, 4))), predictions=5
    ),
}


def taped(model: keras.Model) -> Callable[[tf.Tensor], tf.Tensor]:
    """Saliency of the predicted class by GradientTape, compiled."""
    logits = keras.models.clone_model(model)
    logits.set_weights(model.get_weights())
    logits.layers[-1].activation = keras.activations.linear

    @tf.function(input_signature=[tf.TensorSpec((None, 224, 224, 3), tf.float32)])
    def saliency(x: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(x)
            score = tf.reduce_max(logits(x, training=False), -1)
        return tf.reduce_max(tf.abs(tape.gradient(score, x)), -1)

    return saliency


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8, help="images a pass (default: 8)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds, each row once in each (default: 7)")
    options = parser.parse_args()
    model = keras.applications.VGG16(weights=None)
    randomise(model, 1)
    network, tape = Network(model, "caffe"), taped(model)
    images = np.random.default_rng(0).integers(0, 256, (options.batch, 224, 224, 3), dtype=np.uint8)
    prepared = keras.applications.vgg16.preprocess_input(images.astype(np.float32))
    rows: dict[str, Callable[[], object]] = {
        name: (lambda plan=plan: network.run(images, plan)) for name, plan in PLANS.items()
    }
    rows["Keras predict"] = lambda: model.predict(prepared, batch_size=options.batch, verbose=0)
    rows["saliency by GradientTape"] = lambda: tape(tf.constant(prepared)).numpy()
    times: dict[str, list[float]] = {name: [] for name in rows}
    for round_ in range(options.rounds + 1):
        for name, run in rows.items():
            began = time.perf_counter()
            run()
            if round_:  # the first compiles
                times[name].append(time.perf_counter() - began)
    one = float(np.median(times[FORWARD]))
    print(f"{platform.machine()}, {os.cpu_count()} cores, TensorFlow {tf.__version__}, batch {options.batch}, float32")
    print(f"{'':42} {'ms/image':>9} {'× forward':>10}   (quartiles)")
    for name, found in times.items():
        low, middle, high = np.percentile(found, (25, 50, 75))
        print(
            f"{name:42} {middle / options.batch * 1e3:9.1f} {middle / one:10.2f}   ({low / one:.2f}–{high / one:.2f})"
        )


if __name__ == "__main__":
    main()

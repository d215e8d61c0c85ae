"""Explanations of Keras image classifiers: saliency, class activation maps, perturbation methods, activations.

A library in its own right, arrays in and arrays out: it uses TensorFlow and Keras, and knows nothing of queues, wire
formats or files.

- `network.Network` wraps a Keras model; `Network.run` computes a `plan.Plan` in one forward and one backward pass.
- `explain.explain` also takes perturbation methods (`methods`), which need more passes.
- `plan` and `outputs` hold the values that go in and come out; they import no TensorFlow.

>>> import keras
>>> import numpy as np
>>> from convlens.worker.engine.explain import explain
>>> from convlens.worker.engine.methods.integrated_gradients import IntegratedGradients
>>> from convlens.worker.engine.network import Network
>>> from convlens.worker.engine.plan import GradCAM, Saliency
>>> model = keras.Sequential([
...     keras.Input((32, 32, 3)),
...     keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="conv"),
...     keras.layers.GlobalAveragePooling2D(),
...     keras.layers.Dense(10, activation="softmax"),
... ])
>>> network = Network(model, preprocess="unit")
>>> images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
>>> outputs = explain(network, images, [Saliency("guided"), GradCAM("conv"), IntegratedGradients()])
>>> outputs.maps[Saliency("guided")].shape  # images, targets, height, width
(2, 1, 32, 32)
"""

"""A Keras image classifier that computes explanations of its own decisions."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from convlens.worker.engine import ops
from convlens.worker.engine.chain import build_chain
from convlens.worker.engine.graph import UnsupportedLayer, read_input_shape
from convlens.worker.engine.outputs import Ints, Outputs
from convlens.worker.engine.pass_graph import PassGraph
from convlens.worker.engine.plan import PREDICTED, Activation, Plan, Saliency
from convlens.worker.engine.precision import PRECISIONS
from convlens.worker.engine.preprocess import PREPROCESS, Preprocess
from convlens.worker.engine.structure import Structure

MAX_TRACES: Final = 64
"""Compiled plans that are kept; the least recently used one is dropped."""


class Network:
    """A Keras image classifier, ready to be explained. Reads the Keras model once and never changes it.

    Args:
        model: a built model of Keras 3 or Keras 2 (tf_keras) with one image input.
        preprocess: how pixels become its input: a scheme, or a key of preprocess.PREPROCESS.
        precision: a key of precision.PRECISIONS.
        size: (height, width) of the input, for a model that takes any.
        output: the name of the output to explain, of a model that has several.

    Raises UnsupportedLayer for a model that cannot be explained exactly. `run` may be called from several threads.
    """

    def __init__(
        self,
        model: Any,
        preprocess: str | Preprocess,
        precision: str = "float32",
        *,
        size: tuple[int, int] | None = None,
        output: str | None = None,
    ) -> None:
        steps = build_chain(model, output)
        self.input_shape = read_input_shape(model, size)
        self.preprocess = PREPROCESS[preprocess] if isinstance(preprocess, str) else preprocess
        if not self.preprocess.accepts(self.input_shape[-1]):
            raise UnsupportedLayer(
                f"preprocess is for images of three channels, but model {model.name!r} takes {self.input_shape[-1]}"
            )
        self._structure = structure = Structure(steps, self.input_shape, model.name)
        self.layers = structure.layers
        self.score_layer = structure.score_layer
        """The layer of the scores that are explained by default; its softmax or sigmoid is left out."""
        self.is_binary = structure.is_binary
        self.cam_layer = structure.default_cam_layer()
        """The layer to use for class activation maps by default; None for a model without a convolution."""
        self.has_probability = structure.head is not None
        self.unavailable_methods = structure.unavailable_methods()
        """By saliency method: why this network cannot compute it."""
        self._precision = PRECISIONS[precision]
        digest = hashlib.sha256(f"{self.preprocess} {precision} {self.input_shape}".encode())
        structure.hash_into(digest)
        self.digest = digest.hexdigest()
        """SHA-256 of all that decides a result: operations, weights, preprocessing, precision."""
        weighted = [step.op for step in steps if isinstance(step.op, ops.Convolution | ops.Dense | ops.Affine)]
        for op in weighted[:-1]:
            op.cast_weights(tf.as_dtype(self._precision.dtype))
        self._graph = PassGraph(structure, self.preprocess, self._precision, self.input_shape)
        self._traces: OrderedDict[tuple[Plan, Any], Callable[..., Any]] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def traces(self) -> int:
        """The number of plans that are compiled now."""
        return len(self._traces)

    @property
    def units(self) -> int:
        """The number of classes: the units of the last layer, or two where that is one unit with a sigmoid.

        With logit z the score of class 1 is then z, its probability σ(z); the score of class 0 is −z, its probability
        σ(−z) = 1 − σ(z). Class 1 is predicted where z ≥ 0.
        """
        return self._structure.units

    def run(self, images: npt.NDArray[np.generic], plan: Plan, targets: Ints | None = None) -> Outputs:
        """Compute `plan` in one forward and at most one backward pass.

        Args:
            images: (N,H,W,C) uint8 or float32 in 0…255; RGB, or grey for a model of one channel.
            plan: the maps to compute. Each new plan is compiled once, whatever the batch size and targets.
            targets: (N,T) int32, T = plan.targets: unit indices, ALL_UNITS, PREDICTED, or PREDICTED - k for the unit of
                the (k+1)-th highest score. None: the T best units of each image.

        Raises ValueError for arrays, layers or targets that do not fit, OverflowError when activations or gradients
        exceed the range of the network's precision.
        """
        if images.ndim != 4 or images.shape[1:] != self.input_shape or images.dtype.name not in {"uint8", "float32"}:
            raise ValueError(
                f"images are {images.dtype} {images.shape}; needed are uint8 or float32 (N, {self.input_shape})"
            )
        if targets is None:
            targets = np.tile(PREDICTED - np.arange(plan.targets, dtype=np.int32), (len(images), 1))
        targets = np.asarray(targets, np.int32)
        if targets.shape != (len(images), plan.targets):
            raise ValueError(f"targets are {targets.shape}; needed are {(len(images), plan.targets)}")
        self._check_layers(plan)
        units = self._structure.units_of(plan.scored_layer)
        if plan.targeted and not ((targets >= -1 - units) & (targets < units)).all():
            raise ValueError(f"a target is outside of 0…{units - 1} (and its ranks): {targets.tolist()}")
        traced = replace(plan, maps=tuple(sorted(set(plan.maps), key=repr)))  # one trace for any order of maps
        arrays = {
            name: tensor.numpy()
            for name, tensor in self._trace(traced, images.dtype)(tf.constant(images), tf.constant(targets)).items()
        }
        if self._precision.narrow and not all(np.isfinite(array).all() for array in arrays.values()):
            raise OverflowError(
                f"activations or gradients exceed what {self._precision.dtype} holds; bfloat16 would do"
            )
        maps = {item: arrays.pop(f"map{traced.maps.index(item)}") for item in dict.fromkeys(plan.maps)}
        return Outputs(
            maps,
            arrays.get("targets"),
            arrays.get("scores"),
            arrays.get("probabilities"),
            arrays.get("predicted"),
            arrays.get("predicted_logits"),
            arrays.get("predicted_probabilities"),
        )

    def _trace(self, plan: Plan, dtype: Any) -> Callable[..., Any]:
        """Return the compiled plan for images of `dtype`; it takes any batch size and targets."""
        with self._lock:
            trace = self._traces.pop((plan, dtype), None)
            if trace is None:
                images = tf.TensorSpec((None, *self.input_shape), dtype)
                targets = tf.TensorSpec((None, plan.targets), tf.int32)
                function = tf.function(lambda x, t: self._graph.build(x, t, plan), autograph=False)
                trace = function.get_concrete_function(images, targets)
            self._traces[plan, dtype] = trace
            if len(self._traces) > MAX_TRACES:
                self._traces.popitem(last=False)
            return trace

    def _check_layers(self, plan: Plan) -> None:
        """Raise ValueError for layers that do not exist or are not below the scored one, and unavailable methods."""
        depths = self._structure.depths
        layers = [item.layer for item in plan.maps if item.layer]
        for name in (*layers, *((plan.scored_layer,) if plan.scored_layer else ())):
            if name not in depths:
                raise ValueError(f"there is no layer {name!r}; there are {', '.join(depths)}")
        scored = self._structure.depth_of(plan.scored_layer)
        for item in plan.maps:
            if item.layer and not isinstance(item, Activation) and depths[item.layer] >= scored:
                raise ValueError(
                    f"layer {item.layer!r} is not below the scored layer {plan.scored_layer or 'logits'!r}"
                )
            if isinstance(item, Saliency) and item.method in self.unavailable_methods:
                raise ValueError(f"{item.method}: {self.unavailable_methods[item.method]}")

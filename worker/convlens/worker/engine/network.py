"""A network that explains itself: one forward pass for every map of a batch, one backward pass for every gradient.

The backward pass is written out rather than taped: it ends at the layer that needs it, serves saliency and Grad-CAM on
its way, and is plain, guided or a deconvnet's without touching the model.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tensorflow.experimental.numpy as tnp

from convlens.worker.engine import ops
from convlens.worker.engine.cams import CAMS
from convlens.worker.engine.chain import walk
from convlens.worker.engine.graph import UnsupportedLayer, input_shape
from convlens.worker.engine.outputs import Outputs
from convlens.worker.engine.plan import (
    PREDICTED,
    REDUCTIONS,
    SALIENCY_METHODS,
    Activation,
    GradCAM,
    Plan,
    Saliency,
    Score,
)
from convlens.worker.engine.precision import PRECISIONS
from convlens.worker.engine.preprocess import PREPROCESS, Preprocess

Tensor = Any
Ints = npt.NDArray[np.int32]

MAX_TRACES: Final = 64
"""Compiled plans kept; the least recently used one goes."""


_ACTIVATIONS: Final = (ops.Relu, ops.LeakyRelu, ops.Taped)
_KEEP_CONVOLUTION: Final = (*_ACTIVATIONS, ops.Affine, ops.Identity)
"""What may stand between a convolution and the activation that belongs to it."""


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """A layer whose output can be had."""

    name: str
    kind: str
    """Its Keras class."""
    shape: tuple[int, ...]
    """Its output without the batch axis."""
    is_taped: bool = False
    """True where its gradient is TensorFlow's own, with no rule written for it."""

    @property
    def has_extent(self) -> bool:
        """True for an output that has more than one place."""
        return len(self.shape) == 3 and self.shape[0] * self.shape[1] > 1


class Network:
    """A Keras image classifier, ready to be explained. The Keras model is read once and never touched.

    `preprocess` is a scheme or the name of one of PREPROCESS, `precision` one of precision.PRECISIONS; `size` (height,
    width) is needed for a model that takes any, `output` names one of several outputs. Raises UnsupportedLayer for what
    cannot be explained exactly.
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
        self._steps = walk(model, output)
        self.input_shape = input_shape(model, size)
        self.preprocess = PREPROCESS[preprocess] if isinstance(preprocess, str) else preprocess
        if not self.preprocess.takes(self.input_shape[-1]):
            raise UnsupportedLayer(
                f"preprocess is for images of three channels, but model {model.name!r} takes {self.input_shape[-1]}"
            )
        self._ends = {step.layer: i + 1 for i, step in enumerate(self._steps) if step.layer}
        head = next((i for i, step in enumerate(self._steps) if isinstance(step.op, ops.Probability)), None)
        self._head = None if head is None else self._steps[head].op
        self._logits = len(self._steps) if head is None else head
        self.layers = self._describe(model.name)
        self.score_layer: str = next(it.name for it in self.layers if self._ends[it.name] >= self._logits)
        self.is_binary = isinstance(self._head, ops.Probability) and self._head.kind == "sigmoid" and self._outputs == 1
        self.cam_layer = self._default_cam_layer()
        self.has_probability = self._head is not None
        self.unavailable = self._unavailable()
        self._precision = PRECISIONS[precision]
        self.digest = self._digest(precision)
        weighted = [step.op for step in self._steps if isinstance(step.op, ops.Convolution | ops.Dense | ops.Affine)]
        for op in weighted[:-1]:
            op.compute_in(tf.as_dtype(self._precision.dtype))
        self._traces: OrderedDict[tuple[Plan, Any], Callable[..., Any]] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def traces(self) -> int:
        """How many plans are compiled now."""
        return len(self._traces)

    @property
    def units(self) -> int:
        """The classes: the units of the last layer, or two where that has one unit with a sigmoid.

        With logit z the score of class 1 is then z, its probability σ(z); the score of class 0 is −z, its probability
        σ(−z) = 1 − σ(z). Class 1 is predicted where z ≥ 0.
        """
        return 2 if self.is_binary else self._outputs

    @property
    def _outputs(self) -> int:
        return self.layers[-1].shape[-1]

    def run(self, images: npt.NDArray[np.generic], plan: Plan, targets: Ints | None = None) -> Outputs:
        """Computes `plan` on `images`, uint8 or float32 in 0…255, (N,H,W,C): RGB, or grey for a model of one channel.

        `targets` is (N,T) of unit indices, ALL_UNITS, PREDICTED or below; None: the predicted unit. Raises ValueError
        for arrays, layers or targets that do not fit, OverflowError when numbers burst the network's precision.
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
        self._check(plan)
        units = self._units(plan)
        if plan.targeted and not ((targets >= -1 - units) & (targets < units)).all():
            raise ValueError(f"a target is outside of 0…{units - 1} (and its ranks): {targets.tolist()}")
        traced = replace(plan, maps=tuple(sorted(set(plan.maps), key=repr)))  # one trace in any order
        found = {
            name: value.numpy()
            for name, value in self._trace(traced, images.dtype)(tf.constant(images), tf.constant(targets)).items()
        }
        if self._precision.narrow and not all(np.isfinite(value).all() for value in found.values()):
            raise OverflowError(
                f"activations or gradients exceed what {self._precision.dtype} holds; bfloat16 would do"
            )
        maps = {item: found.pop(f"map{traced.maps.index(item)}") for item in dict.fromkeys(plan.maps)}
        return Outputs(
            maps,
            found.get("targets"),
            found.get("scores"),
            found.get("probabilities"),
            found.get("predicted"),
            found.get("predicted_logits"),
            found.get("predicted_probabilities"),
        )

    def _units(self, plan: Plan) -> int:
        if plan.scored_layer is None:
            return self.units
        return next(layer.shape[-1] for layer in self.layers if layer.name == plan.scored_layer)

    def _trace(self, plan: Plan, dtype: Any) -> Callable[..., Any]:
        """The compiled plan; batch sizes and targets are no part of it."""
        with self._lock:
            found = self._traces.pop((plan, dtype), None)
            if found is None:
                images = tf.TensorSpec((None, *self.input_shape), dtype)
                targets = tf.TensorSpec((None, plan.targets), tf.int32)
                found = tf.function(lambda x, t: self._explain(x, t, plan), autograph=False)
                found = found.get_concrete_function(images, targets)
            self._traces[plan, dtype] = found
            if len(self._traces) > MAX_TRACES:
                self._traces.popitem(last=False)
            return found

    def _check(self, plan: Plan) -> None:
        """ValueError for layers that are not there, or are in the wrong order."""
        named = [item.layer for item in plan.maps if item.layer]
        for name in (*named, *((plan.scored_layer,) if plan.scored_layer else ())):
            if name not in self._ends:
                raise ValueError(f"there is no layer {name!r}; there are {', '.join(self._ends)}")
        scored = self._end_of(plan.scored_layer)
        for item in plan.maps:
            if item.layer and not isinstance(item, Activation) and self._ends[item.layer] >= scored:
                raise ValueError(
                    f"layer {item.layer!r} is not below the scored layer {plan.scored_layer or 'logits'!r}"
                )
            if isinstance(item, Saliency) and item.method in self.unavailable:
                raise ValueError(f"{item.method}: {self.unavailable[item.method]}")

    def _end_of(self, scored_layer: str | None) -> int:
        """How many steps lead to the scores."""
        return self._logits if scored_layer is None else min(self._ends[scored_layer], self._logits)

    def _explain(self, images: Tensor, targets: Tensor, plan: Plan) -> dict[str, Tensor]:
        """The graph of a plan."""
        scored = self._end_of(plan.scored_layer)
        depths = [self._ends[item.layer] for item in plan.maps if item.layer]
        depths += [scored] * plan.targeted + [self._logits] * bool(plan.predictions)
        values = [self.preprocess.forward(tf.cast(images, tf.float32))]  # in the graph, so that pixels travel as uint8
        for step in self._steps[: max(depths, default=0)]:
            values.append(step.op.forward(values[-1]))
        found: dict[str, Tensor] = {}
        gradients: dict[tuple[int, str], list[Tensor]] = {}
        if plan.targeted:
            seed = self._seed(found, values[scored], targets, plan)
            gradients = self._backward(values, scored, seed, plan)
        if plan.predictions:
            logits = self._scores(values[self._logits], None)
            found["predicted"] = best = self._best(logits, None, min(plan.predictions, self.units))
            found["predicted_logits"] = tf.gather(logits, best, batch_dims=1)
            if self._head:
                found["predicted_probabilities"] = tf.gather(self._head.forward(logits), best, batch_dims=1)
        for i, item in enumerate(plan.maps):
            found[f"map{i}"] = found["scores"] if isinstance(item, Score) else self._map(item, values, gradients)
        return found

    def _seed(self, found: dict[str, Tensor], output: Tensor, targets: Tensor, plan: Plan) -> list[Tensor]:
        """Chooses the units, notes their scores, and gives ∂S/∂output, one stream a target."""
        scores = self._scores(output, plan.scored_layer)
        units = scores.shape[-1]
        ranks = tf.clip_by_value(tf.reduce_max(-1 - targets), 1, units)
        best = self._best(scores, plan.scored_layer, ranks)
        ranked = tf.gather(best, tf.clip_by_value(-2 - targets, 0, ranks - 1), batch_dims=1)
        chosen = tf.where(targets <= -2, ranked, targets)
        weights = tf.where(chosen[..., None] < 0, 1.0 / units, tf.one_hot(chosen, units))
        found["targets"] = chosen
        found["scores"] = tf.reduce_sum(weights * scores[:, None, :], -1)
        if self._head and plan.scored_layer is None:
            found["probabilities"] = tf.reduce_sum(weights * self._head.forward(scores)[:, None, :], -1)
        if self._has_two_scores(plan.scored_layer):
            weights = weights[..., 1:] - weights[..., :1]  # the scores are −z and z
        *inner, outputs = output.shape[1:]
        scale = self._precision.gradient_scale / math.prod(inner)
        streams = [tf.reshape(weights[:, t], [-1, *(1 for _ in inner), outputs]) * scale for t in range(plan.targets)]
        return [tf.cast(tf.broadcast_to(stream, tf.shape(output)), output.dtype) for stream in streams]

    def _has_two_scores(self, scored_layer: str | None) -> bool:
        """True where one unit's logit z gives the scores of two classes."""
        return self.is_binary and self._end_of(scored_layer) == self._logits

    def _scores(self, output: Tensor, scored_layer: str | None) -> Tensor:
        """(N,units) float32: the mean of a layer's output over space; of one sigmoid's logit z, −z and z."""
        scores = tf.cast(output, tf.float32)
        inner = tuple(range(1, len(output.shape) - 1))
        scores = tf.reduce_mean(scores, inner) if inner else scores
        return tf.concat([-scores, scores], -1) if self._has_two_scores(scored_layer) else scores

    def _best(self, scores: Tensor, scored_layer: str | None, ranks: Tensor) -> Tensor:
        """(N,ranks): the units of the highest scores, descending; of equal ones the first, but class 1 of two."""
        if self._has_two_scores(scored_layer):
            return 1 - tf.math.top_k(scores[:, ::-1], ranks).indices
        return tf.math.top_k(scores, ranks).indices

    def _backward(
        self, values: list[Tensor], scored: int, seed: list[Tensor], plan: Plan
    ) -> dict[tuple[int, str], list[Tensor]]:
        """∂S/∂value by (step, rule), T streams each, at the input and at the layers of class activation maps."""
        cams = {self._ends[item.layer] for item in plan.maps if item.layer and not isinstance(item, Activation)}
        rules = {SALIENCY_METHODS[item.method].rule for item in plan.maps if isinstance(item, Saliency)}
        ends = dict.fromkeys(sorted(rules), 0)
        kept: dict[tuple[int, str], list[Tensor]] = {}
        if cams:
            ends.setdefault("vanilla", min(cams))
        streams = {rule: list(seed) for rule in ends}
        for i, passed in self._downwards(values, scored, min(ends.values(), default=scored), cams):
            active = [rule for rule in streams if ends[rule] <= i]
            every = [rule for rule in active for _ in seed]
            flat = [dy for rule in active for dy in streams[rule]]
            for op, x, y in passed:
                flat = op.backward(flat, x, y, every)
            for k, rule in enumerate(active):
                streams[rule] = flat[k * len(seed) : (k + 1) * len(seed)]
            if i in cams:
                kept[i, "vanilla"] = self._unscaled(streams["vanilla"])
        for rule in rules:
            kept[0, rule] = self._unscaled(streams[rule])
        return kept

    def _unscaled(self, dys: list[Tensor]) -> list[Tensor]:
        """Gradients as float32 and of their own size."""
        scale = self._precision.gradient_scale
        return [tf.cast(dy, tf.float32) if scale == 1 else tf.cast(dy, tf.float32) / scale for dy in dys]

    def _downwards(
        self, values: list[Tensor], top: int, bottom: int, kept: set[int]
    ) -> Iterator[tuple[int, list[tuple[ops.Op, Tensor, Tensor]]]]:
        """The way of the backward pass: each value that it reaches, and the operations passed to get there.

        A rectifier right below a pool of disjoint windows is passed first: gradients go to the largest values alone,
        which the pool's output holds, and there are a quarter as many of them as of the rectifier's own.
        """
        i = top
        while i > bottom:
            i -= 1
            op, passed = self._steps[i].op, [(self._steps[i].op, values[i], values[i + 1])]
            below = self._steps[i - 1].op if i > bottom and i not in kept else None
            if isinstance(op, ops.MaxPool) and op.disjoint and isinstance(below, ops.Relu | ops.LeakyRelu):
                passed.insert(0, (below, values[i + 1], values[i + 1]))
                i -= 1
            yield i, passed

    def _map(
        self,
        item: Saliency | GradCAM | Activation,
        values: list[Tensor],
        gradients: dict[tuple[int, str], list[Tensor]],
    ) -> Tensor:
        """One array of the result."""
        if isinstance(item, Activation):
            output = values[self._ends[item.layer]]
            chosen = tf.gather(output, item.channels, axis=-1) if item.channels else output
            return REDUCTIONS[item.reduction](tnp, tf.cast(chosen, tf.float32))
        if isinstance(item, GradCAM):
            cams = self._cams(item.method, item.layer, values, gradients, item.signed)
            return tf.stack([self._upsampled(cam) for cam in cams] if item.upsampled else cams, 1)
        method = SALIENCY_METHODS[item.method]
        maps = gradients[0, method.rule]
        if method.times == "input":
            maps = [dy * values[0] for dy in maps]
        if method.times == "cam":
            cams = self._cams("grad_cam", item.layer, values, gradients)
            maps = [dy * self._upsampled(cam)[..., None] for dy, cam in zip(maps, cams, strict=True)]
        stacked = tf.stack(maps, 1)
        return REDUCTIONS[item.reduction](tnp, tf.reverse(stacked, [-1]) if self.preprocess.flips else stacked)

    def _cams(
        self,
        method: str,
        layer: str,
        values: list[Tensor],
        gradients: dict[tuple[int, str], list[Tensor]],
        signed: bool = False,
    ) -> list[Tensor]:
        """A class activation map (N,h,w) a target."""
        end = self._ends[layer]
        a = tf.cast(values[end], tf.float32)
        maps = [CAMS[method](a, dy) for dy in gradients[end, "vanilla"]]
        return maps if signed else [tf.nn.relu(map_) for map_ in maps]

    def _upsampled(self, cam: Tensor) -> Tensor:
        """(N,h,w) as (N,H,W), bilinear with half-pixel centres."""
        return tf.image.resize(cam[..., None], self.input_shape[:2])[..., 0]

    def _describe(self, name: str) -> tuple[LayerInfo, ...]:
        """The layers with the shapes of their outputs, found by tracing the forward pass without running it.

        UnsupportedLayer where they are not known, the last one is no score a class, or no gradient passes a step.
        """
        shapes: list[tuple[int | None, ...]] = []

        def forward(x: Tensor) -> Tensor:
            for step in self._steps:
                y = step.op.forward(x)
                shapes.append(tuple(y.shape[1:]))
                if isinstance(step.op, ops.Taped) and tf.gradients(y, x) == [None]:
                    raise UnsupportedLayer(f"no gradient passes layer {step.layer!r} ({step.kind})")
                x = y
            return x

        tf.function(forward, autograph=False).get_concrete_function(
            tf.TensorSpec((None, *self.input_shape), tf.float32)
        )
        found = []
        for step, shape in zip(self._steps, shapes, strict=True):
            known = tuple(it for it in shape if it is not None)
            if known != shape:
                raise UnsupportedLayer(f"layer {step.layer!r} ({step.kind}) gives {shape}, whose size is not known")
            if step.layer:
                found.append(LayerInfo(step.layer, step.kind, known, isinstance(step.op, ops.Taped)))
        scored = shapes[self._logits - 1] if self._logits else ()
        final = found[-1].shape if found else self.input_shape
        if self._head and any(it != 1 for it in scored[:-1]):
            raise UnsupportedLayer(
                f"model {name!r} makes probabilities of {scored}, of each place by itself; (classes,) is needed"
            )
        if not final or any(it != 1 for it in final[:-1]) or scored[-1:] != final[-1:]:
            raise UnsupportedLayer(
                f"model {name!r} gives {final} for each image; one score a class is needed, (classes,)"
            )
        return tuple(found)

    def _default_cam_layer(self) -> str | None:
        """The last convolution with more than one place below the scores, or the last activation behind it."""
        steps = {step.layer: step for step in self._steps if step.layer}
        below = [it for it in self.layers if self._ends[it.name] < self._end_of(self.score_layer)]
        found: LayerInfo | None = None
        follows = False
        for it in below:
            step = steps[it.name]
            if step.is_convolution and it.has_extent:
                found, follows = it, True
            elif not (follows and found and it.shape == found.shape and isinstance(step.op, _KEEP_CONVOLUTION)):
                follows = False
            elif isinstance(step.op, _ACTIVATIONS):
                found = it
        return found.name if found else None

    def _unavailable(self) -> dict[str, str]:
        """By saliency method that must see each activation: why it cannot."""
        for step in self._steps[: self._logits]:
            if isinstance(step.op, ops.Taped) and step.op.hidden:
                several = len(step.op.hidden) > 1 or step.op.hidden[0] != step.layer
                inside = f" with {', '.join(step.op.hidden[:3])}{'…' * (len(step.op.hidden) > 3)} inside" * several
                why = (
                    f"layer {step.layer!r} ({step.kind}) is computed as a whole{inside}; its activations cannot be seen"
                )
                return {name: why for name, row in SALIENCY_METHODS.items() if row.rule != "vanilla"}
        return {}

    def _digest(self, precision: str) -> str:
        """SHA-256 of all that decides a result: the operations, their weights, the preprocessing, the arithmetic."""
        digest = hashlib.sha256(f"{self.preprocess} {precision} {self.input_shape}".encode())
        for step in self._steps:
            options = {
                k: v for k, v in vars(step.op).items() if isinstance(v, str | int | float | tuple) and k != "weights"
            }
            digest.update(f"{type(step.op).__name__} {step.layer} {sorted(options.items())}".encode())
            for weights in step.op.weights:
                digest.update(f"{weights.shape}".encode())
                digest.update(np.ascontiguousarray(weights).data)
        for step in self._steps:
            step.op.weights = ()  # the tensors have them
        return digest.hexdigest()

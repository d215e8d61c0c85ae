"""The TensorFlow graph of a pass: one forward pass for every map, one backward pass for every gradient.

The backward pass is written out rather than taped: it ends at the deepest layer that a map needs, serves saliency and
class activation maps alike, and is plain, guided or a deconvnet's without a change to the model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
import tensorflow.experimental.numpy as tnp

from convlens.worker.engine import ops
from convlens.worker.engine.cams import CAMS
from convlens.worker.engine.plan import REDUCTIONS, SALIENCY_METHODS, Activation, GradCAM, Plan, Saliency, Score
from convlens.worker.engine.precision import Precision
from convlens.worker.engine.preprocess import Preprocess
from convlens.worker.engine.structure import Structure

Tensor = Any
Gradients = dict[tuple[int, str], list[Tensor]]
"""∂S/∂value, one stream a target, by the value's depth and the rule for rectifiers."""


class PassGraph:
    """Builds the graphs of a network's plans."""

    def __init__(
        self, structure: Structure, preprocess: Preprocess, precision: Precision, input_shape: tuple[int, int, int]
    ) -> None:
        self._structure = structure
        self._preprocess = preprocess
        self._precision = precision
        self._input_shape = input_shape

    def build(self, images: Tensor, targets: Tensor, plan: Plan) -> dict[str, Tensor]:
        """Compute the fields of Outputs by name, and the i-th map of `plan` as `map{i}`."""
        structure = self._structure
        scored = structure.depth_of(plan.scored_layer)
        needed = [structure.depths[item.layer] for item in plan.maps if item.layer]
        needed += [scored] * plan.targeted + [structure.logits] * bool(plan.predictions)
        # preprocessing is in the graph, so that pixels are copied to the device as uint8
        values = [self._preprocess.forward(tf.cast(images, tf.float32))]
        for step in structure.steps[: max(needed, default=0)]:
            values.append(step.op.forward(values[-1]))
        outputs: dict[str, Tensor] = {}
        gradients: Gradients = {}
        if plan.targeted:
            seeds = self._score_targets(outputs, values[scored], targets, plan)
            gradients = self._backward(values, scored, seeds, plan)
        if plan.predictions:
            logits = self._scores(values[structure.logits], None)
            outputs["predicted"] = best = self._best(logits, None, min(plan.predictions, structure.units))
            outputs["predicted_logits"] = tf.gather(logits, best, batch_dims=1)
            if structure.head:
                outputs["predicted_probabilities"] = tf.gather(structure.head.forward(logits), best, batch_dims=1)
        for i, item in enumerate(plan.maps):
            outputs[f"map{i}"] = outputs["scores"] if isinstance(item, Score) else self._map(item, values, gradients)
        return outputs

    def _score_targets(self, outputs: dict[str, Tensor], output: Tensor, targets: Tensor, plan: Plan) -> list[Tensor]:
        """Resolve the targets, add them with their scores to `outputs`, and return ∂S/∂output, one stream a target."""
        head, has_two_scores = self._structure.head, self._structure.has_two_scores(plan.scored_layer)
        scores = self._scores(output, plan.scored_layer)
        units = scores.shape[-1]
        ranks = tf.clip_by_value(tf.reduce_max(-1 - targets), 1, units)
        best = self._best(scores, plan.scored_layer, ranks)
        ranked = tf.gather(best, tf.clip_by_value(-2 - targets, 0, ranks - 1), batch_dims=1)
        chosen = tf.where(targets <= -2, ranked, targets)
        weights = tf.where(chosen[..., None] < 0, 1.0 / units, tf.one_hot(chosen, units))
        outputs["targets"] = chosen
        outputs["scores"] = tf.reduce_sum(weights * scores[:, None, :], -1)
        if head and plan.scored_layer is None:
            outputs["probabilities"] = tf.reduce_sum(weights * head.forward(scores)[:, None, :], -1)
        if has_two_scores:
            weights = weights[..., 1:] - weights[..., :1]  # the scores are −z and z
        *space, channels = output.shape[1:]
        scale = self._precision.gradient_scale / math.prod(space)
        streams = [tf.reshape(weights[:, t], [-1, *(1 for _ in space), channels]) * scale for t in range(plan.targets)]
        return [tf.cast(tf.broadcast_to(stream, tf.shape(output)), output.dtype) for stream in streams]

    def _scores(self, output: Tensor, scored_layer: str | None) -> Tensor:
        """Return the scores (N,units) float32: a layer's spatial mean, or −z and z of one sigmoid's logit z."""
        scores = tf.cast(output, tf.float32)
        space = tuple(range(1, len(output.shape) - 1))
        scores = tf.reduce_mean(scores, space) if space else scores
        return tf.concat([-scores, scores], -1) if self._structure.has_two_scores(scored_layer) else scores

    def _best(self, scores: Tensor, scored_layer: str | None, ranks: Tensor) -> Tensor:
        """Return the units of the highest scores, (N,ranks); ties go to the lower index, or to class 1 of two."""
        if self._structure.has_two_scores(scored_layer):
            return 1 - tf.math.top_k(scores[:, ::-1], ranks).indices
        return tf.math.top_k(scores, ranks).indices

    def _backward(self, values: list[Tensor], scored: int, seeds: list[Tensor], plan: Plan) -> Gradients:
        """Compute the gradients at the input and at the layers of class activation maps."""
        depths = self._structure.depths
        cam_depths = {depths[item.layer] for item in plan.maps if item.layer and not isinstance(item, Activation)}
        rules = {SALIENCY_METHODS[item.method].rule for item in plan.maps if isinstance(item, Saliency)}
        lowest = dict.fromkeys(sorted(rules), 0)
        gradients: Gradients = {}
        if cam_depths:
            lowest.setdefault("vanilla", min(cam_depths))
        streams = {rule: list(seeds) for rule in lowest}
        for i, operations in self._descend(values, scored, min(lowest.values(), default=scored), cam_depths):
            active = [rule for rule in streams if lowest[rule] <= i]
            stream_rules = [rule for rule in active for _ in seeds]
            stacked = [dy for rule in active for dy in streams[rule]]
            for op, x, y in operations:
                stacked = op.backward(stacked, x, y, stream_rules)
            for k, rule in enumerate(active):
                streams[rule] = stacked[k * len(seeds) : (k + 1) * len(seeds)]
            if i in cam_depths:
                gradients[i, "vanilla"] = self._unscale(streams["vanilla"])
        for rule in rules:
            gradients[0, rule] = self._unscale(streams[rule])
        return gradients

    def _unscale(self, dys: list[Tensor]) -> list[Tensor]:
        """Convert gradients to float32 and divide by the precision's scale."""
        scale = self._precision.gradient_scale
        return [tf.cast(dy, tf.float32) if scale == 1 else tf.cast(dy, tf.float32) / scale for dy in dys]

    def _descend(
        self, values: list[Tensor], top: int, bottom: int, cam_depths: set[int]
    ) -> Iterator[tuple[int, list[tuple[ops.Op, Tensor, Tensor]]]]:
        """Yield each value that the backward pass reaches, with the operations to apply on the way there.

        A rectifier right below a pool of disjoint windows is applied before the pool: gradients go to the maxima alone,
        which the pool's output holds, and there are a quarter as many of them as of the rectifier's own outputs.
        """
        steps = self._structure.steps
        i = top
        while i > bottom:
            i -= 1
            op, operations = steps[i].op, [(steps[i].op, values[i], values[i + 1])]
            below = steps[i - 1].op if i > bottom and i not in cam_depths else None
            if isinstance(op, ops.MaxPool) and op.disjoint and isinstance(below, ops.Relu | ops.LeakyRelu):
                operations.insert(0, (below, values[i + 1], values[i + 1]))
                i -= 1
            yield i, operations

    def _map(self, item: Saliency | GradCAM | Activation, values: list[Tensor], gradients: Gradients) -> Tensor:
        """Compute one map."""
        if isinstance(item, Activation):
            output = values[self._structure.depths[item.layer]]
            chosen = tf.gather(output, item.channels, axis=-1) if item.channels else output
            return REDUCTIONS[item.reduction](tnp, tf.cast(chosen, tf.float32))
        if isinstance(item, GradCAM):
            cams = self._cams(item.method, item.layer, values, gradients, signed=item.signed)
            return tf.stack([self._upsample(cam) for cam in cams] if item.upsampled else cams, 1)
        method = SALIENCY_METHODS[item.method]
        maps = gradients[0, method.rule]
        if method.times == "input":
            maps = [dy * values[0] for dy in maps]
        if method.times == "cam":
            cams = self._cams("grad_cam", item.layer, values, gradients, signed=False)
            maps = [dy * self._upsample(cam)[..., None] for dy, cam in zip(maps, cams, strict=True)]
        stacked = tf.stack(maps, 1)
        return REDUCTIONS[item.reduction](tnp, tf.reverse(stacked, [-1]) if self._preprocess.flips else stacked)

    def _cams(
        self, method: str, layer: str, values: list[Tensor], gradients: Gradients, *, signed: bool
    ) -> list[Tensor]:
        """Compute a class activation map (N,h,w) a target."""
        depth = self._structure.depths[layer]
        activations = tf.cast(values[depth], tf.float32)
        maps = [CAMS[method](activations, dy) for dy in gradients[depth, "vanilla"]]
        return maps if signed else [tf.nn.relu(map_) for map_ in maps]

    def _upsample(self, cam: Tensor) -> Tensor:
        """Resize (N,h,w) to the input's (N,H,W), bilinear with half-pixel centres."""
        return tf.image.resize(cam[..., None], self._input_shape[:2])[..., 0]

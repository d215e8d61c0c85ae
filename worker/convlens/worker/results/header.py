"""The header of a result: its arrays, predictions, what each map explains, and timing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from convlens.v1 import model_pb2, result_pb2, tensor_pb2
from convlens.v1.request.plan import JobPlan
from convlens.worker.engine.outputs import Completeness, Outputs


def result_header(
    card: model_pb2.Model,
    plan: JobPlan,
    images: int,
    tensors: Sequence[tuple[tensor_pb2.TensorSpec, Completeness | None]],
    outputs: Outputs,
    timing: result_pb2.Timing,
) -> bytes:
    """Return the serialized ResultHeader of a job with `images` images."""
    specs = [spec for spec, _ in tensors]
    completeness = {spec.name: of_map for spec, of_map in tensors if of_map}
    header = result_pb2.ResultHeader(
        tensors=specs,
        timing=timing,
        model=card.name,
        model_digest=card.digest,
        precision=card.precision,
        preprocess=card.preprocess,
        preprocess_assumed=card.preprocess_assumed,
        target_axis=plan.target_axis,
        total_bytes=sum(spec.byte_size for spec in specs),
    )
    reports = [header.images.add() for _ in range(images)]
    _add_predictions(reports, card, outputs)
    _add_explanations(reports, plan, card, outputs, completeness)
    return header.SerializeToString()


def _add_predictions(reports: Sequence[result_pb2.ImageReport], card: model_pb2.Model, outputs: Outputs) -> None:
    """Add each image's best classes. Fields are set one by one, which takes half as long as keywords."""
    if outputs.predicted is None or outputs.predicted_logits is None:
        return
    best = (outputs.predicted, outputs.predicted_logits, outputs.predicted_probabilities)
    rows = [_rows(array, outputs.predicted.shape) for array in best]
    for report, *row in zip(reports, *rows, strict=True):
        for unit, logit, probability in zip(*row, strict=True):
            prediction = report.predictions.add()
            prediction.index = unit
            prediction.label = _label(card, unit)
            prediction.logit = logit
            if probability is not None:
                prediction.probability = probability


def _add_explanations(
    reports: Sequence[result_pb2.ImageReport],
    plan: JobPlan,
    card: model_pb2.Model,
    outputs: Outputs,
    completeness: Mapping[str, Completeness],
) -> None:
    """Add what each map of each image explains."""
    if outputs.targets is None or outputs.scores is None:
        return
    is_inner_layer = bool(plan.scored_layer)
    kind = result_pb2.SCORE_KIND_ACTIVATION if is_inner_layer else result_pb2.SCORE_KIND_LOGIT
    explained = (outputs.targets, outputs.scores, outputs.probabilities)
    rows = [_rows(array, outputs.targets.shape) for array in explained]
    for i, (report, *row) in enumerate(zip(reports, *rows, strict=True)):
        for tensor in filter(lambda tensor: tensor.targeted, plan.tensors):
            for t, (unit, score, probability) in enumerate(zip(*row, strict=True)):
                explanation = report.explanations.add()
                explanation.tensor = tensor.name
                explanation.index = unit
                explanation.label = "" if is_inner_layer else _label(card, unit)
                explanation.score = score
                explanation.score_kind = kind
                if probability is not None and unit >= 0:
                    explanation.probability = probability
                if tensor.name in completeness:
                    of_map = completeness[tensor.name]
                    explanation.baseline_output = of_map.baseline_scores[i, t]
                    explanation.completeness_delta = of_map.delta[i, t]
                    difference = abs(explanation.score - explanation.baseline_output)
                    if difference:
                        explanation.completeness_delta_relative = explanation.completeness_delta / difference


def _rows(array: npt.NDArray[np.generic] | None, shape: tuple[int, ...]) -> Any:
    """Convert to Python numbers, which protobuf copies several times faster; without an array, to Nones."""
    return np.full(shape, None).tolist() if array is None else array.tolist()


def _label(card: model_pb2.Model, unit: int) -> str:
    return card.labels[unit] if 0 <= unit < len(card.labels) else ""

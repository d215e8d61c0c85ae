"""Results of the fake server: noise in the shape of the maps, which depends on image, array and unit alone."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from convlens.client.options import is_signed
from convlens.v1 import model_pb2, result_pb2, spec_pb2, tensor_pb2, tensors
from convlens.v1.request.plan import JobPlan, PlannedTensor
from convlens.v1.request.targets import ALL_UNITS, PREDICTED

Floats = npt.NDArray[np.float32]


def compute(
    plan: JobPlan, card: model_pb2.Model, images: Sequence[spec_pb2.Image]
) -> tuple[result_pb2.ResultHeader, bytes]:
    """Return the header of a job's result, without what is the job's own, and the bytes of its arrays."""
    header = result_pb2.ResultHeader(
        model=card.name, model_digest=card.digest, precision=card.precision, preprocess=card.preprocess,
        preprocess_assumed=card.preprocess_assumed, target_axis=plan.target_axis, total_bytes=plan.result_bytes,
        timing=result_pb2.Timing(
            batch_size=len(images), worker="fake", batch_cause=result_pb2.BATCH_CAUSE_NOTHING_WAITED
        ),
    )  # fmt: skip
    units_of = {layer.name: layer.shape[-1] for layer in card.layers}
    seeds = [image.SerializeToString(deterministic=True) for image in images]
    units = []
    for seed, codes in zip(seeds, plan.targets, strict=True):
        report = header.images.add()
        scores = logits = _scores(seed, card.score_layer, card.classes)
        for unit in _best(logits)[: plan.predictions]:
            report.predictions.add(index=unit, **_described(card, logits, unit))
        if plan.scored_layer:
            scores = _scores(seed, plan.scored_layer, units_of[plan.scored_layer])
        best = _best(scores)
        units.append([code if code >= ALL_UNITS else best[PREDICTED - code] for code in codes])
        _add_explanations(report, plan, card, scores, units[-1])
    arrays = []
    for planned in plan.tensors:
        spec, array = _array(planned, seeds, units)
        header.tensors.append(spec)
        arrays.append(bytes(tensors.buffer_of(array)))
    return header, b"".join(arrays)


def _noise(*seed: object) -> np.random.Generator:
    return np.random.default_rng(list(hashlib.sha256(repr(seed).encode()).digest()))


def _scores(image: bytes, layer: str, units: int) -> Floats:
    return _noise(image, layer).normal(0, 3, units).astype(np.float32)


def _best(scores: Floats) -> list[int]:
    """Return all units by descending score."""
    return [int(unit) for unit in np.argsort(-scores, kind="stable")]


def _described(card: model_pb2.Model, logits: Floats, unit: int) -> dict[str, Any]:
    """Return the label, logit and probability of a class."""
    described: dict[str, Any] = {"logit": logits[unit]}
    if unit < len(card.labels):
        described["label"] = card.labels[unit]
    if card.has_probability:
        described["probability"] = 1 / np.exp(logits - logits[unit]).sum()
    return described


def _add_explanations(
    report: result_pb2.ImageReport, plan: JobPlan, card: model_pb2.Model, scores: Floats, units: Sequence[int]
) -> None:
    for name in (array.name for array in plan.tensors if array.targeted):
        for unit in units:
            explanation = report.explanations.add(tensor=name, index=unit)
            explanation.score = scores.mean() if unit == ALL_UNITS else scores[unit]
            explanation.score_kind = result_pb2.SCORE_KIND_LOGIT
            if plan.scored_layer:
                explanation.score_kind = result_pb2.SCORE_KIND_ACTIVATION
            elif unit != ALL_UNITS:
                described = _described(card, scores, unit)
                explanation.label = described.get("label", "")
                if "probability" in described:
                    explanation.probability = described["probability"]
            if "integrated_gradients" in name or "xrai" in name:
                explanation.baseline_output = explanation.completeness_delta = 0.0
                explanation.completeness_delta_relative = 0.0


def _array(
    planned: PlannedTensor, seeds: Sequence[bytes], units: Sequence[Sequence[int]]
) -> tuple[tensor_pb2.TensorSpec, tensors.Array]:
    """Return an array in its output format, and the description that precedes its bytes."""
    maps = [
        (seed, planned.name, unit)
        for seed, of_image in zip(seeds, units, strict=True)
        for unit in (of_image if planned.targeted else [None])
    ]
    size = math.prod(planned.shape) // len(maps)
    rows = np.stack([_noise(*map_).random(size, np.float32) for map_ in maps])
    if is_signed(planned.name):
        rows = 2 * rows - 1
    low, high = rows.min(1, keepdims=True), rows.max(1, keepdims=True)
    match planned.format.normalization:
        case "min_max":
            rows = (rows - low) / np.where(high > low, high - low, 1)
        case "max_abs":
            rows = rows / np.maximum(np.maximum(-low, high), np.finfo(np.float32).tiny)
    scales: list[float] = []
    offsets: list[float] = []
    array: tensors.Array
    if planned.format.datatype == tensor_pb2.DATA_TYPE_UINT8:
        array, scales, offsets = tensors.quantize_maps(rows, 1)
    else:
        array = rows.astype(tensors.dtype_of(planned.format.datatype), copy=False)
    array = array.reshape(planned.shape)
    spec = tensors.describe(array, planned.name)
    spec.channels.extend(planned.channels)
    spec.scale.extend(scales)
    spec.offset.extend(offsets)
    return spec, array

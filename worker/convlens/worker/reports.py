"""The header of a result: what the arrays are, what each explains, and where the time went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from google.protobuf import duration_pb2

from convlens.jobs.plan import JobPlan
from convlens.jobs.record import Record
from convlens.v1 import model_pb2, result_pb2, tensor_pb2
from convlens.worker.batcher import Batched
from convlens.worker.engine.outputs import Completeness, Outputs


def result_header(
    record: Record,
    card: model_pb2.Model,
    plan: JobPlan,
    tensors: Sequence[tuple[tensor_pb2.TensorSpec, Completeness | None]],
    outputs: Outputs,
    passes: Sequence[Batched],
    decoded: float,
    stored: float,
    worker: str,
) -> bytes:
    """The serialized ResultHeader. Times are seconds."""
    specs = [spec for spec, _ in tensors]
    largest = max(passes, key=lambda it: it.batch_size)
    completeness = {spec.name: it for spec, it in tensors if it}
    header = result_pb2.ResultHeader(
        tensors=specs,
        images=[_image(plan, card, outputs, completeness, row) for row in range(record.images)],
        timing=result_pb2.Timing(
            queued=_duration((record.started or record.created) - record.created),
            decode=_duration(decoded),
            wait=_duration(sum(it.waited for it in passes) / len(passes)),
            compute=_duration(sum(it.computed for it in passes)),
            store=_duration(stored),
            batch_size=largest.batch_size,
            batch_cause=result_pb2.BatchCause.Value(f"BATCH_CAUSE_{largest.cause.name}"),
            worker=worker,
        ),
        model=card.name,
        model_digest=card.digest,
        precision=card.precision,
        target_axis=plan.target_axis,
        total_bytes=sum(spec.byte_size for spec in specs),
    )
    return header.SerializeToString()


def _image(
    plan: JobPlan, card: model_pb2.Model, outputs: Outputs, completeness: Mapping[str, Completeness], row: int
) -> result_pb2.ImageReport:
    """What the network made of one image."""
    report = result_pb2.ImageReport()
    if outputs.predicted is not None and outputs.predicted_logits is not None:
        for k, unit in enumerate(outputs.predicted[row]):
            prediction = report.predictions.add(
                index=unit, label=_label(card, int(unit)), logit=outputs.predicted_logits[row, k]
            )
            if outputs.predicted_probabilities is not None:
                prediction.probability = outputs.predicted_probabilities[row, k]
    if outputs.targets is None or outputs.scores is None:
        return report
    inner = bool(plan.scored_layer)
    for tensor in plan.tensors:
        for t, unit in enumerate(outputs.targets[row] if tensor.targeted else ()):
            explanation = report.explanations.add(
                tensor=tensor.name,
                index=unit,
                label="" if inner else _label(card, int(unit)),
                score=outputs.scores[row, t],
                score_kind=result_pb2.SCORE_KIND_ACTIVATION if inner else result_pb2.SCORE_KIND_LOGIT,
            )
            if outputs.probabilities is not None and unit >= 0:
                explanation.probability = outputs.probabilities[row, t]
            if tensor.name in completeness:
                found = completeness[tensor.name]
                explanation.baseline_output = found.baseline_scores[row, t]
                explanation.completeness_delta = found.delta[row, t]
                difference = abs(explanation.score - explanation.baseline_output)
                if difference:
                    explanation.completeness_delta_relative = explanation.completeness_delta / difference
    return report


def _label(card: model_pb2.Model, unit: int) -> str:
    return card.labels[unit] if 0 <= unit < len(card.labels) else ""


def _duration(seconds: float) -> duration_pb2.Duration:
    message = duration_pb2.Duration()
    message.FromNanoseconds(max(0, int(seconds * 1e9)))
    return message

"""The cache of plans: by spec and card, the latest of small specs."""

from __future__ import annotations

from specs import CARD, activations

from convlens.v1 import model_pb2, spec_pb2
from convlens.v1.request.plan import MAX_PLANS, MAX_SPEC_BYTES, resolve, resolve_serialized


def test_a_plan_is_cached_for_its_spec_and_card():
    spec = spec_pb2.JobSpec(visualizations=[activations("c1")], images=[spec_pb2.Image()])
    other = model_pb2.Model()
    other.CopyFrom(CARD)
    other.layers[0].shape[-1] += 1
    first = resolve_serialized(spec.SerializeToString(), CARD)
    assert first == resolve(spec, CARD)
    assert resolve_serialized(spec.SerializeToString(), CARD) is first
    assert resolve_serialized(spec.SerializeToString(), other) == resolve(spec, other) != first
    spec.images.add()
    assert resolve_serialized(spec.SerializeToString(), CARD) == resolve(spec, CARD) != first


def test_the_latest_plans_of_small_specs_are_cached():
    job = spec_pb2.JobSpec(visualizations=[activations("c1")], images=[spec_pb2.Image()])
    specs = []
    for predictions in range(MAX_PLANS + 1):
        job.predictions = predictions
        specs.append(job.SerializeToString())
    first, second, *_ = [resolve_serialized(spec, CARD) for spec in specs]
    assert resolve_serialized(specs[1], CARD) is second
    assert resolve_serialized(specs[0], CARD) is not first
    job.images.extend(spec_pb2.Image(encoded=b"large") for _ in range(MAX_SPEC_BYTES // 5))
    assert resolve_serialized(job.SerializeToString(), CARD) is not resolve_serialized(job.SerializeToString(), CARD)

"""The cache of plans: by spec and card, the latest of small specs."""

from __future__ import annotations

from specs import CARD, activations

from convlens.jobs.request.plan_cache import MAX_PLANS, MAX_SPEC_BYTES, PlanCache
from convlens.jobs.request.resolve import resolve
from convlens.v1 import model_pb2, spec_pb2


def test_a_plan_is_cached_for_its_spec_and_card():
    spec = spec_pb2.JobSpec(visualizations=[activations("c1")], images=[spec_pb2.Image()])
    other = model_pb2.Model()
    other.CopyFrom(CARD)
    other.layers[0].shape[-1] += 1
    plans = PlanCache()
    first = plans.resolve(spec.SerializeToString(), CARD)
    assert first == resolve(spec, CARD)
    assert plans.resolve(spec.SerializeToString(), CARD) is first
    assert plans.resolve(spec.SerializeToString(), other) == resolve(spec, other) != first
    spec.images.add()
    assert plans.resolve(spec.SerializeToString(), CARD) == resolve(spec, CARD) != first


def test_the_latest_plans_of_small_specs_are_cached():
    plans = PlanCache()
    job = spec_pb2.JobSpec(visualizations=[activations("c1")], images=[spec_pb2.Image()])
    specs = []
    for predictions in range(MAX_PLANS + 1):
        job.predictions = predictions
        specs.append(job.SerializeToString())
    first, second, *_ = [plans.resolve(spec, CARD) for spec in specs]
    assert plans.resolve(specs[1], CARD) is second
    assert plans.resolve(specs[0], CARD) is not first
    job.images.extend(spec_pb2.Image(encoded=b"large") for _ in range(MAX_SPEC_BYTES // 5))
    assert plans.resolve(job.SerializeToString(), CARD) is not plans.resolve(job.SerializeToString(), CARD)

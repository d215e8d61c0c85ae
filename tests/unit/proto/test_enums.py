"""Every enum of the wire has short names, which map back to its values."""

from __future__ import annotations

import pytest

from convlens.v1 import job_pb2, model_pb2, result_pb2, spec_pb2, tensor_pb2
from convlens.v1.enums import short_name, values_by_name

ENUMS = [
    getattr(module, name)
    for module in (job_pb2, model_pb2, result_pb2, spec_pb2, tensor_pb2)
    for name in module.DESCRIPTOR.enum_types_by_name
]


@pytest.mark.parametrize("enum", ENUMS, ids=lambda enum: enum.DESCRIPTOR.name)
def test_short_names_map_back_to_the_values(enum):
    values = values_by_name(enum)
    assert {0, *values.values()} == set(enum.values())
    assert [short_name(enum, value) for value in values.values()] == list(values)


def test_a_short_name_has_no_prefix_and_unspecified_has_none():
    assert short_name(spec_pb2.SaliencyMethod, spec_pb2.SALIENCY_METHOD_GUIDED) == "guided"
    assert short_name(spec_pb2.SaliencyMethod, spec_pb2.SALIENCY_METHOD_UNSPECIFIED) == ""
    assert short_name(spec_pb2.SaliencyMethod, 99) is None
    assert list(values_by_name(spec_pb2.Priority)) == ["high", "normal", "low"]

"""Values that calls return: short to print, comparable, picklable, and open to a newer server."""

from __future__ import annotations

import json
import pickle
from dataclasses import fields
from datetime import UTC, datetime
from typing import get_args

import pytest

from convlens.client import JobState, JobStatus, Limits, ModelCard, RefusedModel, ServerInfo
from convlens.client.drawing import SIGNS, Sign
from convlens.client.job_status import StateName
from convlens.client.json_values import to_json_value
from convlens.client.options import (
    CAM_METHODS,
    COLORS,
    DTYPES,
    NORMALIZATIONS,
    REDUCTIONS,
    SALIENCY_METHODS,
    CamMethod,
    ChannelReduction,
    ColorName,
    DType,
    Normalization,
    SaliencyMethod,
)
from convlens.client.request import PRIORITIES, Priority
from convlens.v1 import job_pb2, model_pb2

LAYER = model_pb2.Layer(name="c1", kind="Conv2D", shape=[4, 4, 8])
CARD = model_pb2.Model(
    name="net", input_shape=[8, 8, 3], layers=[LAYER], classes=10, precision=model_pb2.PRECISION_TF32,
    unavailable_methods={"guided": "a Lambda"}, preprocess_mean=[0.5],
)  # fmt: skip


def literals(union):
    """The names of a Literal, or of a union of them."""
    return {name for part in get_args(union) for name in (get_args(part) or (part,))}


@pytest.mark.parametrize(
    ("literal", "names"),
    [
        (SaliencyMethod, SALIENCY_METHODS),
        (CamMethod, CAM_METHODS),
        (ChannelReduction, REDUCTIONS),
        (Normalization, NORMALIZATIONS),
        (DType, DTYPES),
        (ColorName, COLORS),
        (Priority, PRIORITIES),
        (Sign, SIGNS),
        (StateName, [str(state) for state in JobState if state]),
    ],
)
def test_the_literal_types_have_the_names_of_the_wire(literal, names):
    assert literals(literal) == set(names)


def test_every_state_of_the_wire_has_its_number():
    assert {state.value: str(state) for state in JobState if state} == {
        number: name.removeprefix("JOB_STATE_").lower() for name, number in job_pb2.JobState.items() if number
    }
    assert [state for state in JobState if not state.is_final] == [JobState.UNKNOWN, JobState.QUEUED, JobState.RUNNING]
    assert JobState(99) is JobState.UNKNOWN


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (JobStatus, job_pb2.Job),
        (ModelCard, model_pb2.Model),
        (RefusedModel, model_pb2.RefusedModel),
        (ServerInfo, model_pb2.GetServerInfoResponse),
        (Limits, model_pb2.Limits),
    ],
)
def test_a_value_has_the_fields_of_its_message(kind, message):
    assert {field.name for field in fields(kind)} == set(message.DESCRIPTOR.fields_by_name)


def test_a_status_has_times_and_none_for_missing_fields():
    message = job_pb2.Job(id="ab", state=job_pb2.JOB_STATE_CANCELLED)
    message.create_time.FromDatetime(datetime(2026, 1, 2, tzinfo=UTC))
    message.error.reason = "ABANDONED"
    status = JobStatus.from_message(message)
    assert status.create_time == datetime(2026, 1, 2, tzinfo=UTC)
    assert (status.end_time, status.queue_position) == (None, None)
    assert repr(status) == "<JobStatus ab cancelled: ABANDONED>"
    assert repr(JobStatus(id="ab", state=JobState.RUNNING, progress=0.25)) == "<JobStatus ab running, 25%>"


def test_a_card_is_plain_python():
    card = ModelCard.from_message(CARD)
    assert (card.input_shape, card.layers[0].shape, card.precision) == ((8, 8, 3), (4, 4, 8), "tf32")
    assert (card.unavailable_methods, card.preprocess_mean) == ({"guided": "a Lambda"}, (0.5,))
    assert repr(card) == "<ModelCard net: 8×8×3, 1 layers, 10 classes>"
    assert pickle.loads(pickle.dumps(card)) == card


def test_limits_are_in_seconds_and_none_where_unset():
    message = model_pb2.GetServerInfoResponse(version="1")
    message.limits.max_timeout.FromMilliseconds(1500)
    limits = ServerInfo.from_message(message).limits
    assert (limits.max_timeout, limits.tenant_rate, limits.max_jobs) == (1.5, None, 0)


def test_json_has_null_for_numbers_that_it_does_not_have():
    limits = Limits(max_timeout=float("inf"), tenant_burst=float("nan"), result_ttl=3.5)
    value = to_json_value({"limits": limits, "state": JobState.RUNNING, "time": datetime(2026, 1, 2, tzinfo=UTC)})
    assert json.loads(json.dumps(value, allow_nan=False)) == value
    assert (value["limits"]["max_timeout"], value["limits"]["tenant_burst"]) == (None, None)
    assert (value["limits"]["result_ttl"], value["state"], value["time"]) == (3.5, "running", "2026-01-02T00:00:00Z")

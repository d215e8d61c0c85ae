"""What tests of the client share: results as a server's parts make them."""

from __future__ import annotations

import numpy as np
import pytest

from convlens.client.response import ResponseReader
from convlens.v1 import result_pb2, tensors


def announce(arrays, targets=None, count=1, channels=None):
    """The header of `arrays`, which explain `targets` (a list: with a target axis) of `count` images."""
    listed = targets if isinstance(targets, list) else [targets]
    report = result_pb2.ImageReport(
        predictions=[result_pb2.Prediction(index=3, label="cat", logit=9.5, probability=0.875)],
        explanations=[
            result_pb2.Explanation(tensor=name, index=target, label=f"unit{target}", score=1.5)
            for name in arrays
            if not name.startswith("activations/")
            for target in listed
        ],
    )
    header = result_pb2.ResultHeader(
        tensors=[tensors.describe(array, name) for name, array in arrays.items()],
        images=[report] * count,
        job_id="ab" * 16,
        model="net",
        target_axis=isinstance(targets, list),
        precision=1,
        total_bytes=sum(array.nbytes for array in arrays.values()),
    )
    header.timing.compute.FromMilliseconds(250)
    header.timing.batch_size = 2
    for spec in header.tensors:
        spec.channels.extend((channels or {}).get(spec.name, ()))
    return header


def whole(arrays, targets=7, images=(), channels=None):
    """The result that `arrays` make."""
    arrays = {name: np.asarray(array, np.float32) for name, array in arrays.items()}
    count = len(next(iter(arrays.values())))
    reader = ResponseReader(images, "r-1")
    reader.add_header(announce(arrays, targets, count, channels))
    reader.add_chunk(0, b"".join(bytes(tensors.buffer_of(array)) for array in arrays.values()))
    return reader.result()


@pytest.fixture
def make_result():
    return whole


@pytest.fixture(scope="session")
def make_header():
    return announce

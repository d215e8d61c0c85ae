"""Results for tests of the client, read from a header and a chunk as a server sends them."""

from __future__ import annotations

import numpy as np
import pytest

from convlens.client.response import ResponseReader
from convlens.v1 import result_pb2, tensors


def announce(arrays, targets=None, count=1, channels=None):
    """Return the header of `arrays` for `count` images; a list of `targets` makes a target axis."""
    target_list = targets if isinstance(targets, list) else [targets]
    report = result_pb2.ImageReport(
        predictions=[result_pb2.Prediction(index=3, label="cat", logit=9.5, probability=0.875)],
        explanations=[
            result_pb2.Explanation(tensor=name, index=target, label=f"unit{target}", score=1.5)
            for name in arrays
            if not name.startswith("activations/")
            for target in target_list
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


def read_result(arrays, targets=7, images=(), channels=None):
    """Return the result that a client reads from `arrays`."""
    arrays = {name: np.asarray(array, np.float32) for name, array in arrays.items()}
    count = len(next(iter(arrays.values())))
    reader = ResponseReader(images, "r-1")
    reader.add_header(announce(arrays, targets, count, channels))
    reader.add_chunk(0, b"".join(bytes(tensors.buffer_of(array)) for array in arrays.values()))
    return reader.result()


@pytest.fixture
def make_result():
    return read_result


@pytest.fixture(scope="session")
def make_header():
    return announce

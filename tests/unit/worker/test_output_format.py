"""The output format: slices give what whole arrays would, and no more than a slice or two is in memory."""

from __future__ import annotations

import tracemalloc
import zlib

import numpy as np
import pytest

from convlens.v1 import tensor_pb2, tensors
from convlens.v1.request.methods import LayerOutput
from convlens.v1.request.plan import OutputFormat, PlannedTensor
from convlens.worker.engine.resize import RowResizer, resize
from convlens.worker.results import output_format

FP32, FP16, UINT8 = tensor_pb2.DATA_TYPE_FP32, tensor_pb2.DATA_TYPE_FP16, tensor_pb2.DATA_TYPE_UINT8
NOISE = np.random.default_rng(0)


def encode(parts, output, shape, lead=1):
    """Return the encoded array and its spec."""
    tensor = PlannedTensor("map", LayerOutput("layer", ()), shape, lead == 2, output)
    encoder = output_format.TensorEncoder(parts, tensor, lead)
    data = b"".join(map(bytes, encoder.slices()))
    assert len(data) == encoder.spec.byte_size
    assert zlib.crc32(data) == encoder.spec.crc32
    return np.frombuffer(data, tensors.dtype_of(output.datatype)).reshape(shape), encoder.spec


@pytest.mark.parametrize("datatype", [FP32, FP16, UINT8])
@pytest.mark.parametrize("normalization", ["none", "min_max", "max_abs"])
@pytest.mark.parametrize("size", [None, (64, 96), (50, 33)])
@pytest.mark.parametrize(("shape", "lead"), [((3, 32, 32, 5), 1), ((3, 2, 32, 32), 2)])
def test_slices_give_what_the_whole_array_gives(monkeypatch, datatype, normalization, size, shape, lead):
    parts = [NOISE.standard_normal((n, *shape[1:])).astype(np.float32) for n in (2, 1)]
    resized = (*shape[:lead], *(size or shape[lead : lead + 2]), *shape[lead + 2 :])
    output = OutputFormat(size, normalization, datatype)
    whole, whole_spec = encode(parts, output, resized, lead)
    monkeypatch.setattr(output_format, "SLICE_BYTES", 4096)  # less than a map has
    sliced, spec = encode(parts, output, resized, lead)
    if datatype == UINT8:
        assert np.abs(whole.astype(int) - sliced).max() <= 1
    else:
        np.testing.assert_allclose(sliced, whole, rtol=2e-3 if datatype == FP16 else 1e-4, atol=1e-4)
    np.testing.assert_allclose(spec.scale, whole_spec.scale, rtol=1e-4)
    np.testing.assert_allclose(spec.offset, whole_spec.offset, rtol=1e-4)


@pytest.mark.parametrize("normalization", ["none", "min_max", "max_abs"])
def test_a_constant_map_is_constant_in_slices(monkeypatch, normalization):
    monkeypatch.setattr(output_format, "SLICE_BYTES", 4096)
    actual, spec = encode([np.zeros((1, 64, 64), np.float32)], OutputFormat(None, normalization, UINT8), (1, 64, 64))
    assert not actual.any()
    assert list(spec.scale) == [0]


def test_bands_of_rows_are_those_of_the_whole_resized_map():
    large = NOISE.standard_normal((28, 28, 3)).astype(np.float32)
    whole = np.moveaxis(resize(np.moveaxis(large, -1, 0), 112, 70), 0, -1)
    resizer = RowResizer(large, 112, 70)
    bands = [resizer.rows(start, start + 16) for start in range(0, 112, 16)]
    np.testing.assert_allclose(np.concatenate(bands), whole, atol=1e-5)


def test_encoding_takes_the_memory_of_a_slice_or_two():
    """64 MiB of uint8 are 256 MiB of float32, of which a few slices at most are in memory."""
    tensor = PlannedTensor(
        "map", LayerOutput("layer", ()), (1, 1024, 1024, 64), False, OutputFormat((1024, 1024), "min_max", UINT8)
    )
    encoder = output_format.TensorEncoder([np.ones((1, 56, 56, 64), np.float32)], tensor, 1)
    tracemalloc.start()
    try:
        assert sum(map(len, encoder.slices())) == 64 << 20
        assert tracemalloc.get_traced_memory()[1] < 6 * output_format.SLICE_BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("channels", [8, 192])
def test_shrinking_maps_takes_a_slice_or_two(channels):
    """147 MiB of maps, each of which becomes one pixel; with 192 channels, one map is larger than a slice."""
    count = 3072 // channels
    tensor = PlannedTensor("map", LayerOutput("layer", ()), (count, 1, 1, channels), False, OutputFormat((1, 1)))
    encoder = output_format.TensorEncoder([np.ones((count, 112, 112, channels), np.float32)], tensor, 1)
    tracemalloc.start()
    try:
        assert sum(map(len, encoder.slices())) == 4 * 3072
        assert tracemalloc.get_traced_memory()[1] < 4 * output_format.SLICE_BYTES
    finally:
        tracemalloc.stop()

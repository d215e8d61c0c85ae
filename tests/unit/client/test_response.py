"""Results: assembled from chunks and verified; an incomplete or corrupt one is never returned."""

from __future__ import annotations

import pickle
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from convlens.client import DataCorrupted, Explanation, MapExplanation, Prediction
from convlens.client.response import ResponseReader
from convlens.v1 import result_pb2, tensors

RNG = np.random.default_rng(0)
ARRAYS = {
    "saliency": RNG.random((2, 4, 5), np.float32),
    "activations/none": np.zeros((2, 0), np.float32),
    "grad_cam/c3": RNG.random((2, 2, 2), np.float32),
}


def bytes_of(arrays):
    return b"".join(bytes(tensors.buffer_of(array)) for array in arrays.values())


@given(
    st.lists(hnp.arrays("<f4", hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)), max_size=5), st.data()
)
def test_chunks_may_be_cut_anywhere_even_across_arrays_and_empty_ones(arrays, draw):
    named = {f"activations/{i}": array for i, array in enumerate(arrays)}
    data = bytes_of(named)
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(data)), max_size=6)))
    reader = ResponseReader()
    reader.add_header(result_pb2.ResultHeader(tensors=[tensors.describe(array, name) for name, array in named.items()]))
    for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        assert reader.offset == start
        reader.add_chunk(start, data[start:end])
    result = reader.result()
    assert list(result) == list(named)
    for name, array in named.items():
        assert (result[name].shape, result[name].tobytes()) == (array.shape, array.tobytes())


@pytest.fixture
def reader(make_header):
    reader = ResponseReader(request_id="r-1")
    reader.add_header(make_header(ARRAYS, 7, 2))
    return reader


DATA = bytes_of(ARRAYS)


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        ([(0, 8), (12, 20)], "a chunk begins at 12, expected was 8"),
        ([(0, 8), (4, 20)], "a chunk begins at 4, expected was 8"),
        ([(0, 8)], "ended early"),
        ([(0, len(DATA) - 1)], "ended early"),
        ([], "ended early"),
        ([(0, len(DATA)), (len(DATA), len(DATA) + 1)], "more bytes arrived than were announced"),
        ([(0, len(DATA) + 1)], "more bytes arrived than were announced"),
    ],
)
def test_a_gap_an_overlap_an_early_end_and_an_overrun_are_corruption(reader, chunks, message):
    def read():
        for start, end in chunks:
            reader.add_chunk(start, (DATA + b"more")[start:end])
        return reader.result()

    with pytest.raises(DataCorrupted, match=message) as caught:
        read()
    assert (caught.value.job_id, caught.value.request_id) == ("ab" * 16, "r-1")


@pytest.mark.parametrize("at", [0, 159, 160, len(DATA) - 1])
def test_one_wrong_bit_is_corruption_and_names_the_array(reader, at):
    data = bytearray(DATA)
    data[at] ^= 1
    reader.add_chunk(0, bytes(data))
    with pytest.raises(DataCorrupted, match=f"{'saliency' if at < 160 else 'grad_cam/c3'}.*CRC-32"):
        reader.result()


def test_a_result_without_a_header_or_with_a_contradictory_one_is_corruption(make_header):
    empty = ResponseReader()
    with pytest.raises(DataCorrupted, match="ended early"):
        empty.result()
    with pytest.raises(DataCorrupted, match="more bytes"):
        empty.add_chunk(0, b"x")
    header = make_header(ARRAYS, 7, 2)
    header.tensors[0].byte_size += 4
    with pytest.raises(DataCorrupted, match="announces 164 bytes"):
        empty.add_header(header)


def test_a_resumed_read_continues_at_its_offset_and_must_announce_the_same_arrays(reader, make_header):
    reader.add_chunk(0, DATA[:50])
    reader.add_header(make_header(ARRAYS, 7, 2))
    assert reader.offset == 50
    reader.add_chunk(50, DATA[50:])
    np.testing.assert_array_equal(reader.result()["saliency"], ARRAYS["saliency"])
    with pytest.raises(DataCorrupted, match="announces other arrays"):
        reader.add_header(make_header({"saliency": ARRAYS["saliency"]}, 7, 2))


def test_an_array_is_looked_up_by_its_name_or_an_unambiguous_prefix(make_result):
    result = make_result({"saliency": [[1]], "grad_cam/c3": [[2]], "activations/a": [[3]], "activations/b": [[4]]})
    assert [result[name].item() for name in ("saliency", "grad_cam/c3", "grad_cam", "activations/b")] == [1, 2, 2, 4]
    for name in ("activations", "grad", "cam", ""):
        with pytest.raises(KeyError, match="there are saliency, grad_cam/c3, activations/a, activations/b"):
            result[name]
    with pytest.raises(KeyError, match="'x'; there is saliency"):
        make_result({"saliency": [[1]]})["x"]
    assert len(result) == 4
    assert "saliency" in result
    assert result.get("x") is None


def test_an_exact_name_has_precedence_over_a_prefix(make_result):
    assert make_result({"saliency": [[1]], "saliency/guided": [[2]]})["saliency"].item() == 1


def test_a_result_has_its_explanations_predictions_and_timing(make_result):
    result = make_result({"saliency": np.zeros((2, 4, 4)), "activations/c1": np.zeros((2, 4, 4, 2))}, 7,
                         channels={"activations/c1": [5, 0]})  # fmt: skip
    target = Explanation(7, "unit7", 1.5, "logit", None)
    assert result.explained == [{"saliency": MapExplanation(**asdict(target), targets=(target,))}] * 2
    assert result.predictions == [[Prediction(3, "cat", 9.5, 0.875)]] * 2
    assert result.channels == {"activations/c1": (5, 0)}
    assert (result.model, result.job_id, result.request_id) == ("net", "ab" * 16, "r-1")
    assert (result.timing.compute, result.timing.batch_size, result.timing.precision) == (0.25, 2, "float32")
    assert repr(result) == ("<Result by net: saliency 2×4×4, activations/c1 2×4×4×2>")


def test_with_a_target_axis_there_is_an_explanation_for_each_target(make_result):
    result = make_result({"saliency": np.zeros((1, 2, 4, 4))}, [7, 9])
    explained = result.explained[0]["saliency"]
    assert [target.index for target in explained] == [7, 9]
    assert (explained.label, explained[1].label, len(explained)) == ("unit7", "unit9", 2)


def test_a_result_splits_into_one_an_image_without_copying(make_result):
    result = make_result(ARRAYS, images=["first", "second"])
    parts = result.split()
    assert len(parts) == 2
    for row, part in enumerate(parts):
        assert part.images == result.images[row : row + 1]
        assert len(part.predictions) == len(part.explained) == 1
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(part[name], array[row : row + 1])
        assert np.shares_memory(part["saliency"], result["saliency"])


def test_a_part_that_is_copied_does_not_keep_its_neighbours_alive(make_result):
    result = make_result(ARRAYS, images=["first", "second"])
    for row, part in enumerate(result.split(copy=True)):
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(part[name], array[row : row + 1])
            assert part[name].base is None
        assert part.explained == result.explained[row : row + 1]


def test_a_result_pickles(make_result):
    result = make_result(ARRAYS, [7], channels={"grad_cam/c3": [1, 2]})
    copy = pickle.loads(pickle.dumps(result))
    assert all(np.array_equal(copy[name], array) for name, array in ARRAYS.items())
    assert vars(copy).keys() == vars(result).keys()
    assert (copy.explained, copy.predictions, copy.timing) == (result.explained, result.predictions, result.timing)

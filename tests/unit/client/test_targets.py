"""Targets become wire messages; invalid ones, and lists of another length than the images, are refused."""

from __future__ import annotations

import itertools
from collections import OrderedDict

import numpy as np
import pytest
from ids import stable

from convlens.client import ALL_UNITS, InvalidArgument, TopK
from convlens.client._sync.mapping import paired
from convlens.client.images import pack
from convlens.client.request import new_request
from convlens.client.targets import one_an_image, target_message, targets_message, units_of
from convlens.v1 import spec_pb2

PHOTO = np.zeros((2, 2, 3), np.uint8)


class Tensor:
    """A framework's tensor, which converts to an array."""

    def __init__(self, values) -> None:
        self._array = np.array(values)

    def __array__(self, dtype=None, copy=None):
        return self._array


def texts(messages):
    return [" ".join(str(message).split()) for message in messages]


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (None, []),
        (7, ["index: 7"]),
        (np.int64(7), ["index: 7"]),
        (np.array(7, np.uint8), ["index: 7"]),
        (Tensor(7), ["index: 7"]),
        (0, ["index: 0"]),
        (TopK(3), ["top_k: 3"]),
        (TopK(np.int32(3)), ["top_k: 3"]),
        (ALL_UNITS, ["all_units: true"]),
        ("golden retriever", ['label: "golden retriever"']),
        (np.str_("cat"), ['label: "cat"']),
    ],
)
@pytest.mark.parametrize("images", [1, 3])
def test_one_target_is_for_all_images(targets, expected, images):
    assert texts(targets_message(targets, images)) == expected


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ([None], ["predicted: true"]),
        ([3, None], ["index: 3", "predicted: true"]),
        ((3, TopK(1)), ["index: 3", "top_k: 1"]),
        (range(2), ["index: 0", "index: 1"]),
        (["cat", "dog"], ['label: "cat"', 'label: "dog"']),
        (["cat", 3], ['label: "cat"', "index: 3"]),
        ([[207, 281]], ["indices { values: 207 values: 281 }"]),
        ([["cat", "dog"]], ['labels { values: "cat" values: "dog" }']),
        ([[1], (2,)], ["indices { values: 1 }", "indices { values: 2 }"]),
        ([np.array([1, 2]), [3, np.int8(4)]], ["indices { values: 1 values: 2 }", "indices { values: 3 values: 4 }"]),
        (np.array([3, 1]), ["index: 3", "index: 1"]),
        (np.array([3], np.uint64), ["index: 3"]),
        (np.array([[3, 1], [0, 2]]), ["indices { values: 3 values: 1 }", "indices { values: 0 values: 2 }"]),
        (np.array(["cat", "dog"]), ['label: "cat"', 'label: "dog"']),
        (np.array(["cat", None], object), ['label: "cat"', "predicted: true"]),
        (Tensor([4, 5]), ["index: 4", "index: 5"]),
    ],
)
def test_a_list_or_an_array_has_one_target_an_image(targets, expected):
    assert texts(targets_message(targets, len(expected))) == expected


@pytest.mark.parametrize(
    "targets", [[], [1], [1, 2, 3], [[1, 2]], np.array([1]), np.zeros((0, 2), int), ["cat"], ("a",)]
)
def test_a_list_of_another_length_than_the_images_is_refused_with_both_lengths(targets):
    message = (
        f"target has {len(targets)} entr(y|ies) for 2 images; allowed: one target for all images, which is no list"
    )
    for images in ([PHOTO] * 2, np.stack([PHOTO] * 2)):
        with pytest.raises(InvalidArgument, match=message) as caught:
            new_request(spec_pb2.JobSpec(), pack(images), targets)
        assert caught.value.field == "target"


@pytest.mark.parametrize(
    "target",
    [
        3.0,
        True,
        b"cat",
        {"a": 1},
        {1},
        1 << 40,
        object(),
        "\ud800",
        TopK("3"),
        TopK(1.5),
        TopK(1 << 40),
        memoryview(b"a"),
    ],
    ids=stable,
)
@pytest.mark.parametrize(
    "wrap", [lambda target: target, lambda target: [target], lambda target: [[target]]], ids=["one", "list", "inner"]
)
def test_an_invalid_target_is_refused_with_what_is_allowed(target, wrap):
    with pytest.raises(InvalidArgument, match=r"allowed: an index, None \(predicted\), TopK\(k\), ALL_UNITS") as caught:
        targets_message(wrap(target), 1)
    assert caught.value.field == "target"


@pytest.mark.parametrize(
    "target", [[[None]], [[TopK(1)]], [["cat", 1]], [[1, "cat"]], [[[1]]], np.zeros((1, 2, 3), int)]
)
def test_an_inner_list_has_indices_or_labels_alone(target):
    with pytest.raises(InvalidArgument, match="is none; allowed: an index"):
        targets_message(target, 1)


@pytest.mark.parametrize(
    "values",
    [np.array([1.0]), np.float32(1), np.array([True]), np.bool_(1), np.array([b"cat"]), Tensor([0.5])],
    ids=stable,
)
def test_arrays_of_other_types_than_integers_are_refused(values):
    with pytest.raises(
        InvalidArgument, match=f"target is a {np.asarray(values).dtype} array .*allowed: arrays of integers"
    ):
        targets_message(values, 1)


@pytest.mark.parametrize(
    ("target", "units"), [(4, 0), ("cat", 0), (None, 0), (ALL_UNITS, 0), (TopK(3), 3), ([1, 2], 2), (["a"], 1)]
)
def test_a_list_and_topk_make_a_target_axis(target, units):
    assert units_of(target_message(target)) == units


# --- one target an image, in map() ---


def pairs(images, targets):
    return list(paired(images, one_an_image(targets, images)))


def test_images_share_one_target_that_is_no_iterable():
    for target in (None, 7, "cat", TopK(2), ALL_UNITS, np.array(3)):
        assert pairs("ab", target) == [("a", None), ("b", None)]


@pytest.mark.parametrize("kind", [list, tuple, np.array, iter, lambda targets: (target for target in targets)])
def test_any_iterable_gives_one_target_an_image(kind):
    result = pairs(["a", "b", "c"], kind([7, 5, 3]))
    assert [(image, target.index) for image, target in result] == [("a", 7), ("b", 5), ("c", 3)]


def test_an_error_takes_the_place_of_an_invalid_target():
    targets = [target for _, target in pairs("abc", ["cat", 2.5, None])]
    assert texts([targets[0], targets[2]]) == ['label: "cat"', "predicted: true"]
    assert isinstance(targets[1], InvalidArgument)


@pytest.mark.parametrize(
    ("targets", "message"),
    [(range(2), "target has 2 entries for more images"), (range(4), "target has more entries for 3 images")],
)
def test_targets_and_images_of_different_lengths_are_an_error_where_the_shorter_ends(targets, message):
    remaining = paired(iter("abc"), iter(targets))
    for _ in range(min(3, len(targets))):
        next(remaining)
    with pytest.raises(InvalidArgument, match=message):
        next(remaining)


def test_lengths_that_are_known_are_compared_at_once():
    for targets in ([1], [1, 2, 3], np.array([[1], [2], [3]])):
        with pytest.raises(InvalidArgument, match=rf"target has {len(targets)} entr(y|ies) for 2 images"):
            one_an_image(targets, ["a", "b"])


def test_endless_targets_are_read_one_by_one():
    endless = paired((n for n in itertools.count()), itertools.cycle([3, 4]))
    assert [target.index for _, target in itertools.islice(endless, 3)] == [3, 4, 3]


@pytest.mark.parametrize("targets", [{"a": 1}, OrderedDict(a=1), {1, 2}, 2.5, b"ab", True])
def test_an_unordered_or_invalid_target_is_refused_at_once(targets):
    with pytest.raises(InvalidArgument, match="is none; allowed"):
        one_an_image(targets, ["a", "b"])


def test_a_target_message_is_returned_unchanged():
    message = spec_pb2.Target(index=3)
    assert target_message(message) is message

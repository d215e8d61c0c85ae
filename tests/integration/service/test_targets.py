"""Targets through a real service: indices, labels, arrays, and one target for each image of map()."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from processes import until

from convlens.client import AsyncClient, Client, GradCAM, InvalidArgument, Result, Saliency, TopK
from convlens.client.batching import FIRST_SIZE as FIRST

LABELS = [f"thing_{n}" for n in range(1000)]
LABELS[207], LABELS[134], LABELS[517] = "golden_retriever", "crane", "crane"
COUNT = 3 * FIRST + 5


@pytest.fixture(scope="module")
def target(start_service, tmp_path_factory):
    """The target of a service whose model `null` has labels and reports the requested unit as explained."""
    file = tmp_path_factory.mktemp("labels") / "labels.txt"
    file.write_text("\n".join(LABELS))
    service = start_service()
    service.worker(f"null=null,labels={file}")
    target = service.server()[1]
    with Client(target, timeout=60) as client:
        until(client.models)
    return target


@pytest.fixture
def client(target):
    with Client(target, timeout=60) as client:
        yield client


def photos(count=COUNT):
    return [np.full((8, 8, 3), n % 256, np.uint8) for n in range(count)]


def units(results):
    """The units that the map of each result of one image explains."""
    explained = [(result.explained[0]["grad_cam"], result.has_target_axis) for result in results]
    return [tuple(target.index for target in item) if axis else item.index for item, axis in explained]


@pytest.mark.parametrize(
    ("value", "unit"),
    [("golden retriever", 207), ("Golden_Retriever", 207), (np.int64(9), 9), (np.array(9), 9), ("thing-3", 3)],
)
def test_a_target_is_an_index_or_a_label(client, value, unit):
    explained = client.grad_cam(photos(2), target=value).explained
    assert [image["grad_cam"].index for image in explained] == [unit] * 2
    assert explained[0]["grad_cam"].label == LABELS[unit]


def test_several_images_have_their_own_targets(client):
    for targets in (["thing 5", 7, "golden retriever"], np.array([5, 7, 207]), (5, np.int8(7), 207)):
        assert units(client.grad_cam(photos(3), target=targets).split()) == [5, 7, 207]
    for targets in (np.array([[1, 2], [3, 4]]), [["thing 1", "thing 2"], [3, 4]]):
        result = client.grad_cam(photos(2), target=targets)
        assert result["grad_cam"].shape == (2, 2, 14, 14)
        assert units(result.split()) == [(1, 2), (3, 4)]


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("crane", "which 2 classes are called; give an index: crane: 134, crane: 517"),
        ("retriever", "no label 'retriever' in model 'null'; the nearest: golden_retriever: 207"),
        ("207", "no label '207' .*; a class index is to be given as a number"),
    ],
)
def test_an_unknown_or_ambiguous_label_is_refused(client, label, message):
    with pytest.raises(InvalidArgument, match=message) as caught:
        client.grad_cam(photos(1), target=label)
    assert caught.value.field == "spec.targets[0].label"
    with pytest.raises(InvalidArgument, match=r"the units of the scored layer 'fc1' have none; give an index, 0…4095"):
        client.saliency(photos(1), target=label, scored_layer="fc1")


# --- map ---


@pytest.mark.parametrize(
    "kind", [list, np.array, iter, lambda values: (n for n in values)], ids=["list", "array", "iterator", "gen"]
)
def test_map_explains_each_image_for_its_own_target(client, kind):
    targets = [7 * n % 1000 for n in range(COUNT)]
    results = client.map(iter(photos()), [GradCAM()], target=kind(targets), fresh=True)
    assert units(results) == targets


@pytest.mark.parametrize(("targets", "images"), [(8, 24), (1, 24), (FIRST, 2 * FIRST), (24, 8), (2, 1), (0, 1)])
@pytest.mark.parametrize("lazy", [False, True])
def test_a_number_of_targets_other_than_that_of_images_is_refused(client, targets, images, lazy):
    target = iter(range(targets)) if lazy else list(range(targets))
    results = []
    with pytest.raises(InvalidArgument, match="allowed: one target for all images, which is no list, or one") as caught:
        results.extend(client.map(photos(images), [GradCAM()], target=target))
    assert caught.value.field == "target"
    assert units(results) == list(range(len(results)))  # results before the error are right


def test_endless_images_can_have_endless_targets(client):
    images = (np.full((8, 8, 3), n % 256, np.uint8) for n in itertools.count())
    results = client.map(images, [GradCAM()], target=itertools.cycle(["thing 1", 2]), in_flight=2)
    assert units(itertools.islice(results, 40)) == [1, 2] * 20
    results.close()


def test_map_accepts_targets_of_different_shapes(client):
    targets = [3, [4, 5], [6, 7], None, "thing 8", TopK(2), TopK(3), ["thing 1", "thing 2"], 9]
    results = client.map(photos(len(targets)), [GradCAM()], target=targets)
    assert units(results) == [3, (4, 5), (6, 7), 0, 8, (0, 1), (0, 1, 2), (1, 2), 9]


def test_a_single_target_applies_to_all_images(client):
    assert units(client.map(photos(), [GradCAM()], target="golden retriever")) == [207] * COUNT
    assert set(units(client.map(photos(), [GradCAM()], target=TopK(2)))) == {(0, 1)}


INVALID = {2: "crane", 5: 2.5, 20: 1000, 33: "no such thing", 34: [1, 1], 40: True}


def test_an_invalid_target_fails_only_its_image(client):
    targets = [INVALID.get(n, n) for n in range(COUNT)]
    outcomes = list(client.map(photos(), [GradCAM()], target=targets, errors="return", fresh=True))
    assert {n for n, outcome in enumerate(outcomes) if isinstance(outcome, InvalidArgument)} == set(INVALID)
    results = [outcome for outcome in outcomes if isinstance(outcome, Result)]
    assert units(results) == [n for n in range(COUNT) if n not in INVALID]
    with pytest.raises(InvalidArgument, match="which 2 classes"):
        list(client.map(photos(), [GradCAM()], target=targets))


def test_the_images_beside_a_failed_one_keep_their_targets(client):
    images = photos()
    for n in (1, 18, 19, 40):
        images[n] = b"\x89PNG broken"
    outcomes = list(client.map(images, [GradCAM()], target=list(range(COUNT)), errors="return", fresh=True))
    results = [outcome for outcome in outcomes if isinstance(outcome, Result)]
    assert units(results) == [n for n in range(COUNT) if n not in {1, 18, 19, 40}]


def test_an_invalid_target_of_all_images_is_not_bisected(client, monkeypatch):
    calls = []
    visualize = client._calls.visualize
    monkeypatch.setattr(client._calls, "visualize", lambda *args: calls.append(1) or visualize(*args))
    outcomes = list(client.map(photos(FIRST), [Saliency()], target="no such thing", errors="return"))
    assert [type(outcome) for outcome in outcomes] == [InvalidArgument] * FIRST
    assert len(calls) == 1


async def test_the_asynchronous_map_has_one_target_for_each_image(target):
    async def iterate(items):
        for item in items:
            yield item

    async with AsyncClient(target, timeout=60) as client:
        units_ = [7 * n % 1000 for n in range(COUNT)]
        for images, targets in (
            (photos(), units_),
            (iterate(photos()), iterate(units_)),
            (iter(photos()), np.array(units_)),
        ):
            results = [result async for result in client.map(images, [GradCAM()], target=targets, fresh=True)]
            assert units(results) == units_
        mapped = client.map(photos(3), [GradCAM()], target=["crane", 1, 2.5], errors="return")
        assert [type(outcome) async for outcome in mapped] == [InvalidArgument, Result, InvalidArgument]
        for count, images in ((2, 3), (3, 2)):
            for targets in (list(range(count)), iterate(range(count)), iter(range(count))):
                with pytest.raises(InvalidArgument, match="allowed: one target for all images"):
                    [result async for result in client.map(photos(images), [GradCAM()], target=targets)]


@pytest.mark.parametrize("value", ["golden retriever", "207"])
def test_the_command_line_accepts_a_label_or_an_index(target, tmp_path, value):
    path = tmp_path / "photo.png"
    Image.fromarray(photos(1)[0]).save(path)
    command = [sys.executable, "-m", "convlens.client", "--server", target, "grad-cam", path, "-o", tmp_path / "out"]
    subprocess.run([*map(str, command), "--target", value], check=True, timeout=60, capture_output=True)
    assert (tmp_path / "out" / "photo" / "maps.png").exists()

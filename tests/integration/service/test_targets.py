"""Targets through a real service: labels, arrays, and map() with one an image, whatever the packing."""

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
    """The address of a service whose model has labels, and gives back the target that it was asked for."""
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
    return [tuple(target.index for target in each) if axis else each.index for each, axis in explained]


@pytest.mark.parametrize(
    ("asked", "unit"),
    [("golden retriever", 207), ("Golden_Retriever", 207), (np.int64(9), 9), (np.array(9), 9), ("thing-3", 3)],
)
def test_a_target_is_an_index_or_a_label(client, asked, unit):
    explained = client.grad_cam(photos(2), target=asked).explained
    assert [it["grad_cam"].index for it in explained] == [unit] * 2
    assert explained[0]["grad_cam"].label == LABELS[unit]


def test_several_images_have_their_own_targets(client):
    for asked in (["thing 5", 7, "golden retriever"], np.array([5, 7, 207]), (5, np.int8(7), 207)):
        assert units(client.grad_cam(photos(3), target=asked).split()) == [5, 7, 207]
    for asked in (np.array([[1, 2], [3, 4]]), [["thing 1", "thing 2"], [3, 4]]):
        result = client.grad_cam(photos(2), target=asked)
        assert result["grad_cam"].shape == (2, 2, 14, 14)
        assert units(result.split()) == [(1, 2), (3, 4)]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("crane", "which 2 classes are called; give an index: crane: 134, crane: 517"),
        ("retriever", "no label 'retriever' in model 'null'; the nearest: golden_retriever: 207"),
        ("207", "no label '207' .*; a class index is to be given as a number"),
    ],
)
def test_a_label_that_is_none_or_several_is_refused(client, asked, message):
    with pytest.raises(InvalidArgument, match=message) as caught:
        client.grad_cam(photos(1), target=asked)
    assert caught.value.field == "spec.targets[0].label"
    with pytest.raises(InvalidArgument, match=r"the units of the scored layer 'fc1' have none; give an index, 0…4095"):
        client.saliency(photos(1), target=asked, scored_layer="fc1")


# --- map ---


@pytest.mark.parametrize(
    "kind", [list, np.array, iter, lambda it: (n for n in it)], ids=["list", "array", "iterator", "gen"]
)
def test_each_image_of_map_is_explained_for_its_own_target_whatever_the_packing(client, kind):
    wanted = [7 * n % 1000 for n in range(COUNT)]
    found = client.map(iter(photos()), [GradCAM()], target=kind(wanted), fresh=True)
    assert units(found) == wanted


@pytest.mark.parametrize(("targets", "images"), [(8, 24), (1, 24), (FIRST, 2 * FIRST), (24, 8), (2, 1), (0, 1)])
@pytest.mark.parametrize("lazy", [False, True])
def test_other_than_one_target_an_image_is_refused_before_any_wrong_map(client, targets, images, lazy):
    given = iter(range(targets)) if lazy else list(range(targets))
    results = []
    with pytest.raises(InvalidArgument, match="allowed: one target for all images, which is no list, or one") as caught:
        results.extend(client.map(photos(images), [GradCAM()], target=given))
    assert caught.value.field == "target"
    assert units(results) == list(range(len(results)))


def test_images_without_an_end_have_targets_without_an_end(client):
    images = (np.full((8, 8, 3), n % 256, np.uint8) for n in itertools.count())
    found = client.map(images, [GradCAM()], target=itertools.cycle(["thing 1", 2]), in_flight=2)
    assert units(itertools.islice(found, 40)) == [1, 2] * 20
    found.close()


def test_targets_of_different_shapes_go_in_different_jobs(client):
    asked = [3, [4, 5], [6, 7], None, "thing 8", TopK(2), TopK(3), ["thing 1", "thing 2"], 9]
    found = client.map(photos(len(asked)), [GradCAM()], target=asked)
    assert units(found) == [3, (4, 5), (6, 7), 0, 8, (0, 1), (0, 1, 2), (1, 2), 9]


def test_one_target_is_for_all_images(client):
    assert units(client.map(photos(), [GradCAM()], target="golden retriever")) == [207] * COUNT
    assert set(units(client.map(photos(), [GradCAM()], target=TopK(2)))) == {(0, 1)}


WRONG = {2: "crane", 5: 2.5, 20: 1000, 33: "no such thing", 34: [1, 1], 40: True}


def test_a_target_that_is_none_fails_its_image_alone(client):
    wanted = list(range(COUNT))
    asked = [WRONG.get(n, n) for n in wanted]
    found = list(client.map(photos(), [GradCAM()], target=asked, errors="return", fresh=True))
    assert {n for n, it in enumerate(found) if isinstance(it, InvalidArgument)} == set(WRONG)
    assert units(it for it in found if isinstance(it, Result)) == [n for n in wanted if n not in WRONG]
    with pytest.raises(InvalidArgument, match="which 2 classes"):
        list(client.map(photos(), [GradCAM()], target=asked))


def test_images_that_fail_take_no_neighbours_target(client):
    wanted = list(range(COUNT))
    images = photos()
    for n in (1, 18, 19, 40):
        images[n] = b"\x89PNG broken"
    found = list(client.map(images, [GradCAM()], target=wanted, errors="return", fresh=True))
    assert units(it for it in found if isinstance(it, Result)) == [n for n in wanted if n not in {1, 18, 19, 40}]


def test_a_target_of_all_that_is_none_is_not_looked_for_in_halves(client, monkeypatch):
    calls = []
    visualize = client._calls.visualize
    monkeypatch.setattr(client._calls, "visualize", lambda *args: calls.append(1) or visualize(*args))
    found = list(client.map(photos(FIRST), [Saliency()], target="no such thing", errors="return"))
    assert [type(it) for it in found] == [InvalidArgument] * FIRST
    assert len(calls) == 1


async def test_the_asynchronous_map_does_the_same(target):
    async def each(items):
        for item in items:
            yield item

    async with AsyncClient(target, timeout=60) as client:
        wanted = [7 * n % 1000 for n in range(COUNT)]
        for images, asked in ((photos(), wanted), (each(photos()), each(wanted)), (iter(photos()), np.array(wanted))):
            found = [it async for it in client.map(images, [GradCAM()], target=asked, fresh=True)]
            assert units(found) == wanted
        found = [it async for it in client.map(photos(3), [GradCAM()], target=["crane", 1, 2.5], errors="return")]
        assert [type(it) for it in found] == [InvalidArgument, Result, InvalidArgument]
        for targets, images in ((2, 3), (3, 2)):
            for given in (list(range(targets)), each(range(targets)), iter(range(targets))):
                with pytest.raises(InvalidArgument, match="allowed: one target for all images"):
                    [it async for it in client.map(photos(images), [GradCAM()], target=given)]


@pytest.mark.parametrize("word", ["golden retriever", "207"])
def test_the_command_line_takes_a_label_or_an_index(target, tmp_path, word):
    path = tmp_path / "photo.png"
    Image.fromarray(photos(1)[0]).save(path)
    command = [sys.executable, "-m", "convlens.client", "--server", target, "grad-cam", path, "-o", tmp_path / "out"]
    subprocess.run([*map(str, command), "--target", word], check=True, timeout=60, capture_output=True)
    assert (tmp_path / "out" / "photo" / "maps.png").exists()

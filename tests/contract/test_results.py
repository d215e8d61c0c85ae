"""What a result is, of the fake server and of a real one: names, shapes, dtypes, orders, explanations."""

from __future__ import annotations

import time

import numpy as np
import pytest

from convlens.client import (
    ALL_UNITS,
    Activations,
    AsyncClient,
    GradCAM,
    Occlusion,
    Output,
    Saliency,
    TopK,
)
from convlens.client.testing import vgg16
from convlens.v1 import job_pb2, model_pb2, spec_pb2, tensors, visualization_pb2

PHOTOS = np.random.default_rng(5).integers(0, 256, (2, 16, 12, 3), np.uint8)

ARRAYS = [
    (Saliency(), "saliency", (224, 224)),
    (Saliency("guided"), "saliency/guided", (224, 224)),
    (Saliency("vanilla", signed=True), "saliency/signed", (224, 224, 3)),
    (Saliency("smooth_grad", reduction="mean", samples=2), "saliency/smooth_grad/mean", (224, 224)),
    (Saliency("integrated_gradients", steps=2), "saliency/integrated_gradients", (224, 224)),
    (Saliency("guided_grad_cam", signed=True), "saliency/guided_grad_cam/signed", (224, 224, 3)),
    (GradCAM(), "grad_cam", (14, 14)),
    (GradCAM("block5_conv3"), "grad_cam", (14, 14)),
    (GradCAM("block3_pool", method="layer_cam"), "layer_cam/block3_pool", (28, 28)),
    (GradCAM("block4_conv1", upsampled=True, signed=True), "grad_cam/block4_conv1/upsampled/signed", (224, 224)),
    (GradCAM(output=Output((50, 40))), "grad_cam", (50, 40)),
    (Occlusion(112, 112), "occlusion", (224, 224)),
]
ACTIVATIONS = [
    (Activations("block5_pool"), "activations/block5_pool", (7, 7, 512)),
    (Activations("fc1"), "activations/fc1", (4096,)),
    (Activations("fc1", reduction="mean"), "activations/fc1/mean", ()),
    (Activations("block5_pool", channels=[5, 2]), "activations/block5_pool", (7, 7, 2)),
    (Activations("block5_pool", channels=[5, 2], reduction="norm"), "activations/block5_pool/norm", (7, 7)),
    (Activations("block5_pool", output=Output((3, 4))), "activations/block5_pool", (3, 4, 512)),
]


@pytest.mark.parametrize(("visualization", "name", "shape"), ARRAYS)
def test_a_map_has_the_axes_of_images_and_of_several_targets(client, visualization, name, shape):
    one = client.visualize(PHOTOS, [visualization])
    assert list(one) == [name]
    assert (one[name].shape, one[name].dtype) == ((2, *shape), np.float32)
    assert not one.has_target_axis
    several = client.visualize(PHOTOS, [visualization], target=TopK(3))
    assert several[name].shape == (2, 3, *shape)
    assert several.has_target_axis
    explained = several.explained[1][name]
    assert len(explained) == 3
    assert explained.kind == "logit"


@pytest.mark.parametrize(("visualization", "name", "shape"), ACTIVATIONS)
def test_activations_have_no_axis_of_targets(client, visualization, name, shape):
    result = client.visualize(PHOTOS, [visualization], target=[[1, 2], [3, 4]])
    assert list(result) == [name]
    assert (result[name].shape, result[name].dtype) == ((2, *shape), np.float32)
    assert result.explained == [{}, {}]
    assert result.predictions == [[], []]
    kept = visualization.channels if visualization.reduction == "none" else ()
    assert result.channels == ({name: kept} if kept else {})


def test_arrays_come_in_the_order_of_the_request(client):
    result = client.visualize(PHOTOS[0], [Occlusion(112, 112), Activations(["fc2", "fc1"]), GradCAM(), Saliency()])
    assert list(result) == ["occlusion", "activations/fc2", "activations/fc1", "grad_cam", "saliency"]
    assert list(result.explained[0]) == ["occlusion", "grad_cam", "saliency"]


@pytest.mark.parametrize("dtype", ["float16", "uint8"])
@pytest.mark.parametrize("normalization", ["none", "min_max", "max_abs"])
def test_an_output_has_its_dtype_and_its_range(client, dtype, normalization):
    form = Output(normalization=normalization, dtype=dtype)
    result = client.visualize(PHOTOS, [GradCAM(output=form), Occlusion(112, 112, output=form)], target=TopK(2))
    for name, array in result.items():
        assert array.dtype == dtype
        assert array.shape[:2] == (2, 2)
        restored = result.restored(name)
        assert restored.dtype == np.float32
        assert restored.shape == array.shape
        assert np.isfinite(restored).all()
        lowest = 0 if name == "grad_cam" or normalization == "min_max" else -1
        assert restored.min() >= lowest - 1e-2
        assert restored.max() <= 1 + 1e-2


@pytest.mark.parametrize(
    ("target", "units", "labels"),
    [
        (7, [[7], [7]], [["thing_7"], ["thing_7"]]),
        ("golden retriever", [[207], [207]], [["golden_retriever"]] * 2),
        ("Thing-3", [[3], [3]], [["thing_3"]] * 2),
        ([1, "thing 2"], [[1], [2]], [["thing_1"], ["thing_2"]]),
        ([[4, 9], [9, 8]], [[4, 9], [9, 8]], [["thing_4", "thing_9"], ["thing_9", "thing_8"]]),
        (ALL_UNITS, [[-1], [-1]], [[""], [""]]),
    ],
)
def test_what_is_explained_is_the_target(client, target, units, labels):
    result = client.grad_cam(PHOTOS, target=target)
    explained = [list(report["grad_cam"]) for report in result.explained]
    assert [[each.index for each in image] for image in explained] == units
    assert [[each.label for each in image] for image in explained] == labels
    assert all((each.probability is None) == (each.index == -1) for image in explained for each in image)


def test_an_inner_layer_has_units_without_labels(client):
    result = client.grad_cam(PHOTOS, "block3_conv1", scored_layer="block5_conv1", target=511)
    (explained, _) = (report["grad_cam/block3_conv1"] for report in result.explained)
    assert (explained.index, explained.label, explained.kind, explained.probability) == (511, "", "activation", None)
    assert result.predictions == [[], []]


@pytest.mark.parametrize(("count", "expected"), [(None, 5), (0, 0), (17, 17)])
def test_predictions_are_the_best_classes(client, count, expected):
    result = client.grad_cam(PHOTOS, predictions=count)
    for predictions, explained in zip(result.predictions, result.explained, strict=True):
        assert len(predictions) == expected
        logits = [prediction.logit for prediction in predictions]
        assert logits == sorted(logits, reverse=True)
        assert all(prediction.label.startswith(("thing", "crane", "golden")) for prediction in predictions)
        assert all(prediction.probability is not None for prediction in predictions)
        if predictions:
            assert explained["grad_cam"].index == predictions[0].index


def test_a_result_says_where_it_came_from(client):
    result = client.grad_cam(PHOTOS, fresh=True)
    assert (result.model, result.model_digest, result.preprocess, result.preprocess_assumed) == (
        "null", "", "caffe", False,
    )  # fmt: skip
    assert (result.timing.precision, result.timing.batch_size) == ("float32", 2)
    assert result.timing.batch_cause == "nothing_waited"
    assert result.timing.worker
    assert len(result.job_id) == 32
    assert len(result.images) == 2


def test_an_equal_request_is_answered_by_the_same_result(client):
    photo = PHOTOS[0, :9]
    first, second = client.grad_cam(photo), client.grad_cam(photo)
    assert (first.cached, second.cached) == (False, True)
    assert first.job_id != second.job_id
    np.testing.assert_array_equal(first["grad_cam"], second["grad_cam"])
    assert not client.grad_cam(photo, fresh=True).cached
    assert not client.grad_cam(photo, target=1).cached


def test_map_yields_a_result_an_image_in_order(client):
    photos = [np.full((8, 8, 3), n, np.uint8) for n in range(40)]
    results = list(client.map(photos, [GradCAM()], target=range(40)))
    assert [result.explained[0]["grad_cam"].index for result in results] == list(range(40))
    assert all(result["grad_cam"].shape == (1, 14, 14) for result in results)


def test_map_yields_results_while_its_images_come_slowly(client):
    given = 0

    def slow_photos():
        nonlocal given
        while True:
            time.sleep(0.02)  # as from a camera
            given += 1
            yield np.full((8, 8, 3), given % 250, np.uint8)

    next(client.map(slow_photos(), [GradCAM()]))
    assert given < 64  # else it would wait for all the jobs that may be in flight


async def test_the_asynchronous_client_gets_the_same(targets):
    async with AsyncClient(targets[0], timeout=60) as client:
        small = await client.grad_cam(PHOTOS[0])
        large = await client.activations(PHOTOS, "block1_conv1")
        states = [status.state.name async for status in (await client.submit(PHOTOS, [GradCAM()])).watch()]
    assert small["grad_cam"].shape == (1, 14, 14)
    assert large["activations/block1_conv1"].shape == (2, 224, 224, 64)
    assert states[-1] == "SUCCEEDED"


def test_models_are_described_alike(client):
    cards = client.models()
    assert [card.name for card in cards] == ["null", "other"]
    expected = vgg16()
    for card in cards:
        assert card == client.model(card.name)
        assert card.layers == expected.layers
        for field in ("input_shape", "cam_layer", "has_probability", "preprocess", "precision", "digest"):
            assert getattr(card, field) == getattr(expected, field)
        assert (card.score_layer, card.classes, card.workers) == ("predictions", 1000, 1)
        assert card.labels[207] == "golden_retriever"
        assert {"vanilla", "integrated_gradients", "grad_cam", "score_cam", "activations", "occlusion"} <= set(
            card.methods
        )
    assert client.refused_models() == []


def test_the_limits_are_the_defaults_of_a_server(client):
    limits = client.server_info().limits
    assert (limits.max_images, limits.max_visualizations, limits.max_targets) == (64, 32, 16)
    assert (limits.max_result_bytes, limits.max_request_bytes, limits.max_stored_bytes) == (1 << 30, 64 << 20, 2 << 30)
    assert (limits.max_timeout, limits.default_timeout) == (3600, 300)
    assert (limits.max_image_pixels, limits.max_passes, limits.max_jobs) == (64_000_000, 100_000, 10_000)
    assert (limits.max_queued_bytes, limits.tenant_share, limits.tenant_rate) == (1 << 30, 0.5, None)
    assert limits.result_ttl > 0
    assert client.server_info().default_model == "null"
    assert client.server_info().features == ()


# --- on the wire ---


def spec_of(count, *visualizations):
    """A spec for `count` images."""
    images = [spec_pb2.Image(pixels=tensors.encode(PHOTOS[0]))] * count
    return spec_pb2.JobSpec(images=images, visualizations=[v.message() for v in visualizations], fresh=True)


def test_a_small_result_comes_in_the_header_and_a_large_one_in_chunks(stubs):
    small = visualization_pb2.VisualizeRequest(spec=spec_of(1, GradCAM()))
    parts = [part for part in stubs.visualizations.Visualize(small) if part.WhichOneof("part") != "job"]
    assert [part.WhichOneof("part") for part in parts] == ["header"]
    assert len(parts[0].header.data) == parts[0].header.total_bytes == 14 * 14 * 4
    large = visualization_pb2.VisualizeRequest(spec=spec_of(6, Saliency()))
    parts = [part for part in stubs.visualizations.Visualize(large) if part.WhichOneof("part") != "job"]
    assert [part.WhichOneof("part") for part in parts] == ["header", "chunk", "chunk"]
    assert not parts[0].header.data
    assert [part.chunk.offset for part in parts[1:]] == [0, 1 << 20]


def test_a_result_can_be_read_from_any_offset(client, stubs):
    job = client.submit(PHOTOS, [Saliency(), Activations("block3_conv1")])
    total = job.wait().result_bytes
    assert total == 2 * 4 * (224 * 224 + 56 * 56 * 256)

    def read(offset):
        parts = list(stubs.jobs.ReadJobResult(job_pb2.ReadJobResultRequest(id=job.id, offset=offset)))
        assert parts[0].header.total_bytes == total
        return b"".join(part.chunk.data for part in parts[1:])

    whole = read(0)
    assert len(whole) == total
    for offset in (1, 1 << 20, total):
        assert read(offset) == whole[offset:]


def test_every_call_ends_with_the_version(stubs):
    _, call = stubs.models.ListModels.with_call(model_pb2.ListModelsRequest())
    assert dict(call.trailing_metadata())["convlens-version"]

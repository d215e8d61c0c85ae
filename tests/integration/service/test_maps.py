"""The service returns what the engine computes, for every visualization, target, image type and payload store."""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys
from pathlib import Path

import grpc
import numpy as np
import pytest
from PIL import Image
from processes import running

from convlens.client import (
    ALL_UNITS,
    Activations,
    AsyncClient,
    Blur,
    Client,
    GradCAM,
    InvalidArgument,
    Occlusion,
    Output,
    Saliency,
    TopK,
)
from convlens.client.stubs import Stubs
from convlens.v1 import job_pb2
from convlens.worker.engine import plan
from convlens.worker.engine.explain import explain
from convlens.worker.engine.methods import integrated_gradients as ig
from convlens.worker.engine.methods.occlusion import Occlusion as EngineOcclusion
from convlens.worker.engine.methods.occlusion import SlidingPatch
from convlens.worker.engine.methods.score_cam import ScoreCAM
from convlens.worker.engine.methods.smooth_grad import GaussianNoise, SmoothGrad
from convlens.worker.engine.network import Network
from convlens.worker.shapes.model import PREPROCESS, load

PHOTOS = [
    Path(__file__).parents[3] / "examples" / "photos" / name for name in ("chelsea.png", "coffee.png", "rocket.jpg")
]


def cam(layer, method):
    return plan.GradCAM(layer, method=method)


VISUALIZATIONS = {  # array name: (the SDK's visualization, the engine's plan item)
    "saliency": (Saliency(), plan.Saliency()),
    "saliency/guided": (Saliency("guided"), plan.Saliency("guided")),
    "saliency/signed": (Saliency(signed=True), plan.Saliency(reduction="none")),
    "saliency/deconvnet": (Saliency("deconvnet"), plan.Saliency("deconvnet")),
    "saliency/gradient_x_input": (Saliency("gradient_x_input"), plan.Saliency("gradient_x_input")),
    "saliency/guided_grad_cam": (Saliency("guided_grad_cam"), plan.Saliency("guided_grad_cam", layer="block5_conv3")),
    "grad_cam": (GradCAM(), plan.GradCAM("block5_conv3")),
    "grad_cam/block4_pool/upsampled": (GradCAM("block4_pool", upsampled=True), plan.GradCAM("block4_pool", True)),
    "grad_cam_plus_plus": (
        GradCAM(method="grad_cam_plus_plus"),
        cam("block5_conv3", "grad_cam_plus_plus"),
    ),
    "hires_cam": (GradCAM(method="hires_cam"), cam("block5_conv3", "hires_cam")),
    "layer_cam/block4_conv3": (
        GradCAM("block4_conv3", method="layer_cam"),
        cam("block4_conv3", "layer_cam"),
    ),
    "grad_cam/signed": (GradCAM(signed=True), plan.GradCAM("block5_conv3", signed=True)),
    "score_cam/block5_pool": (GradCAM("block5_pool", method="score_cam"), ScoreCAM("block5_pool")),
    "saliency/smooth_grad": (Saliency("smooth_grad", samples=2), SmoothGrad(GaussianNoise(2, 0.15))),
    "saliency/var_grad/sum": (
        Saliency("var_grad", reduction="sum", samples=2),
        SmoothGrad(GaussianNoise(2, 0.15), "var_grad", "sum"),
    ),
    "saliency/smooth_grad_squared": (
        Saliency("smooth_grad_squared", samples=2, noise=0.25),
        SmoothGrad(GaussianNoise(2, 0.25), "smooth_grad_squared"),
    ),
    "saliency/integrated_gradients/signed": (
        Saliency("integrated_gradients", signed=True, steps=3, baselines=["black", Blur(4)]),
        ig.IntegratedGradients(ig.StraightPath(3, ((0.0, 0.0, 0.0), ig.Blur(4.0))), "none"),
    ),
    "occlusion": (Occlusion(80, 72, "white"), EngineOcclusion(SlidingPatch(80, 72, (255.0, 255.0, 255.0)))),
    "activations/block3_conv1/norm": (
        Activations("block3_conv1", range(3), "norm"),
        plan.Activation("block3_conv1", (0, 1, 2), "norm"),
    ),
    "activations/block1_conv1": (Activations("block1_conv1"), plan.Activation("block1_conv1")),
    "activations/fc1": (Activations(["fc1"]), plan.Activation("fc1")),
    "activations/block2_conv1": (Activations("block2_conv1", channels=[3, 0]), plan.Activation("block2_conv1", (3, 0))),
}
NAMES = list(VISUALIZATIONS)
REQUESTS, ITEMS = zip(*VISUALIZATIONS.values(), strict=True)
REDIS = pytest.mark.parametrize("target", ["redis"], indirect=True)
TARGETS = {  # the SDK's target, the engine's target codes of three images, and whether maps have a target axis
    "predicted": (None, [[-2]] * 3, False),
    "one class": (4, [[4]] * 3, False),
    "a class an image": ([4, None, 7], [[4], [-2], [7]], False),
    "several classes": ([[4, 7], [1, 2], [0, 10]], [[4, 7], [1, 2], [0, 10]], True),
    "the best three": (TopK(3), [[-2, -3, -4]] * 3, True),
    "all units": (ALL_UNITS, [[-1]] * 3, False),
}


@pytest.fixture(scope="module", params=["redis", "directory"])
def target(request, tmp_path_factory, own_valkey):
    folder = tmp_path_factory.mktemp("service")
    settings = {"payload_dir": folder / "payloads"} if request.param == "directory" else {}
    with running(folder, own_valkey, **settings) as service:
        service.worker("shapes=shapes")
        yield service.server()[1]


@pytest.fixture(scope="module")
def network():
    return Network(load(), PREPROCESS)


@pytest.fixture(scope="module")
def pixels():
    images = [Image.open(photo).convert("RGB").resize((224, 224), Image.Resampling.BILINEAR) for photo in PHOTOS]
    return np.stack([np.asarray(image) for image in images])


def assert_close(array, expected):
    assert array.shape == expected.shape
    assert array.dtype == np.float32
    np.testing.assert_allclose(array, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("kind", TARGETS)
def test_every_map_and_its_explanation_agree_with_the_engine(target, network, pixels, kind):
    sdk_target, codes, has_axis = TARGETS[kind]
    with Client(target) as client:
        result = client.visualize(PHOTOS, REQUESTS, target=sdk_target)
    codes = np.array(codes, np.int32)
    engine_plan = plan.Plan((), codes.shape[1], predictions=5)
    expected = explain(network, pixels, ITEMS, codes, plan=engine_plan)
    assert list(result) == NAMES
    for name, item in zip(NAMES, ITEMS, strict=True):
        array = expected.maps[item]
        assert_close(result[name], array if has_axis or isinstance(item, plan.Activation) else array[:, 0])
    for i, predictions in enumerate(result.predictions):
        assert [p.index for p in predictions] == expected.predicted[i].tolist()
        np.testing.assert_allclose([p.probability for p in predictions], expected.predicted_probabilities[i], atol=1e-4)
        for name, explained in result.explained[i].items():
            assert not name.startswith("activations/")
            targets = explained if has_axis else (explained,)
            assert [t.index for t in targets] == expected.targets[i].tolist()
            np.testing.assert_allclose([t.score for t in targets], expected.scores[i], rtol=1e-3, atol=1e-3)
            if "integrated" not in name:
                assert {t.baseline_output for t in targets} == {None}
                continue
            completeness = expected.completeness[VISUALIZATIONS[name][1]]
            baselines = [t.baseline_output for t in targets]
            np.testing.assert_allclose(baselines, completeness.baseline_scores[i], rtol=1e-3)
            np.testing.assert_allclose([t.completeness_delta for t in targets], completeness.delta[i], atol=1e-2)
            for t in targets:
                relative = t.completeness_delta / abs(t.score - t.baseline_output)
                assert t.completeness_delta_relative == pytest.approx(relative, rel=1e-4)
    assert result.timing.compute > 0
    assert result.timing.batch_size == 8


@REDIS
def test_a_unit_of_an_inner_layer_can_be_scored(target, network, pixels):
    with Client(target) as client:
        result = client.saliency(PHOTOS[0], scored_layer="block3_conv1", target=5)
    expected = network.run(pixels[:1], plan.Plan((plan.Saliency(),), scored_layer="block3_conv1"), [[5]])
    assert_close(result["saliency"], expected.maps[plan.Saliency()][:, 0])
    assert result.explained[0]["saliency"].kind == "activation"


@REDIS
def test_xrai_maps_consist_of_regions(target):
    with Client(target) as client:
        result = client.saliency(PHOTOS[1], "xrai", steps=2)
    regions = np.unique(result["saliency/xrai"])
    assert 10 < len(regions) < 3000
    assert result.explained[0]["saliency/xrai"].baseline_output is not None


@REDIS
def test_arrays_have_the_requested_size_dtype_and_normalization(target):
    with Client(target) as client:

        def results(**output):
            maps = client.saliency(PHOTOS, signed=True, output=Output(**output))
            layer = client.activations(PHOTOS, "block3_conv1", [1, 2], output=Output(**output))
            return maps, layer

        for raw, small, half, bytes_, unit in zip(
            results(), results(size=(56, 28)), results(dtype="float16"), results(dtype="uint8"),
            results(normalization="min_max", dtype="uint8"), strict=True,
        ):  # fmt: skip
            (name,) = raw
            values = raw[name]
            assert small[name].shape == (3, 56, 28, values.shape[-1])
            for i, image in enumerate(values):
                for channel in range(image.shape[-1]):
                    plane = Image.fromarray(image[..., channel]).resize((28, 56), Image.Resampling.BILINEAR)
                    np.testing.assert_allclose(small[name][i, ..., channel], plane, atol=1e-5 * np.abs(image).max())
            assert half[name].dtype == np.float16
            np.testing.assert_allclose(half[name], values, rtol=1e-3, atol=1e-6)
            assert bytes_[name].dtype == unit[name].dtype == np.uint8
            assert len(bytes_.quantization[name][0]) == len(PHOTOS)  # one for each map
            for i, part in enumerate(bytes_.split()):
                step = np.ptp(values[i]) / 255
                np.testing.assert_allclose(bytes_.restored(name)[i], values[i], atol=0.51 * step)
                np.testing.assert_array_equal(part.restored(name)[0], bytes_.restored(name)[i])
                span = (values[i] - values[i].min()) / np.ptp(values[i])
                np.testing.assert_allclose(unit.restored(name)[i], span, atol=0.51 / 255)


@REDIS
def test_each_layer_gets_its_own_map(target):
    with Client(target) as client:
        assert list(client.grad_cam(PHOTOS[0], ["block5_conv3", "block5_pool"])) == ["grad_cam", "grad_cam/block5_pool"]


@REDIS
def test_a_path_its_bytes_a_pillow_image_and_its_pixels_give_the_same_map(target):
    photo = PHOTOS[0]
    with Client(target) as client, Image.open(photo) as image:
        expected = client.saliency(photo)["saliency"]
        array = np.asarray(image.convert("RGB"))
        for same in (photo.read_bytes(), str(photo), image, array, array[None], [array]):
            np.testing.assert_array_equal(client.saliency(same)["saliency"], expected)
        file = io.BytesIO()
        image.convert("RGB").save(file, "BMP")
        np.testing.assert_array_equal(client.saliency(file.getvalue())["saliency"], expected)


@REDIS
def test_a_photo_with_transparency_gives_the_same_map_as_path_file_and_pillow_image(target, tmp_path):
    with Image.open(PHOTOS[1]) as photo:
        transparent = photo.convert("RGBA").resize((224, 224))
    transparent.putalpha(Image.fromarray(np.tile(np.arange(224, dtype=np.uint8), (224, 1))))
    transparent.save(path := tmp_path / "transparent.png")
    with Client(target) as client, path.open("rb") as file:
        expected = client.saliency(path)["saliency"]
        for same in (transparent, file, Image.open(path)):
            np.testing.assert_array_equal(client.saliency(same)["saliency"], expected)


@REDIS
def test_floats_with_a_value_range_give_the_map_of_the_photo(target, tmp_path):
    with Image.open(PHOTOS[0]) as image:
        photo = np.asarray(image.convert("RGB").resize((224, 224), Image.Resampling.BILINEAR))
    unit = photo.astype(np.float32) / 255
    np.save(tmp_path / "photo.npy", unit)
    command = [sys.executable, "-m", "convlens.client", "--server", target, "grad-cam", str(tmp_path / "photo.npy")]
    subprocess.run([*command, "--value-range", "0,1", "-o", str(tmp_path / "out")], check=True, capture_output=True)

    async def asynchronous_results():
        async with AsyncClient(target) as client:
            job = await client.submit(unit, [GradCAM()], value_range=(0, 1))
            mapped = [result async for result in client.map([unit], [GradCAM()], value_range=(0, 1))]
            return await client.grad_cam(unit * 2 - 1, value_range=(-1, 1)), await job.result(), *mapped

    with Client(target) as client:
        expected = client.grad_cam(photo)["grad_cam"]
        results = [
            client.grad_cam(photo.astype(float)),
            client.grad_cam(unit, value_range=(0, 1)),
            *client.grad_cam([unit, photo / 255], value_range=(0, 1)).split(),
            *client.map(np.stack([photo / 255, photo / 510]), [GradCAM()], value_range=(0, 1)),
            *asyncio.run(asynchronous_results()),
        ]
        with pytest.raises(InvalidArgument, match=r"multiply them by 255, or say value_range=\(0, 1\)"):
            client.grad_cam(unit)
    del results[5]  # the darker photo of map()
    with np.load(tmp_path / "out" / "photo" / "arrays.npz") as saved:
        maps = [*(result["grad_cam"] for result in results), saved["grad_cam"]]
    assert len(maps) == 9
    for map_ in maps:
        np.testing.assert_allclose(map_, expected, rtol=1e-3, atol=1e-3 * expected.max())


@REDIS
def test_map_returns_the_results_of_single_calls_in_order(target):
    photos = [*PHOTOS, *PHOTOS[::-1]] * 7
    with Client(target) as client:
        single = {photo: client.grad_cam(photo)["grad_cam"] for photo in PHOTOS}
        results = list(client.map(iter(photos), [GradCAM()]))
    assert len(results) == len(photos)
    for photo, result in zip(photos, results, strict=True):
        np.testing.assert_allclose(result["grad_cam"], single[photo], rtol=1e-3, atol=1e-4)


@REDIS
def test_the_asyncio_client_returns_the_same_results(target):
    with Client(target) as client:
        expected = client.visualize(PHOTOS, REQUESTS)

    async def results():
        async with AsyncClient(target) as client:
            job = await client.submit(PHOTOS, REQUESTS)
            mapped = [result async for result in client.map(PHOTOS, [GradCAM()])]
            return await client.visualize(PHOTOS, REQUESTS), await client.job(job.id).result(), mapped

    direct, by_id, mapped = asyncio.run(results())
    for result in (direct, by_id):
        assert list(result) == list(expected)
        for name in expected:
            assert_close(result[name], expected[name])
    best = [predictions[0].index for predictions in expected.predictions]
    assert [result.predictions[0][0].index for result in mapped] == best


def test_a_result_read_by_another_client_or_from_an_offset_is_that_of_the_call(target):
    with Client(target) as client:
        expected = client.visualize(PHOTOS, REQUESTS)
        job = client.submit(PHOTOS, REQUESTS)
    with Client(target) as other, grpc.insecure_channel(target) as channel:
        result = other.job(job.id).result()
        assert result.job_id == job.id != expected.job_id
        for name in NAMES:
            assert_close(result[name], expected[name])
        all_bytes = b"".join(result[name].tobytes() for name in NAMES)
        for offset in (0, 1, (1 << 20) + 5, len(all_bytes) - 3, len(all_bytes)):
            request = job_pb2.ReadJobResultRequest(id=job.id, offset=offset)
            header, *chunks = Stubs(channel).jobs.ReadJobResult(request)
            assert [tensor.name for tensor in header.header.tensors] == NAMES
            assert b"".join(response.chunk.data for response in chunks) == all_bytes[offset:]


@REDIS
def test_pictures_and_arrays_are_saved(target, tmp_path):
    with Client(target) as client:
        result = client.visualize(PHOTOS[:2], REQUESTS)
    paths = result.save(tmp_path / "out")
    assert all(path.stat().st_size for path in paths)
    with np.load(tmp_path / "out" / "arrays.npz") as arrays:
        np.testing.assert_array_equal(arrays["grad_cam"], result["grad_cam"])
    assert result.figure(1) is not None

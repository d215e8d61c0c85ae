"""Every method: the invariants that hold for all of them, and each one's formula computed by its definition."""

from __future__ import annotations

import gc
import resource

import nets
import numpy as np
import pytest

from convlens.worker.engine.cams import CAMS
from convlens.worker.engine.explain import explain
from convlens.worker.engine.methods import xrai
from convlens.worker.engine.methods.integrated_gradients import Blur, IntegratedGradients, StraightPath, blur
from convlens.worker.engine.methods.occlusion import Occlusion, SlidingPatch
from convlens.worker.engine.methods.score_cam import ScoreCAM
from convlens.worker.engine.methods.smooth_grad import MOMENTS, GaussianNoise, SmoothGrad, _standard_normal
from convlens.worker.engine.network import Network
from convlens.worker.engine.plan import (
    ALL_UNITS,
    CAM_METHODS,
    PREDICTED,
    SALIENCY_METHODS,
    Activation,
    GradCAM,
    Plan,
    Saliency,
)
from convlens.worker.method_registry import METHODS

PATH = StraightPath(4, ((0.0, 0.0, 0.0), (255.0, 255.0, 255.0), Blur(2.0)))
CASES = {
    **{name: Saliency(name, layer="c3" if row.times == "cam" else "") for name, row in SALIENCY_METHODS.items()},
    **{name: SmoothGrad(GaussianNoise(3, 0.15), name) for name in MOMENTS},
    "integrated_gradients": IntegratedGradients(PATH),
    "xrai": xrai.XRAI(PATH),
    **{name: GradCAM("c3", method=name) for name in CAM_METHODS},
    "score_cam": ScoreCAM("c3"),
    "occlusion": Occlusion(SlidingPatch(8, 5, None)),
    "activations": Activation("c3"),
}


@pytest.fixture(scope="module", params=nets.BUILDERS)
def model(request):
    return nets.build(request.param)


@pytest.fixture(scope="module")
def network(model):
    return Network(model, "none")


@pytest.fixture(scope="module")
def fused():
    return Network(nets.build("fused"), "caffe")


def close(actual, expected, tolerance=1e-4):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * max(1e-12, np.abs(expected).max()))


def targets(count):
    return np.resize(np.array([[0], [PREDICTED], [ALL_UNITS]], np.int32), (count, 1))


def test_every_method_has_a_case():
    assert set(CASES) == set(METHODS)
    assert set(CAMS) == set(CAM_METHODS)


# --- invariants of all methods ---


@pytest.mark.parametrize("name", CASES)
def test_a_batch_gives_the_maps_of_its_images_alone(network, name):
    x, item = nets.images(3), CASES[name]
    batched = explain(network, x, [item], targets(3), batch_size=7).maps[item]
    for i in range(3):
        single = explain(network, x[i : i + 1], [item], targets(3)[i : i + 1], batch_size=2).maps[item]
        close(batched[i : i + 1], single)


@pytest.mark.parametrize("name", CASES)
def test_a_method_gives_the_same_beside_all_others(fused, name):
    x = nets.images(1)
    every = explain(fused, x, CASES.values()).maps
    close(every[CASES[name]], explain(fused, x, [CASES[name]]).maps[CASES[name]])


@pytest.mark.parametrize("name", CASES)
def test_several_targets_are_explained_independently(fused, name):
    x, item = nets.images(2), CASES[name]
    if name == "activations":
        pytest.skip("explains no target")
    both = explain(fused, x, [item], np.array([[3, 1]] * 2, np.int32), plan=Plan((), targets=2)).maps[item]
    for t, unit in enumerate((3, 1)):
        close(both[:, t], explain(fused, x, [item], np.full((2, 1), unit, np.int32)).maps[item][:, 0])


@pytest.mark.parametrize("name", CASES)
def test_a_constant_added_to_all_logits_changes_nothing(name):
    model = nets.build("fused")
    item, x, units = CASES[name], nets.images(2), np.full((2, 1), 2, np.int32)
    before = explain(Network(model, "none"), x, [item], units).maps[item]
    kernel, bias = model.get_layer("out").get_weights()
    model.get_layer("out").set_weights([kernel, bias + 3])
    close(explain(Network(model, "none"), x, [item], units).maps[item], before, 1e-3)


@pytest.mark.parametrize(
    "name", sorted(set(CASES) - {"activations", "score_cam"})
)  # whose weights do not depend on differences of the score
def test_a_constant_score_gives_zeros(name):
    model = nets.build("fused")
    kernel, bias = model.get_layer("out").get_weights()
    model.get_layer("out").set_weights([kernel * 0, bias])
    actual = explain(Network(model, "none"), nets.images(1), [CASES[name]]).maps[CASES[name]]
    assert not actual.any()


@pytest.mark.parametrize("name", CASES)
def test_a_constant_image_gives_finite_maps(fused, name):
    actual = explain(fused, np.full((1, nets.SIZE, nets.SIZE, 3), 90, np.uint8), [CASES[name]]).maps[CASES[name]]
    assert np.isfinite(actual).all()


@pytest.mark.parametrize("name", CASES)
def test_a_method_is_deterministic_and_leaves_the_model_unchanged(model, network, name):
    before = [w.copy() for w in model.get_weights()]
    x, item = nets.images(2), CASES[name]
    one, two = (explain(network, x, [item]).maps[item] for _ in range(2))
    np.testing.assert_array_equal(one, two)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_memory_is_constant_over_a_thousand_jobs_of_changing_classes_and_layers(fused):
    x = nets.images(2)
    items = [Saliency(), CASES["integrated_gradients"], *(GradCAM(name) for name in ("c1", "c2", "c3"))]

    def memory_after(count):
        for i in range(count):
            explain(fused, x, [items[i % len(items)]], np.full((2, 1), i % 5, np.int32))
        gc.collect()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    before = memory_after(200)
    traces = fused.traces
    assert memory_after(1000) - before < 32  # MiB; 33 kB a job would be seen
    assert fused.traces == traces


def test_progress_rises_to_one_and_methods_share_equal_perturbations(fused):
    progress, passes = [], []
    run = fused.run

    class CountingNetwork:
        preprocess = fused.preprocess

        def run(self, images, plan, targets):
            passes.append(len(images))
            return run(images, plan, targets)

    items = [SmoothGrad(GaussianNoise(5, 0.1), name) for name in MOMENTS]
    explain(CountingNetwork(), nets.images(2), items, batch_size=3, progress=progress.append)
    assert passes == [2, 3, 3, 3, 1]
    assert progress == sorted(progress)
    assert progress[-1] == 1


# --- formulas ---


def signed_gradient(network, x, unit=0):
    item = Saliency(reduction="none")
    return network.run(x, Plan((item,)), np.full((len(x), 1), unit, np.int32)).maps[item][:, 0]


@pytest.mark.parametrize("name", MOMENTS)
def test_smooth_grad_is_the_moment_of_noisy_gradients(network, name):
    x = nets.images(1).astype(np.float32)
    noisy = [x + np.float32(0.15) * np.ptp(x) * _standard_normal(i, x.shape[1:]) for i in range(6)]
    gradients = np.stack([signed_gradient(network, copy)[0] for copy in noisy]).astype(np.float64)
    expected = {
        "smooth_grad": gradients.mean(0),
        "smooth_grad_squared": (gradients**2).mean(0),
        "var_grad": gradients.var(0),
    }[name]
    item = SmoothGrad(GaussianNoise(6, 0.15), name, "none")
    actual = explain(network, x, [item], np.zeros((1, 1), np.int32)).maps[item]
    close(actual[0, 0], expected)


def test_the_noise_is_normal_and_independent_for_each_copy():
    samples = np.stack([_standard_normal(i, (32, 32, 3)) for i in range(40)])
    assert abs(samples.mean()) < 0.01
    assert abs(samples.std() - 1) < 0.01
    assert np.abs(np.corrcoef(samples.reshape(40, -1)) - np.eye(40)).max() < 0.1


@pytest.mark.parametrize("scheme", ["caffe", "unit", "none"])
def test_integrated_gradients_add_up_to_the_difference_of_scores(scheme):
    network = Network(nets.build("fused"), scheme)
    x, units = nets.images(2), np.array([[1], [4]], np.int32)
    few, many = (IntegratedGradients(StraightPath(steps, PATH.baselines), "none") for steps in (4, 256))
    outputs = explain(network, x, [few, many], units, batch_size=16)
    assert set(outputs.completeness) == {few, many}
    baselines = np.stack([np.zeros_like(x[0]), np.full_like(x[0], 255)]).astype(np.float32)
    for i in range(2):
        starts = np.concatenate([baselines, blur(x[i].astype(np.float32), 2.0)[None]])
        ends = network.run(starts, Plan((Saliency(),)), np.full((3, 1), units[i, 0], np.int32)).scores.mean()
        actual = outputs.completeness[many]
        np.testing.assert_allclose(actual.baseline_scores[i, 0], ends, rtol=1e-4, atol=1e-4)
        difference = outputs.scores[i, 0] - ends
        total = outputs.maps[many][i, 0].sum(dtype=np.float64)
        np.testing.assert_allclose(actual.delta[i, 0], total - difference, atol=1e-3 * abs(total) + 1e-3)
        assert abs(actual.delta[i, 0]) < 0.05 * abs(difference)
    assert np.abs(outputs.completeness[few].delta).sum() > np.abs(outputs.completeness[many].delta).sum()


def test_a_blur_keeps_a_constant_image_and_spreads_a_point_by_a_gaussian():
    flat = np.full((9, 11, 3), 7, np.float32)
    close(blur(flat, 2.0), flat, 1e-6)
    point = np.zeros((41, 41, 1), np.float32)
    point[20, 20] = 1
    spread = blur(point, 3.0)[..., 0]
    ys, xs = np.mgrid[-20:21, -20:21]
    expected = np.exp(-(ys**2 + xs**2) / 18)
    close(spread, expected / expected.sum(), 0.02)


def test_occlusion_is_the_mean_drop_of_the_squares_that_cover_a_pixel(network):
    x = nets.images(1).astype(np.float32)
    item = Occlusion(SlidingPatch(7, 5, (10.0, 20.0, 30.0)))

    def score(image):
        return network.run(image[None], Plan((Saliency(),)), np.zeros((1, 1), np.int32)).scores[0, 0]

    drops, counts = np.zeros((2, nets.SIZE, nets.SIZE))
    starts = range(0, nets.SIZE - 7 + 5, 5)
    for y in starts:
        for x_start in starts:
            covered = x[0].copy()
            covered[y : y + 7, x_start : x_start + 7] = (10, 20, 30)
            drops[y : y + 7, x_start : x_start + 7] += score(x[0]) - score(covered)
            counts[y : y + 7, x_start : x_start + 7] += 1
    close(explain(network, x, [item], np.zeros((1, 1), np.int32)).maps[item][0, 0], drops / counts)


@pytest.mark.parametrize("upsampled", [False, True])
def test_score_cam_weights_channels_by_the_score_of_the_masked_image(fused, upsampled):
    x = nets.images(1)
    item = ScoreCAM("c3", upsampled)
    activation = fused.run(x, Plan((Activation("c3"),))).maps[Activation("c3")][0]
    varying = [a for a in np.moveaxis(activation, -1, 0) if np.ptp(a)]
    zero = np.array(fused.preprocess.zero)
    scores = []
    for a in varying:
        mask = upscale((a - a.min()) / np.ptp(a))
        masked = (zero + (x[0] - zero) * mask[..., None]).astype(np.float32)
        scores.append(fused.run(masked[None], Plan((Saliency(),)), np.zeros((1, 1), np.int32)).scores[0, 0])
    weights = np.exp(np.array(scores) - max(scores))
    expected = np.maximum((weights[:, None, None] / weights.sum() * np.stack(varying)).sum(0), 0)
    actual = explain(fused, x, [item], np.zeros((1, 1), np.int32)).maps[item][0, 0]
    close(actual, upscale(expected) if upsampled else expected, 1e-3)


def upscale(plane):
    """Resize bilinearly with half-pixel centres, by the definition."""
    h, w = plane.shape
    places = [np.clip((np.arange(nets.SIZE) + 0.5) * n / nets.SIZE - 0.5, 0, n - 1) for n in (h, w)]
    (y, fy), (x, fx) = ((p.astype(int), p % 1) for p in places)
    rows = plane[y] * (1 - fy)[:, None] + plane[np.minimum(y + 1, h - 1)] * fy[:, None]
    return rows[:, x] * (1 - fx) + rows[:, np.minimum(x + 1, w - 1)] * fx


def test_xrai_ranks_regions_as_the_plain_greedy_search_does():
    rng = np.random.default_rng(1)
    attribution = rng.normal(size=(40, 40)).astype(np.float32)
    masks = np.stack([rng.random((40, 40)) < share for share in rng.uniform(0.02, 0.4, 30)])
    expected = np.full((40, 40), np.nan)
    covered, remaining = np.zeros((40, 40), bool), list(masks)
    while remaining := [mask for mask in remaining if (mask & ~covered).sum() >= xrai.MIN_GAIN]:
        best = max(remaining, key=lambda mask: attribution[mask & ~covered].mean(dtype=np.float64))
        expected[best & ~covered] = attribution[best & ~covered].mean(dtype=np.float64)
        covered |= best
    expected[~covered] = attribution[~covered].mean(dtype=np.float64)
    close(xrai.rank_regions(attribution, masks), expected, 1e-5)


def test_xrai_finds_the_region_that_holds_the_attribution():
    image = np.full((64, 64, 3), 30, np.float32)
    image[20:44, 24:50] = (220, 40, 40)
    attribution = np.zeros((64, 64), np.float32)
    attribution[22:42, 26:48] = 1
    actual = xrai.rank_regions(attribution, xrai.segment(image))
    inside = np.zeros((64, 64), bool)
    inside[20:44, 24:50] = True
    assert actual[inside].min() > actual[~inside].mean()

"""Every method by every way of asking: what must hold of all of them, and each one's formula done slowly."""

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


def close(found, wanted, tolerance=1e-4):
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * max(1e-12, np.abs(wanted).max()))


def targets(count):
    return np.resize(np.array([[0], [PREDICTED], [ALL_UNITS]], np.int32), (count, 1))


def test_there_is_a_case_of_every_method():
    assert set(CASES) == set(METHODS)
    assert set(CAMS) == set(CAM_METHODS)


# --- what holds of all of them ---


@pytest.mark.parametrize("name", CASES)
def test_a_batch_is_its_singles_whoever_shares_it(network, name):
    x, item = nets.images(3), CASES[name]
    together = explain(network, x, [item], targets(3), batch_size=7).maps[item]
    for i in range(3):
        alone = explain(network, x[i : i + 1], [item], targets(3)[i : i + 1], batch_size=2).maps[item]
        close(together[i : i + 1], alone)


@pytest.mark.parametrize("name", CASES)
def test_it_rides_along_with_all_the_others(fused, name):
    x = nets.images(1)
    every = explain(fused, x, CASES.values()).maps
    close(every[CASES[name]], explain(fused, x, [CASES[name]]).maps[CASES[name]])


@pytest.mark.parametrize("name", CASES)
def test_several_targets_are_each_by_itself(fused, name):
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
)  # whose weights hang on no difference
def test_a_score_that_hangs_on_nothing_makes_zeros(name):
    model = nets.build("fused")
    kernel, bias = model.get_layer("out").get_weights()
    model.get_layer("out").set_weights([kernel * 0, bias])
    found = explain(Network(model, "none"), nets.images(1), [CASES[name]]).maps[CASES[name]]
    assert not found.any()


@pytest.mark.parametrize("name", CASES)
def test_a_flat_image_makes_no_nan(fused, name):
    found = explain(fused, np.full((1, nets.SIZE, nets.SIZE, 3), 90, np.uint8), [CASES[name]]).maps[CASES[name]]
    assert np.isfinite(found).all()


@pytest.mark.parametrize("name", CASES)
def test_it_is_the_same_twice_and_the_model_is_untouched(model, network, name):
    before = [w.copy() for w in model.get_weights()]
    x, item = nets.images(2), CASES[name]
    one, two = (explain(network, x, [item]).maps[item] for _ in range(2))
    np.testing.assert_array_equal(one, two)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_memory_is_flat_over_a_thousand_jobs_of_changing_classes_and_layers(fused):
    x = nets.images(2)
    items = [Saliency(), CASES["integrated_gradients"], *(GradCAM(name) for name in ("c1", "c2", "c3"))]

    def jobs(count):
        for i in range(count):
            explain(fused, x, [items[i % len(items)]], np.full((2, 1), i % 5, np.int32))
        gc.collect()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    before = jobs(200)
    traces = fused.traces
    assert jobs(1000) - before < 32  # MiB; 33 kB a job would be seen
    assert fused.traces == traces


def test_progress_rises_to_one_and_equal_variants_are_paid_once(fused):
    told, passes = [], []
    run = fused.run

    class Counted:
        preprocess = fused.preprocess

        def run(self, images, plan, targets):
            passes.append(len(images))
            return run(images, plan, targets)

    items = [SmoothGrad(GaussianNoise(5, 0.1), name) for name in MOMENTS]
    explain(Counted(), nets.images(2), items, batch_size=3, progress=told.append)
    assert passes == [2, 3, 3, 3, 1]
    assert told == sorted(told)
    assert told[-1] == 1


# --- each one's formula ---


def signed(network, x, unit=0):
    item = Saliency(reduction="none")
    return network.run(x, Plan((item,)), np.full((len(x), 1), unit, np.int32)).maps[item][:, 0]


@pytest.mark.parametrize("name", MOMENTS)
def test_smooth_grad_is_the_moment_of_noisy_gradients(network, name):
    x = nets.images(1).astype(np.float32)
    noisy = [x + np.float32(0.15) * np.ptp(x) * _standard_normal(i, x.shape[1:]) for i in range(6)]
    gradients = np.stack([signed(network, it)[0] for it in noisy]).astype(np.float64)
    wanted = {
        "smooth_grad": gradients.mean(0),
        "smooth_grad_squared": (gradients**2).mean(0),
        "var_grad": gradients.var(0),
    }[name]
    item = SmoothGrad(GaussianNoise(6, 0.15), name, "none")
    found = explain(network, x, [item], np.zeros((1, 1), np.int32)).maps[item]
    close(found[0, 0], wanted)


def test_the_noise_is_normal_and_its_own_for_each_sample():
    samples = np.stack([_standard_normal(i, (32, 32, 3)) for i in range(40)])
    assert abs(samples.mean()) < 0.01
    assert abs(samples.std() - 1) < 0.01
    assert np.abs(np.corrcoef(samples.reshape(40, -1)) - np.eye(40)).max() < 0.1


@pytest.mark.parametrize("scheme", ["caffe", "unit", "none"])
def test_integrated_gradients_add_up_to_the_difference(scheme):
    network = Network(nets.build("fused"), scheme)
    x, units = nets.images(2), np.array([[1], [4]], np.int32)
    few, many = (IntegratedGradients(StraightPath(steps, PATH.baselines), "none") for steps in (4, 256))
    outputs = explain(network, x, [few, many], units, batch_size=16)
    assert set(outputs.completeness) == {few, many}
    baselines = np.stack([np.zeros_like(x[0]), np.full_like(x[0], 255)]).astype(np.float32)
    for i in range(2):
        starts = np.concatenate([baselines, blur(x[i].astype(np.float32), 2.0)[None]])
        ends = network.run(starts, Plan((Saliency(),)), np.full((3, 1), units[i, 0], np.int32)).scores.mean()
        found = outputs.completeness[many]
        np.testing.assert_allclose(found.baseline_scores[i, 0], ends, rtol=1e-4, atol=1e-4)
        difference = outputs.scores[i, 0] - ends
        total = outputs.maps[many][i, 0].sum(dtype=np.float64)
        np.testing.assert_allclose(found.delta[i, 0], total - difference, atol=1e-3 * abs(total) + 1e-3)
        assert abs(found.delta[i, 0]) < 0.05 * abs(difference)
    assert np.abs(outputs.completeness[few].delta).sum() > np.abs(outputs.completeness[many].delta).sum()


def test_a_blur_keeps_a_flat_image_and_the_mean_of_a_point():
    flat = np.full((9, 11, 3), 7, np.float32)
    close(blur(flat, 2.0), flat, 1e-6)
    point = np.zeros((41, 41, 1), np.float32)
    point[20, 20] = 1
    spread = blur(point, 3.0)[..., 0]
    ys, xs = np.mgrid[-20:21, -20:21]
    wanted = np.exp(-(ys**2 + xs**2) / 18)
    close(spread, wanted / wanted.sum(), 0.02)


def test_occlusion_is_the_mean_loss_of_the_squares_over_a_pixel(network):
    x = nets.images(1).astype(np.float32)
    item = Occlusion(SlidingPatch(7, 5, (10.0, 20.0, 30.0)))

    def score(image):
        return network.run(image[None], Plan((Saliency(),)), np.zeros((1, 1), np.int32)).scores[0, 0]

    losses, counts = np.zeros((2, nets.SIZE, nets.SIZE))
    starts = range(0, nets.SIZE - 7 + 5, 5)
    for y in starts:
        for left in starts:
            covered = x[0].copy()
            covered[y : y + 7, left : left + 7] = (10, 20, 30)
            losses[y : y + 7, left : left + 7] += score(x[0]) - score(covered)
            counts[y : y + 7, left : left + 7] += 1
    close(explain(network, x, [item], np.zeros((1, 1), np.int32)).maps[item][0, 0], losses / counts)


@pytest.mark.parametrize("upsampled", [False, True])
def test_score_cam_weighs_channels_by_what_is_seen_through_them(fused, upsampled):
    x = nets.images(1)
    item = ScoreCAM("c3", upsampled)
    activation = fused.run(x, Plan((Activation("c3"),))).maps[Activation("c3")][0]
    live = [a for a in np.moveaxis(activation, -1, 0) if np.ptp(a)]
    zero = np.array(fused.preprocess.zero)
    scores = []
    for a in live:
        mask = upscaled((a - a.min()) / np.ptp(a))
        seen = (zero + (x[0] - zero) * mask[..., None]).astype(np.float32)
        scores.append(fused.run(seen[None], Plan((Saliency(),)), np.zeros((1, 1), np.int32)).scores[0, 0])
    weights = np.exp(np.array(scores) - max(scores))
    wanted = np.maximum((weights[:, None, None] / weights.sum() * np.stack(live)).sum(0), 0)
    found = explain(fused, x, [item], np.zeros((1, 1), np.int32)).maps[item][0, 0]
    close(found, upscaled(wanted) if upsampled else wanted, 1e-3)


def upscaled(plane):
    """Bilinear with half-pixel centres, by its definition."""
    h, w = plane.shape
    places = [np.clip((np.arange(nets.SIZE) + 0.5) * n / nets.SIZE - 0.5, 0, n - 1) for n in (h, w)]
    (y, fy), (x, fx) = ((p.astype(int), p % 1) for p in places)
    rows = plane[y] * (1 - fy)[:, None] + plane[np.minimum(y + 1, h - 1)] * fy[:, None]
    return rows[:, x] * (1 - fx) + rows[:, np.minimum(x + 1, w - 1)] * fx


def test_xrai_takes_regions_by_density_as_the_plain_greedy_search_does():
    rng = np.random.default_rng(1)
    attribution = rng.normal(size=(40, 40)).astype(np.float32)
    masks = np.stack([rng.random((40, 40)) < share for share in rng.uniform(0.02, 0.4, 30)])
    wanted = np.full((40, 40), np.nan)
    taken, left = np.zeros((40, 40), bool), list(masks)
    while left := [mask for mask in left if (mask & ~taken).sum() >= xrai.MIN_GAIN]:
        best = max(left, key=lambda mask: attribution[mask & ~taken].mean(dtype=np.float64))
        wanted[best & ~taken] = attribution[best & ~taken].mean(dtype=np.float64)
        taken |= best
    wanted[~taken] = attribution[~taken].mean(dtype=np.float64)
    close(xrai.rank_regions(attribution, masks), wanted, 1e-5)


def test_xrai_finds_the_region_that_holds_the_attribution():
    image = np.full((64, 64, 3), 30, np.float32)
    image[20:44, 24:50] = (220, 40, 40)
    attribution = np.zeros((64, 64), np.float32)
    attribution[22:42, 26:48] = 1
    found = xrai.rank_regions(attribution, xrai.segment(image))
    inside = np.zeros((64, 64), bool)
    inside[20:44, 24:50] = True
    assert found[inside].min() > found[~inside].mean()

"""Pictures of maps, pixel by pixel: colours, signs, ranges and sizes, over the photo and alone."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from convlens.client import InvalidArgument
from convlens.client.drawing import Style, compose, strongest, to_heat
from convlens.client.images import pack
from convlens.client.options import CAM_METHODS, REDUCTIONS, SALIENCY_METHODS, is_signed

RNG = np.random.default_rng(1)
PHOTO = RNG.integers(0, 256, (50, 70, 3), np.uint8)
GRAY = np.full((40, 40, 3), 128, np.uint8)
HALVES = np.repeat([[1.0, 0.5, 0, -0.5, -1.0]], 5, 0)
"""Columns from the strongest evidence for the target to the strongest against it."""


def draw(map_, photo=GRAY, *, signed=True, **style):
    given = Style(**style)
    return compose(to_heat(np.asarray(map_, np.float32), given, signed=signed), photo, given).astype(int)


@pytest.mark.parametrize("signed", [False, True])
def test_a_zero_map_leaves_every_pixel_of_the_photo_as_it_is(make_result, signed):
    np.testing.assert_array_equal(draw(np.zeros((4, 4)), PHOTO, signed=signed), PHOTO)
    result = make_result({"grad_cam": np.zeros((1, 4, 4))}, 7, pack(PHOTO))
    np.testing.assert_array_equal(np.asarray(result.overlay("grad_cam")), PHOTO)


def test_small_values_hardly_change_the_photo_and_never_darken_it():
    ramp = np.linspace(0, 1, 64)[None]
    change = draw(ramp, np.full((1, 64, 3), 128, np.uint8), signed=False)[0] - 128
    assert np.abs(change[:6]).max() <= 4
    luminance = change @ [0.299, 0.587, 0.114]
    assert luminance.min() > -16
    assert np.abs(np.diff(change, axis=0)).max() < 16


def test_signs_differ_in_hue_and_zero_is_the_photo():
    picture = draw(HALVES, cmap=None)
    strong_for, zero, strong_against = picture[20, 2], picture[20, 20], picture[20, -3]
    assert strong_for[0] > strong_for[2] + 100
    assert strong_against[2] > strong_against[0] + 100
    assert np.abs(zero - 128).max() <= 2
    assert strong_against.sum() < draw(np.ones((4, 4)), signed=False)[2, 2].sum()


@pytest.mark.parametrize("kind", ["blended_heat_map", "heat_map"])
def test_colours_are_symmetric_about_zero(kind):
    heat = to_heat(np.float32([[4, 0], [-1, 2]]), Style(kind=kind), signed=True)
    assert (heat.diverging, heat.low) == (True, -heat.limit)
    unsigned = to_heat(np.float32([[4, 0], [1, 2]]), Style(kind=kind), signed=False)
    assert (unsigned.diverging, unsigned.low) == (False, 0)


def test_a_signed_map_without_negative_values_keeps_the_colours_of_evidence_for():
    assert to_heat(np.ones((2, 2), np.float32), Style(), signed=True).diverging


def test_negative_values_are_never_drawn_as_the_highest_ones_of_an_unsigned_map():
    assert to_heat(-np.ones((2, 2), np.float32), Style(), signed=False).diverging


@pytest.mark.parametrize(
    ("sign", "expected"),
    [("absolute", [2, 2, 1]), ("positive", [2, 0, 0]), ("negative", [0, 2, 0]), ("both", [2, -2, 0])],
)
def test_a_sign_selects_its_values(sign, expected):
    map_ = np.float32([[[2, 0, 0], [-2, 0, 0], [1, -1, 0]]])
    heat = to_heat(map_, Style(sign=sign, percentile=100), signed=True)
    assert heat.values.tolist() == [expected]
    assert (heat.diverging, heat.limit) == (sign == "both", 2)


def test_one_strong_pixel_does_not_dim_the_rest():
    map_ = np.ones((20, 20))
    map_[3, 3] = 1e6
    assert strongest(map_, 99.5) == 1
    map_ = np.zeros((20, 20))
    map_[3, 3] = 7
    assert strongest(map_, 50) == 7


def test_values_that_are_not_finite_are_drawn_as_zero():
    np.testing.assert_array_equal(draw([[np.nan, np.inf], [-np.inf, 0]], PHOTO), PHOTO)


def test_a_small_map_is_upsampled_smoothly_and_stays_in_its_range():
    map_ = np.zeros((7, 7))
    map_[3, 3] = 1
    over = draw(map_, np.zeros((140, 140, 3), np.uint8), signed=False, percentile=100)
    row = over[70, :, 1]
    assert (np.diff(row[:68]) >= 0).all(), "no ringing, no steps back"
    assert len(set(row[40:70])) >= 12
    assert draw(map_, None, signed=False).shape == (224, 224, 3)


def test_every_kind_combines_map_and_photo_in_its_way():
    map_ = np.float32([[1, 0], [0, 0]])
    pictures = {
        kind: draw(np.kron(map_, np.ones((20, 20))), GRAY, kind=kind, percentile=100)
        for kind in ("masked_image", "alpha_scaling", "original_image", "heat_map", "blended_heat_map")
    }
    high, low = (5, 5), (35, 35)
    assert (pictures["original_image"] == 128).all()
    assert (pictures["masked_image"][high] == 128).all()
    assert (pictures["masked_image"][low] == 0).all()
    assert (pictures["alpha_scaling"][high] == 128).all()
    assert (pictures["alpha_scaling"][low] == 255).all()
    assert (pictures["blended_heat_map"][low] == 128).all()
    assert pictures["heat_map"][low].min() > 240, "white, the middle of RdBu_r"
    assert pictures["heat_map"].shape == GRAY.shape


def test_masks_of_signed_maps_show_the_evidence_for_the_target():
    masked = draw(HALVES, kind="masked_image")
    assert (masked[20, 2] == 128).all()
    assert (masked[20, 20:] == 0).all()


def test_a_gray_background_takes_the_colours_from_the_photo_alone():
    picture = draw(np.zeros((2, 2)), PHOTO, background="gray")
    assert (picture == picture[..., :1]).all()
    assert np.ptp(draw(np.ones((2, 2)), PHOTO, background="gray"), axis=-1).max() > 100


def test_opacity_is_that_of_the_strongest_parts():
    np.testing.assert_array_equal(draw(np.ones((2, 2)), opacity=0.0), GRAY)
    opaque, alone = draw(np.ones((2, 2)), opacity=1.0, cmap="jet"), draw(np.ones((2, 2)), kind="heat_map", cmap="jet")
    np.testing.assert_array_equal(opaque, alone)


def test_an_overlay_has_the_photos_size_and_may_have_another_photo(make_result):
    result = make_result({"grad_cam/c3": RNG.random((2, 3, 4, 4))}, [1, 2, 3], pack([PHOTO, GRAY]))
    assert [result.overlay("grad_cam", i).size for i in (0, 1)] == [(70, 50), (40, 40)]
    other = result.overlay("grad_cam", 1, 2, photo=Image.new("L", (90, 30)))
    assert (other.size, other.mode) == ((90, 30), "RGB")
    assert result.overlay("grad_cam", photo=PHOTO / 255.0, value_range=(0, 1)).size == (70, 50)
    first, second = (np.asarray(result.overlay("grad_cam", 0, target)) for target in (0, 1))
    assert (first != second).any()


def test_without_a_photo_an_overlay_says_how_to_give_it(make_result):
    result = make_result({"grad_cam": RNG.random((1, 4, 4))}, 7)
    with pytest.raises(InvalidArgument, match="give it as photo="):
        result.overlay("grad_cam")
    assert result.overlay("grad_cam", kind="heat_map").size == (224, 224)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("grad_cam", 2), InvalidArgument, "image is 2; allowed: 0…1"),
        (("grad_cam", -1), InvalidArgument, "image is -1"),
        (("grad_cam", 0, 1), InvalidArgument, "target is 1; allowed: 0 "),
        (("cam",), KeyError, "there are grad_cam, activations/c1"),
        (("activations/c1",), InvalidArgument, r"\(8, 8, 6\), which is not one map; reduce its channels"),
    ],
)
def test_what_is_not_there_is_refused(make_result, arguments, error, message):
    result = make_result(
        {"grad_cam": np.ones((2, 4, 4)), "activations/c1": np.ones((2, 8, 8, 6))}, 7, pack([PHOTO] * 2)
    )
    with pytest.raises(error, match=message):
        result.overlay(*arguments)


def test_a_shared_scale_makes_images_and_targets_comparable(make_result):
    strengths = np.float32([[1, 0.5], [0.25, 0]])
    result = make_result({"layer_cam": np.ones((2, 2, 4, 4)) * strengths[..., None, None]}, [1, 2], pack([GRAY] * 2))
    for scale, distinct in (("panel", 2), ("shared", 4)):
        colors = {
            tuple(np.asarray(result.overlay("layer_cam", i, t, scale=scale))[9, 9]) for i in (0, 1) for t in (0, 1)
        }
        assert len(colors) == distinct


def names_of_maps():
    """Yield the name of each map that a server computes, and whether it may be negative, by the mathematics."""
    for method in SALIENCY_METHODS:
        squares = method in {"smooth_grad_squared", "var_grad"}
        stem = "saliency" + f"/{method}" * (method != "vanilla")
        yield stem, False
        if method != "xrai":
            for reduction in ("signed", *sorted(set(REDUCTIONS) - {"none", "abs_max"})):
                yield f"{stem}/{reduction}", not squares and reduction != "norm"
    for method in CAM_METHODS:
        yield method, False
        yield f"{method}/signed", True
        yield f"{method}/c1/upsampled", False
        yield f"{method}/c1/upsampled/signed", True
    yield "occlusion", True
    yield "activations/signed", False


@pytest.mark.parametrize(("name", "signed"), list(names_of_maps()))
def test_signed_maps_are_known_by_their_name_and_every_map_can_be_drawn(make_result, name, signed):
    assert is_signed(name) == signed
    values = RNG.normal(size=(1, 8, 8)) if signed else RNG.random((1, 8, 8))
    picture = np.asarray(make_result({name: values}, 7, pack(PHOTO)).overlay(name))
    assert picture.shape == PHOTO.shape
    assert (picture != PHOTO).any()

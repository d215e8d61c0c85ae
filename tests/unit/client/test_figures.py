"""Figures: drawn without a display from any result, readable as files, and a flat map is flat rather than NaN."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from convlens.client import InvalidArgument, figures
from convlens.client.figures import SIGNS, Style
from convlens.client.images import pack

RNG = np.random.default_rng(0)
PHOTOS = pack([RNG.integers(0, 256, (40, 60, 3), np.uint8) for _ in range(2)])
MAPS = {"saliency": RNG.random((2, 16, 16)), "grad_cam": RNG.random((2, 4, 4))}
LAYERS = {"activations/c1": RNG.random((2, 8, 8, 6)), "activations/c2": RNG.random((2, 4, 4, 2))}


@pytest.fixture(autouse=True)
def _no_display_and_no_warning(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def titles(figure):
    return [axes.get_title(loc="left") for axes in figure.axes if axes.get_visible()]


def drawn_arrays(figure):
    """Render a figure, which must raise no warning, and return every array that is drawn in it."""
    assert Image.open(io.BytesIO(figures.encoded(figure))).width > 100
    return [np.ma.filled(image.get_array(), np.nan) for axes in figure.axes for image in axes.get_images()]


def test_a_figure_shows_the_photo_and_each_map_with_its_explanation(make_result):
    figure = make_result(MAPS, 7, PHOTOS).figure(1)
    assert titles(figure) == ["image", "saliency", "grad_cam"]
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert texts == ["predicted: cat 87.5%", "unit7 · logit 1.50", "unit7 · logit 1.50"]


def test_every_target_of_a_target_axis_is_drawn(make_result):
    result = make_result({"saliency": RNG.random((1, 6, 16, 16))}, [1, 2, 3, 4, 5, -1], PHOTOS[:1])
    figure = result.figure()
    assert titles(figure) == ["image"] + ["saliency"] * 6
    assert figure.axes[6].texts[0].get_text() == "all units · logit 1.50"
    drawn_arrays(figure)


@pytest.mark.parametrize("images", [PHOTOS, ()], ids=["photo", "no photo"])
@pytest.mark.parametrize("overlay", [True, False])
@pytest.mark.parametrize("sign", SIGNS)
def test_signed_maps_are_drawn_in_every_sign(make_result, sign, overlay, images):
    signed = RNG.normal(size=(2, 16, 16, 3))
    figure = make_result({"saliency/signed": signed}, 7, images).figure(sign=sign, overlay=overlay)
    map_ = drawn_arrays(figure)[-1]
    assert np.isfinite(map_).all()
    assert map_.max() <= 1
    assert (map_.min() < 0) == (sign == "both")


@pytest.mark.parametrize(
    ("sign", "expected"),
    [("absolute", [1, 1, 0.5]), ("positive", [1, 0, 0]), ("negative", [0, 1, 0]), ("both", [1, -1, 0])],
)
def test_a_sign_selects_its_values(sign, expected):
    map_ = np.array([[[2.0, 0, 0], [-2, 0, 0], [1, -1, 0]]])
    values, low, both = figures._scaled(map_, Style(sign=sign, percentile=100))
    assert values.tolist() == [expected]
    assert (low, both) == ((-1, True) if sign == "both" else (0, False))


@pytest.mark.parametrize("value", [0.0, 1e-30, 5.0])
@pytest.mark.parametrize("style", [{}, {"overlay": False}, {"sign": "both"}, {"cmap": "jet"}, {"percentile": 0.1}])
def test_a_flat_map_gives_no_nan(make_result, value, style):
    result = make_result(
        {"grad_cam": np.full((1, 4, 4), value), "saliency/signed": np.full((1, 4, 4, 3), value)}, 7, PHOTOS[:1]
    )
    assert all(np.isfinite(array).all() for array in drawn_arrays(result.figure(**style)))


def test_one_strong_pixel_does_not_dim_the_rest():
    map_ = np.ones((20, 20))
    map_[3, 3] = 1e6
    assert figures._scaled(map_, Style())[0].min() == 1
    map_ = np.zeros((20, 20))
    map_[3, 3] = 7
    assert figures._scaled(map_, Style(percentile=50))[0].max() == 1


def test_the_layer_grid_has_layers_as_rows_and_channels_as_columns(make_result):
    figure = make_result(LAYERS, images=PHOTOS, channels={"activations/c2": [9, 4]}).figure(columns=3)
    assert titles(figure) == ["c1"] * 3 + ["c2"] * 2
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert texts == ["channel 0", "channel 1", "channel 2", "channel 9", "channel 4"]
    np.testing.assert_array_equal(drawn_arrays(figure)[4], LAYERS["activations/c2"][0, ..., 1].astype(np.float32))


@pytest.mark.parametrize(
    ("count", "names"),
    [
        (1, ["maps.png", "layerwise_output.jpg", "arrays.npz"]),
        (2, ["maps_000.png", "layerwise_output_000.jpg", "maps_001.png", "layerwise_output_001.jpg", "arrays.npz"]),
    ],
)
def test_everything_of_a_result_is_saved_and_can_be_read(make_result, tmp_path, count, names):
    arrays = {name: array[:count] for name, array in (MAPS | LAYERS).items()}
    written = make_result(arrays, 7, PHOTOS[:count]).save(tmp_path / "new" / "out")
    assert [path.name for path in written] == names
    for path in written[:-1]:
        with Image.open(path) as image:
            image.load()
            assert image.format == {".png": "PNG", ".jpg": "JPEG"}[path.suffix]
            assert len(image.convert("RGB").getcolors(1 << 24)) > 50
    with np.load(written[-1]) as saved:
        assert {name.replace("/", ".") for name in arrays} == set(saved)
        np.testing.assert_array_equal(saved["activations.c1"], arrays["activations/c1"].astype(np.float32))


def test_outputs_without_an_extent_in_space_are_saved_as_arrays_and_are_no_figure(make_result, tmp_path):
    result = make_result({"activations/fc": RNG.random((1, 10))}, images=PHOTOS[:1])
    assert [path.name for path in result.save(tmp_path)] == ["arrays.npz"]
    with pytest.raises(InvalidArgument, match="neither maps nor layers with an extent in space"):
        result.figure()
    assert result._repr_png_() is None


def test_a_notebook_shows_the_figure(make_result):
    assert make_result(MAPS, 7, PHOTOS)._repr_png_().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("style", "message"),
    [
        ({"sign": "plus"}, "no sign 'plus'; allowed: absolute, positive, negative, both"),
        ({"opacity": 1.1}, "opacity must be in 0…1"),
        ({"opacity": -0.1}, "opacity must be in 0…1"),
        ({"percentile": 0}, "percentile above 0, up to 100"),
        ({"percentile": 101}, "percentile above 0, up to 100"),
        ({"columns": 0}, "columns must be 1 or more"),
        ({"cmap": "rainbows"}, "no colour map 'rainbows'"),
    ],
)
def test_a_wrong_style_is_refused_with_what_is_allowed(make_result, tmp_path, style, message):
    result = make_result(MAPS | LAYERS, 7, PHOTOS)
    with pytest.raises(InvalidArgument, match=message):
        result.save(tmp_path / "out", **style)

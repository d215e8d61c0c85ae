"""Figures: drawn without a display from any result, readable as files, and a flat map is flat rather than NaN."""

from __future__ import annotations

import inspect
import io
import sys
import warnings
from dataclasses import fields

import numpy as np
import pytest
from PIL import Image

from convlens.client import Client, InvalidArgument, MissingExtra, Result, keras_vis
from convlens.client.drawing import SIGNS, Style
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
    assert Image.open(io.BytesIO(figure.encode())).width > 100
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
@pytest.mark.parametrize("kind", ["blended_heat_map", "heat_map"])
@pytest.mark.parametrize("sign", SIGNS)
def test_a_panel_is_the_overlay_and_its_bar_has_the_range(make_result, sign, kind, images):
    signed = RNG.normal(size=(2, 16, 16, 3))
    result = make_result({"saliency/signed": signed}, 7, images)
    figure = result.figure(1, sign=sign, kind=kind)
    drawn = drawn_arrays(figure)[-1]
    overlay = result.overlay("saliency", 1, sign=sign, kind=kind if images else "heat_map")
    np.testing.assert_array_equal(drawn, np.asarray(overlay))
    (bar,) = figure.axes[-1].child_axes
    ticks = [float(label.get_text()) for label in bar.get_xticklabels()]
    assert ticks == ([-ticks[-1], 0, ticks[-1]] if sign == "both" else [0, ticks[-1]])


@pytest.mark.parametrize("value", [0.0, 1e-30, 5.0])
@pytest.mark.parametrize("style", [{}, {"kind": "heat_map"}, {"sign": "both"}, {"cmap": "jet"}, {"percentile": 0.1}])
def test_a_flat_map_gives_no_nan(make_result, value, style):
    result = make_result(
        {"grad_cam": np.full((1, 4, 4), value), "saliency/signed": np.full((1, 4, 4, 3), value)}, 7, PHOTOS[:1]
    )
    assert all(np.isfinite(array).all() for array in drawn_arrays(result.figure(**style)))


def test_the_layer_grid_has_layers_as_rows_and_channels_as_columns(make_result):
    figure = make_result(LAYERS, images=PHOTOS, channels={"activations/c2": [9, 4]}).figure(columns=3)
    assert titles(figure) == ["c1 · 8×8×6", "", "", "c2 · 4×4×2", ""]
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert [text.partition(" · ")[0] for text in texts] == [f"channel {n}" for n in (0, 1, 2, 9, 4)]
    channel = LAYERS["activations/c1"][0, ..., 0]
    assert texts[0] == f"channel 0 · {channel.min():.3g} … {channel.max():.3g}"
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


def test_channels_of_a_layer_share_a_range_on_request_and_signed_layers_have_zero_in_the_middle(make_result):
    result = make_result({"activations/bn": RNG.normal(size=(1, 4, 4, 3)) * [1, 2, 3]}, images=PHOTOS[:1])
    for scale in ("panel", "shared"):
        limits = [axes.get_images()[0].get_clim() for axes in result.figure(scale=scale).axes]
        assert all(low == -high for low, high in limits)
        assert len(set(limits)) == (1 if scale == "shared" else 3)


def test_one_map_is_drawn_on_the_callers_axes(make_result):
    from matplotlib.figure import Figure

    maps = {name: np.stack([array, 1 - array], axis=1) for name, array in MAPS.items()}
    result = make_result(maps, [1, 2], PHOTOS)
    own = Figure()
    left, right = own.subplots(1, 2)
    assert result.figure(1, name="grad_cam", target=1, ax=right) is None
    assert titles(own) == ["", "grad_cam"]
    assert not left.get_images()
    with pytest.raises(InvalidArgument, match=r"the image has 4; choose by name \(saliency, grad_cam\) and target"):
        result.figure(ax=left)
    assert titles(result.figure(name="grad_cam")) == ["image", "grad_cam", "grad_cam"]


def test_long_names_and_labels_fit_into_their_panel(make_result):
    name = "grad_cam/mixed_10_branch_3x3_double_conv2d_93_activation/upsampled/signed"
    figure = make_result({name: RNG.normal(size=(1, 4, 4)), "saliency": RNG.random((1, 4, 4))}, 7, PHOTOS[:1]).figure()
    drawn_arrays(figure)
    for axes in figure.axes:
        panel = axes.get_window_extent()
        assert all(text.get_window_extent().x1 <= panel.x1 + 2 for text in [axes._left_title, *axes.texts])


@pytest.mark.parametrize("call", ["figure", "save", "overlay"])
@pytest.mark.parametrize(("module", "package"), [("matplotlib", "matplotlib"), ("PIL", "Pillow")])
def test_a_missing_package_is_named_with_its_command_before_anything_is_written(
    make_result, tmp_path, monkeypatch, call, module, package
):
    result = make_result(MAPS, 7, PHOTOS)
    monkeypatch.setitem(sys.modules, module, None)
    arguments = {"figure": (), "save": (tmp_path / "out",), "overlay": ("grad_cam",)}[call]
    with pytest.raises(MissingExtra, match=rf'{call}\(\) needs {package}: pip install "convlens-client\[figures\]"'):
        getattr(result, call)(*arguments)
    assert result._repr_html_() is None
    assert not list(tmp_path.iterdir())


def test_class_activation_maps_of_keras_vis_name_scipy_before_the_server_is_called(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    model = keras_vis.Model(Client("nowhere.invalid:1"))
    with pytest.raises(MissingExtra, match=r'needs SciPy: pip install "convlens-client\[keras-vis\]"'):
        keras_vis.visualize_cam(model, -1, 3, np.zeros((8, 8, 3), np.uint8))


def test_a_file_is_complete_or_not_there(make_result, tmp_path, monkeypatch):
    result = make_result(MAPS, 7, PHOTOS[:1] * 2)
    monkeypatch.setattr(np, "savez", lambda file, **_: (file.write(b"PK"), 1 / 0))
    with pytest.raises(ZeroDivisionError):
        result.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["maps_000.png", "maps_001.png"]


@pytest.mark.parametrize(
    ("style", "message"),
    [
        ({"kind": "overlay"}, "no kind 'overlay'; allowed: blended_heat_map, heat_map, masked_image"),
        ({"scale": "log"}, "no scale 'log'; allowed: panel, shared"),
        ({"background": "grey"}, "no background 'grey'; allowed: color, gray"),
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
    assert not list(tmp_path.iterdir())


def test_the_options_are_those_of_a_style():
    names = {field.name: field.default for field in fields(Style)}
    for method, others in ((Result.figure, {"image", "name", "target", "ax"}), (Result.save, {"folder"})):
        parameters = inspect.signature(method).parameters.values()
        assert {p.name: p.default for p in parameters if p.name not in {"self", *others}} == names
    overlay = inspect.signature(Result.overlay).parameters
    assert {name: overlay[name].default for name in names if name in overlay}.items() <= names.items()

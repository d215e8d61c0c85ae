"""The drawing happens in the browser: pixels are those of the SDK's overlay(), and no control sends a request."""

from __future__ import annotations

import io
import runpy

import numpy as np
import pytest
from explore_page import photo_file
from PIL import Image

from convlens.client import Client, GradCAM, Saliency

TOLERANCE = 6
"""Of 255, where colours are steepest: maps come in 256 steps, and of matplotlib's colours every fifth is here."""
MEAN_TOLERANCE = 0.6
"""Of 255, over the whole picture."""
LOOKS = {
    "default": ({}, {}),
    "faint": ({"opacity": 0.3}, {"opacity": 0.3}),
    "clipped": ({"percentile": 90}, {"percentile": 90}),
    "gray": ({"gray": True}, {"background": "gray"}),
    "masked": ({"kind": "masked"}, {"kind": "masked_image"}),
    "alone": ({"kind": "alone"}, {"kind": "heat_map"}),
    "viridis": ({"colors": "viridis"}, {"cmap": "viridis"}),
}


@pytest.fixture
def explored(page, photo):
    """The page with the maps of a photo."""
    page.add(photo)
    page.wait_for_maps(3)
    return page


def set_look(page, look):
    """Set controls to values."""
    for name, value in look.items():
        control = page.tab.locator(f"#{name}")
        if isinstance(value, bool):
            control.set_checked(value)
        elif isinstance(value, str):
            control.select_option(value)
        else:
            page.set_slider(name, value)


def assert_equal_pictures(drawn, expected):
    expected = np.asarray(expected.convert("RGB")).astype(int)
    assert drawn.shape == expected.shape
    difference = np.abs(drawn.astype(int) - expected)
    assert difference.max() <= TOLERANCE
    assert difference.mean() <= MEAN_TOLERANCE


@pytest.fixture
def overlay(target, photo):
    """A function that draws the SDK's picture of the page's photo and model."""

    def draw(visualization, **options):
        with Client(target) as client:
            result = client.visualize(photo, [visualization], model="birds")
        return result.overlay(next(iter(result)), **options)

    return draw


@pytest.mark.parametrize("name", LOOKS)
def test_the_picture_is_the_overlay_of_the_sdk(explored, overlay, name):
    controls, options = LOOKS[name]
    set_look(explored, controls)
    assert_equal_pictures(explored.read_pixels(), overlay(GradCAM(), **options))


@pytest.mark.parametrize("sign", ["both", "positive", "negative", "absolute"])
def test_each_sign_of_a_signed_map_is_the_overlay_of_the_sdk(explored, overlay, sign):
    explored.tab.check("#signed")
    explored.wait_for_text("#range-low", "−")
    explored.tab.select_option("#sign", sign)
    assert_equal_pictures(explored.read_pixels(), overlay(GradCAM(signed=True), sign=sign))


def test_a_map_as_large_as_the_input_is_reduced_as_by_the_sdk(explored, overlay):
    explored.tab.click("#maps [aria-label*=Guided]")
    assert_equal_pictures(explored.read_pixels(), overlay(Saliency("guided")))


def test_no_control_of_the_drawing_sends_a_request(explored):
    before = list(explored.requests)
    pictures = [explored.read_pixels()]
    for look in ({"opacity": 0.2}, {"percentile": 85}, {"threshold": 0.6}, {"colors": "magma"}, {"kind": "alone"}):
        set_look(explored, look)
        pictures.append(explored.read_pixels())
        assert (pictures[-1] != pictures[-2]).any(), look
    explored.tab.click("#look-reset")
    np.testing.assert_array_equal(explored.read_pixels(), pictures[0])
    assert explored.requests == before


def test_values_below_the_threshold_leave_the_photo_as_it_is(explored, photo):
    explored.set_slider("threshold", 1)
    pixels = np.asarray(Image.open(photo))
    unchanged = (explored.read_pixels() == pixels).all(axis=2)
    assert unchanged.mean() > 0.9


def test_the_divider_has_one_map_on_its_left_and_another_on_its_right(explored):
    grad_cam = explored.read_pixels()
    explored.tab.click("#maps [aria-label*=Guided]")
    guided = explored.read_pixels()
    key = explored.tab.locator("#compare option", has_text="Grad-CAM").first.get_attribute("value")
    explored.tab.select_option("#compare", key)
    middle = grad_cam.shape[1] // 2
    both = explored.read_pixels()
    np.testing.assert_array_equal(both[:, :middle], guided[:, :middle])
    np.testing.assert_array_equal(both[:, middle:], grad_cam[:, middle:])
    explored.tab.focus("#divider")
    explored.tab.keyboard.press("Home")
    np.testing.assert_array_equal(explored.read_pixels(), grad_cam)
    box = explored.tab.locator("#canvas").bounding_box()
    explored.tab.mouse.move(box["x"] + 5, box["y"] + 50)
    explored.tab.mouse.down()
    explored.tab.mouse.move(box["x"] + box["width"] - 1, box["y"] + 50)
    explored.tab.mouse.up()
    assert int(explored.tab.get_attribute("#divider", "aria-valuenow")) >= 99


def test_the_photo_is_compared_with(explored, photo):
    explored.tab.select_option("#compare", "photo")
    explored.wait_until_drawn()
    explored.tab.focus("#divider")
    explored.tab.keyboard.press("Home")
    np.testing.assert_array_equal(explored.read_pixels(), np.asarray(Image.open(photo)))


def test_the_value_under_the_pointer_is_the_maps(explored, target, photo):
    with Client(target) as client:
        result = client.grad_cam(photo, model="birds")
    (prediction, *_), array = result.predictions[0], result["grad_cam"][0]
    explored.tab.focus("#canvas")
    for key in ("ArrowLeft", "ArrowUp"):
        explored.tab.keyboard.press(key)
    label, value, place = explored.tab.inner_text("#readout").split(" · ")
    x, y = (int(part.split()[1]) for part in place.split(", "))
    assert (x, y) == (58, 43)  # from the middle of 120×90, by a 56th of the width
    expected = array[int(y / 90 * array.shape[0]), int(x / 120 * array.shape[1])]
    assert label == prediction.label
    assert float(value.split()[0]) == pytest.approx(expected, abs=0.003)


def test_the_picture_is_downloaded_at_the_photos_size(explored):
    with explored.tab.expect_download() as download:
        explored.tab.click("#download-png")
    assert download.value.suggested_filename == "photo-grad_cam.png"
    saved = np.asarray(Image.open(download.value.path()).convert("RGB"))
    np.testing.assert_array_equal(saved, explored.read_pixels())


def test_the_arrays_are_downloaded_as_the_sdk_computes_them(explored, target, photo):
    with explored.tab.expect_download() as download:
        explored.tab.click("#download-npz")
    with Client(target) as client:
        result = client.visualize(photo, [GradCAM(), Saliency(), Saliency("guided")], model="birds")
    with np.load(io.BytesIO(download.value.path().read_bytes())) as arrays:
        assert {name: array.tolist() for name, array in arrays.items()} == {
            name.replace("/", "."): array.tolist() for name, array in result.items()
        }


def test_the_same_in_python_runs_and_gives_the_same_maps(explored, photo, monkeypatch):
    explored.tab.check("#explain-2")
    explored.wait_for_maps(6)
    explored.set_slider("opacity", 0.5)
    explored.wait_until_drawn()
    program = photo.parent / "program.py"
    program.write_text(explored.tab.inner_text("#python"))
    monkeypatch.chdir(photo.parent)
    result = runpy.run_path(str(program))["result"]
    assert list(result) == ["grad_cam", "saliency", "saliency/guided"]
    assert result["grad_cam"].shape == (1, 2, 14, 14)
    assert_equal_pictures(explored.read_pixels(), Image.open("map.png"))


def test_a_large_photo_is_drawn_smaller_and_downloaded_whole(page, tmp_path):
    page.add(photo_file(tmp_path, "large.png", height=2000, width=3000))
    drawn = page.read_pixels()
    assert drawn.shape == (1414, 2121, 3)  # 3 million pixels
    with page.tab.expect_download() as download:
        page.tab.click("#download-png")
    assert Image.open(download.value.path()).size == (3000, 2000)


def test_a_photo_that_the_browser_cannot_decode_is_explained_without_it(page, tmp_path, target):
    Image.open(photo_file(tmp_path)).save(tmp_path / "photo.tiff")
    page.add(tmp_path / "photo.tiff")
    with Client(target) as client:
        result = client.grad_cam(tmp_path / "photo.tiff", model="birds")
        alone = client.job(result.job_id).result().overlay("grad_cam", kind="heat_map")
    assert_equal_pictures(page.read_pixels(), alone)


def test_a_photo_is_drawn_upright_and_over_white_as_the_service_reads_it(page, tmp_path):
    photo = Image.open(photo_file(tmp_path)).convert("RGB")
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was turned by a quarter
    photo.save(tmp_path / "turned.png", exif=turned)
    page.add(tmp_path / "turned.png")
    page.set_slider("opacity", 0)
    np.testing.assert_array_equal(page.read_pixels(), np.asarray(photo.rotate(-90, expand=True)))
    transparent = photo.convert("RGBA")
    transparent.putalpha(0)
    transparent.save(tmp_path / "transparent.png")
    page.add(tmp_path / "transparent.png")
    page.tab.wait_for_selector("[aria-label='transparent.png'][aria-pressed=true]")
    assert page.read_pixels().min() == 255

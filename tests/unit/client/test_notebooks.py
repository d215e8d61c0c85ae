"""What a notebook shows, run by a real kernel: figures once, every image of a result, bars; and one-line reprs."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from notebooks import run_cells
from PIL import Image

from convlens.client import AsyncClient, Client, JobState, JobStatus, ModelCard
from convlens.client.images import pack

RNG = np.random.default_rng(0)
SETUP = """
import numpy as np
from convlens.client import Client, GradCAM
from convlens.client.testing import serve
server = serve()
client = Client(server.__enter__())
result = client.grad_cam(np.zeros((3, 16, 16, 3), np.uint8))
"""
EXPRESSIONS = {"result.figure()": "image/png", "result.overlay('grad_cam')": "image/png", "result": "text/html"}
PYPLOT = "import matplotlib.pyplot as plt"
ON_AXES = "figure, axes = plt.subplots()\nresult.figure(name='grad_cam', ax=axes)"
BAR = "for _ in client.map(np.zeros((5, 16, 16, 3), np.uint8), [GradCAM()], progress=True): pass"


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """The outputs of expressions as last lines of cells, before pyplot was imported and after."""
    cells = [SETUP, *EXPRESSIONS, PYPLOT, *EXPRESSIONS, ON_AXES, BAR]
    outputs = run_cells(*cells, folder=tmp_path_factory.mktemp("notebook"))
    before = dict(zip(cells[: cells.index(PYPLOT)], outputs, strict=False))
    return before, dict(zip(cells[cells.index(PYPLOT) :], outputs[cells.index(PYPLOT) :], strict=True))


@pytest.mark.parametrize("has_pyplot", [False, True])
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_the_last_line_of_a_cell_is_shown_once_with_pyplot_and_without(shown, expression, has_pyplot):
    (output,) = shown[has_pyplot][expression]
    assert EXPRESSIONS[expression] in output.data
    assert ("image/png" in output.data) == (EXPRESSIONS[expression] == "image/png")


def test_a_figure_of_pyplot_that_a_map_is_drawn_on_is_shown_once(shown):
    (output,) = shown[True][ON_AXES]
    assert "image/png" in output.data


def test_a_bar_is_shown_and_no_warning_where_ipywidgets_is_missing(shown):
    text = "".join(output.text for output in shown[True][BAR])
    assert "100%|██████████| 5/5 [" in text
    assert "Warning" not in text


def pictures(html):
    """Return the pictures in HTML, decoded."""
    return [
        Image.open(io.BytesIO(base64.b64decode(data)))
        for data in re.findall("src='data:image/jpeg;base64,([^']+)'", html)
    ]


def test_a_result_shows_its_first_images_and_how_many_more_there_are(make_result):
    photos = pack([RNG.integers(0, 256, (40, 60, 3), np.uint8) for _ in range(10)])
    html = make_result({"saliency": RNG.random((10, 16, 16))}, 7, photos)._repr_html_()
    assert [picture.format for picture in pictures(html)] == ["JPEG"] * 8
    assert html.count("<img alt='image ") == 8
    assert "<figcaption>7: cat 87.5%</figcaption>" in html
    assert html.endswith("<p>and 2 more: <code>result.figure(8)</code> …</p>")
    assert len(html) < 8 * 100_000
    alone = make_result({"saliency": RNG.random((1, 16, 16))}, 7, photos[:1])._repr_html_()
    assert "<figcaption>cat 87.5%</figcaption>" in alone
    assert "more" not in alone


def test_a_result_without_maps_shows_its_predictions(make_result):
    html = make_result({"activations/fc": RNG.random((1, 10))})._repr_html_()
    assert "cat 87.5%" in html
    assert not pictures(html)


def test_names_and_labels_are_no_markup(make_result):
    result = make_result({"grad_cam/<script>'": RNG.random((1, 4, 4))})
    result._reports[0].predictions[0].label = "<img onerror='alert(1)'>"
    html = result._repr_html_()
    assert "<script" not in html
    assert "<img onerror" not in html
    assert "alert(1)'" not in html


def test_reprs_are_one_short_line(make_result):
    many = {f"activations/c{i}": RNG.random((2, 8, 8, 3)) for i in range(6)}
    client = Client("localhost:1", token="secret")
    assert [repr(value) for value in (client, AsyncClient("localhost:2"), client.job("ab"))] == [
        "<Client of localhost:1>", "<AsyncClient of localhost:2>", "<Job ab>",
    ]  # fmt: skip
    for value in (make_result(many), ModelCard(name="net", labels=("a",) * 1000), client,
                  JobStatus(id="ab" * 16, state=JobState.RUNNING, progress=0.5)):  # fmt: skip
        assert "\n" not in repr(value)
        assert len(repr(value)) < 200
    assert repr(make_result(many)) == (
        "<Result by net: activations/c0 2×8×8×3, activations/c1 2×8×8×3, activations/c2 2×8×8×3, "
        "activations/c3 2×8×8×3, and 2 more>"
    )

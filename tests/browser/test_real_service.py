"""The explore page over a real service with `shapes`: from a photo to a picture, against the SDK."""

from __future__ import annotations

import os

import numpy as np
import pytest
from credentials import new_token
from explore_page import ExplorePage
from gateways import gateway
from PIL import Image

from convlens.client import Client, GradCAM, JobState, Occlusion
from convlens.worker.shapes import draw

TOLERANCE = 6
"""Of 255; see test_drawing.py."""


@pytest.fixture(scope="module")
def token_file(tmp_path_factory):
    """A file with one token, and the token."""
    file = tmp_path_factory.mktemp("tokens") / "tokens.toml"
    return file, new_token(file, "acme", "submit", "read")


@pytest.fixture(scope="module")
def real_target(start_service, token_file):
    """The address of a server that wants a token and has a worker with `shapes`."""
    service = start_service(tokens=token_file[0])
    service.worker("shapes=shapes")
    return service.server()[1]


@pytest.fixture
def client(real_target, token_file):
    """The SDK's client of the same server."""
    with Client(real_target, token=token_file[1], timeout=120) as client:
        yield client


@pytest.fixture
def page(browser, real_target):
    """A tab of a gateway of the real service, at the page's first request."""
    with gateway(real_target) as http:
        context = browser.new_context(viewport={"width": 1440, "height": 900})
        page = ExplorePage(context.new_page(), str(http.base_url).rstrip("/"))
        page.tab.goto(page.url)
        yield page
        context.close()


def test_from_a_scene_to_pictures_jobs_and_channels(page, client, token_file, tmp_path):
    scene = draw(2026, 4)
    photo = tmp_path / "star.png"
    Image.fromarray(scene.image).save(photo)

    page.tab.wait_for_selector("#token-dialog[open]")
    page.tab.fill("#token", "not-this-one")
    page.tab.keyboard.press("Enter")
    page.wait_for_text("#alert", "TOKEN_UNKNOWN")
    page.tab.fill("#token", token_file[1])
    page.tab.keyboard.press("Enter")
    page.tab.wait_for_selector("#layers button")
    assert all("401" in error for error in page.errors)
    page.errors.clear()
    page.add(photo)
    page.wait_for_maps(3)

    assert page.tab.inner_text("#predictions button >> nth=0").split("\n")[0] == "star"
    result = client.grad_cam(photo)
    assert_close(page.read_pixels(), result.overlay("grad_cam"))
    before = list(page.requests)
    page.set_slider("opacity", 0.4)
    page.set_slider("percentile", 90)
    assert_close(page.read_pixels(), result.overlay("grad_cam", opacity=0.4, percentile=90))
    assert page.requests == before

    page.tab.fill("#class-search", "heart")
    page.tab.keyboard.press("Enter")
    page.wait_for_text("#picture-class", "heart")
    page.tab.click("#layer-block4_conv3")
    page.wait_for_text("#picture-title", "Grad-CAM at block4_conv3")
    page.tab.check("#signed")
    page.wait_for_text("#range-low", "−")
    page.tab.click("#look-reset")
    heart = client.visualize(photo, [GradCAM("block4_conv3", signed=True)], target="heart")
    assert_close(page.read_pixels(), heart.overlay("grad_cam"))

    page.tab.click("#compute-occlusion")
    page.wait_for_text("#picture-title", "Occlusion")
    job_id = page.tab.url.rpartition("/")[2]
    occlusion = client.job(job_id).result()
    assert_close(page.read_pixels(), occlusion.overlay("occlusion", photo=photo))
    np.testing.assert_array_equal(
        occlusion["occlusion"], client.visualize(photo, [Occlusion()], target="heart")["occlusion"]
    )
    assert page.errors == []


def test_a_real_job_is_cancelled(page, client, token_file, tmp_path):
    photo = tmp_path / "noise.png"
    Image.fromarray(np.frombuffer(os.urandom(64 * 64 * 3), np.uint8).reshape(64, 64, 3)).save(photo)
    page.tab.fill("#token", token_file[1])
    page.tab.keyboard.press("Enter")
    page.tab.wait_for_selector("#layers button")
    page.add(photo)
    page.tab.click("#compute-integrated_gradients")
    page.tab.wait_for_url("**/jobs/*")
    job = client.job(page.tab.url.rpartition("/")[2])
    page.tab.click("[aria-label='Cancel Integrated gradients']")
    page.tab.wait_for_selector("#jobs progress", state="detached")
    assert job.status().state == JobState.CANCELLED


def assert_close(drawn, overlay):
    expected = np.asarray(overlay).astype(int)
    assert drawn.shape == expected.shape
    assert np.abs(drawn.astype(int) - expected).max() <= TOLERANCE

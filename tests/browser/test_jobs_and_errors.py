"""Jobs of many passes, their addresses, tokens, and how errors are shown."""

from __future__ import annotations

import numpy as np
import pytest
from explore_page import photo_file
from PIL import Image

from convlens.client import Client, GradCAM, JobState, Saliency, TopK


@pytest.fixture
def slow(fake):
    """The fake server, whose jobs take an hour unless the test says otherwise."""
    fake.delay = 3600
    yield fake
    fake.delay = 0


@pytest.fixture
def explored(page, photo):
    """The page with the maps of a photo."""
    page.add(photo)
    page.wait_for_maps(3)
    return page


def job_id_of(page):
    """The job of the address bar."""
    page.tab.wait_for_url("**/jobs/*")
    return page.tab.url.rpartition("/")[2]


def test_a_method_of_many_passes_is_a_job_whose_result_is_shown(explored, target):
    explored.tab.click("#compute-occlusion")
    explored.wait_for_text("#picture-title", "Occlusion")
    with Client(target) as client:
        result = client.job(job_id_of(explored)).result()
    assert list(result) == ["occlusion"]
    explored.tab.click("#maps [aria-label*=Saliency]")
    explored.tab.wait_for_url("**/")


def test_a_job_can_be_cancelled(explored, slow, target):
    explored.tab.click("#compute-smooth_grad")
    explored.tab.wait_for_selector("#jobs progress")
    job_id = job_id_of(explored)
    explored.tab.click("[aria-label='Cancel SmoothGrad']")
    explored.tab.wait_for_selector("#jobs progress", state="detached")
    explored.wait_for_text("#status", "cancelled")
    with Client(target) as client:
        assert client.job(job_id).status().state == JobState.CANCELLED
    assert explored.tab.is_hidden("#alert")
    assert explored.tab.is_enabled("[aria-label='Compute SmoothGrad']")


def test_a_job_that_fails_says_why(explored, fake):
    fake.fail_next_job("ATTEMPTS_EXHAUSTED", "the workers that ran the job stopped")
    explored.tab.click("#compute-xrai")
    explored.wait_for_text("#alert", "The workers that ran the job stopped.")
    explored.wait_for_text("#alert", "ATTEMPTS_EXHAUSTED")


@pytest.fixture
def submitted(target, tmp_path):
    """A job of two images and three maps, submitted by the SDK, and the photos."""
    photos = [photo_file(tmp_path, f"{seed}.png", seed=seed) for seed in (31, 32)]
    with Client(target) as client:
        job = client.submit(photos, [GradCAM(), Saliency(signed=True)], model="birds", target=TopK(2))
        yield job, photos, job.result()


def test_a_job_is_shown_by_its_address(open_page, url, target, submitted):
    job, _, result = submitted
    page = open_page(url, f"/jobs/{job.id}")
    page.wait_for_maps(4)
    assert page.tab.locator("#photos li").count() == 2
    best = [prediction.label for prediction in result.predictions[0][:2]]
    assert page.read_titles() == [[title, label] for title in ("Grad-CAM", "Saliency") for label in best]
    assert page.tab.is_disabled("#method-guided")
    assert f'client.job("{job.id}")' in page.tab.inner_text("#python")
    with Client(target) as client:
        alone = client.job(job.id).result().overlay("grad_cam", kind="heat_map")
    assert np.abs(page.read_pixels().astype(int) - np.asarray(alone).astype(int)).max() <= 6


def test_the_photo_of_a_job_can_be_added(open_page, url, submitted):
    job, photos, result = submitted
    page = open_page(url, f"/jobs/{job.id}")
    page.wait_for_maps(4)
    page.tab.set_input_files("#files", str(photos[0]))
    page.tab.wait_for_selector("#photo-hint", state="hidden")
    page.wait_for_maps(4)
    page.tab.click("#maps button >> nth=1")
    overlay = np.asarray(result.overlay("grad_cam", target=1))
    assert overlay.shape == np.asarray(Image.open(photos[0])).shape
    assert np.abs(page.read_pixels().astype(int) - overlay.astype(int)).max() <= 6


def test_a_job_under_way_is_followed_at_its_address(open_page, url, slow, target, photo):
    slow.delay = 4
    with Client(target) as client:
        job = client.submit(photo, [Saliency("var_grad")], fresh=True)
    page = open_page(url, f"/jobs/{job.id}")
    page.wait_for_maps(1)
    assert page.tab.inner_text("#picture-title") == "VarGrad"


def test_an_unknown_job_says_so(open_page, url):
    page = open_page(url, "/jobs/0123456789abcdef0123456789abcdef")
    page.wait_for_text("#alert", "JOB_UNKNOWN")
    assert page.errors == ["Failed to load resource: the server responded with a status of 404 (Not Found)"]
    page.errors.clear()


def test_an_error_is_announced_with_reason_and_field_and_can_be_dismissed(page, tmp_path, fake):
    fake.fail_next("IMAGE_UNREADABLE", "image 0 is damaged", field="spec.images[0]")
    page.tab.set_input_files("#files", str(photo_file(tmp_path, seed=41)))
    page.wait_for_text("[role=alert]", "Image 0 is damaged.")
    assert "IMAGE_UNREADABLE" in page.tab.inner_text("#alert")
    assert "spec.images[0]" in page.tab.inner_text("#alert")
    page.tab.click("[aria-label='Dismiss this message']")
    assert page.tab.is_hidden("#alert")
    assert [error.startswith("Failed to load resource") for error in page.errors] == [True]
    page.errors.clear()


def test_a_file_that_is_no_image_is_left_out(page, tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")
    page.tab.set_input_files("#files", str(tmp_path / "notes.txt"))
    page.wait_for_text("#alert", "Only image files")
    assert page.tab.locator("#photos li").count() == 0


def test_a_wrong_token_opens_the_token_field_and_the_right_one_is_sent(page, tmp_path, fake):
    fake.fail_next("TOKEN_UNKNOWN", "the token is not known")
    page.tab.set_input_files("#files", str(photo_file(tmp_path, seed=42)))
    page.tab.wait_for_selector("#token-dialog[open]")
    page.wait_for_text("#token-why", "the token is not known")
    with page.tab.expect_request("**/v1/visualize") as request:
        page.tab.fill("#token", "secret")
        page.tab.keyboard.press("Enter")
    assert request.value.headers["authorization"] == "Bearer secret"
    page.wait_for_maps(3)
    stored = page.tab.evaluate(
        "[Object.values(sessionStorage), Object.values(localStorage), document.cookie, location.href]"
    )
    assert stored == [["secret"], [], "", page.url + "/"]
    assert "secret" not in page.tab.inner_text("#python")
    assert 'token=os.environ["CONVLENS_TOKEN"]' in page.tab.inner_text("#python")
    assert ["401" in error for error in page.errors] == [True]
    page.errors.clear()


def test_a_gateway_that_is_gone_says_so(page, photo):
    page.tab.context.set_offline(True)
    page.tab.set_input_files("#files", str(photo))
    page.wait_for_text("#alert", "The gateway does not answer.")
    page.errors.clear()

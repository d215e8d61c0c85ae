"""The explore page: photos, classes, methods, layers and models, and what each requests."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest
from explore_page import photo_file
from gateways import gateway
from processes import until

from convlens.client import Client, JobState
from convlens.client.testing import serve, vgg16

DROP = """([name, data]) => {
    const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], name, { type: "image/png" }));
    return transfer;
}"""


@pytest.fixture
def explored(page, photo):
    """The page with the maps of a photo."""
    page.add(photo)
    return page


def last_spec(fake):
    return fake.requests[-1].message.spec


def test_a_dropped_photo_and_a_pasted_one_are_explained(page, photo):
    content = base64.b64encode(photo.read_bytes()).decode()
    drop = page.tab.evaluate_handle(DROP, ["dropped.png", content])
    page.tab.dispatch_event("body", "drop", {"dataTransfer": drop})
    page.wait_for_maps(3)
    assert [title for title, _ in page.read_titles()] == ["Grad-CAM", "Saliency", "Guided backprop"]
    page.tab.evaluate(f"""([name, data]) => {{
        const clipboardData = ({DROP})([name, data]);
        window.dispatchEvent(new ClipboardEvent("paste", {{ clipboardData }}));
    }}""", ["pasted.png", content])  # fmt: skip
    page.tab.wait_for_selector("#photos li:nth-child(2) [aria-pressed=true][aria-label='pasted.png']")
    page.wait_for_maps(3)


def test_photos_are_chosen_and_removed_by_the_keyboard(explored, tmp_path):
    explored.add(photo_file(tmp_path, "second.png", seed=6))
    explored.tab.focus("[aria-label='photo.png']")
    explored.tab.keyboard.press("Enter")
    explored.tab.wait_for_selector("[aria-label='photo.png'][aria-pressed=true]")
    explored.tab.keyboard.press("Delete")
    explored.tab.wait_for_selector("[aria-label='second.png'][aria-pressed=true]")
    assert explored.tab.locator("#photos li").count() == 1


def test_a_photo_that_was_explained_is_shown_again_without_a_request(explored, tmp_path):
    explored.add(photo_file(tmp_path, "second.png", seed=6))
    explored.wait_for_maps(3)
    before = list(explored.requests)
    explored.tab.click("[aria-label='photo.png']")
    explored.wait_for_maps(3)
    assert explored.requests == before


def test_a_click_on_a_class_explains_it(explored, fake):
    second = explored.tab.locator("#predictions button").nth(1)
    label = second.inner_text().split("\n")[0]
    second.click()
    explored.wait_for_text("#picture-class", f"for {label},")
    assert last_spec(fake).targets[0].index == int(second.get_attribute("id").removeprefix("class-"))
    assert {shown for _, shown in explored.read_titles()} == {label}


def test_a_class_is_found_by_a_part_of_its_label(explored, fake):
    explored.tab.fill("#class-search", "retriev")
    explored.tab.keyboard.press("Enter")
    explored.wait_for_text("#picture-class", "golden retriever")
    assert last_spec(fake).targets[0].index == 998
    explored.tab.fill("#class-search", "no such thing")
    assert "No class" in explored.tab.inner_text("#class-matches")


def test_the_best_classes_are_explained_side_by_side(explored):
    explored.tab.check("#explain-3")
    explored.wait_for_maps(9)
    best = [name.split("\n")[0] for name in explored.tab.locator("#predictions button").all_inner_texts()][:3]
    assert [shown for title, shown in explored.read_titles() if title == "Grad-CAM"] == best


def test_only_a_method_that_is_missing_is_requested(explored, fake):
    explored.tab.check("#method-layer_cam")
    explored.wait_for_maps(4)
    (visualization,) = last_spec(fake).visualizations
    assert visualization.grad_cam.method == 4
    before = len(fake.requests)
    explored.tab.uncheck("#method-layer_cam")
    explored.tab.check("#method-layer_cam")
    explored.wait_for_maps(4)
    assert len(fake.requests) == before


def test_a_layer_of_the_diagram_gives_its_class_activation_map(explored, fake):
    explored.tab.click("#layer-block3_conv2")
    explored.wait_for_text("#picture-title", "Grad-CAM at block3_conv2")
    assert last_spec(fake).visualizations[0].grad_cam.layer == "block3_conv2"
    assert explored.tab.get_attribute("#layer-block3_conv2", "aria-pressed") == "true"
    assert explored.tab.is_disabled("#layer-fc1")


def test_the_channels_of_a_layer_are_a_wall_and_one_can_be_enlarged(explored, fake):
    explored.tab.check("#click-channels")
    explored.tab.click("#layer-block3_conv1")
    explored.tab.wait_for_selector("#channels canvas")
    assert explored.tab.locator("#channels canvas").count() == 64
    explored.tab.click("#wall-on")
    explored.tab.wait_for_selector("#channels [aria-label='Channel 64']")
    assert list(last_spec(fake).visualizations[0].activations.channels) == list(range(64, 128))
    explored.tab.click("#channels [aria-label='Channel 70']")
    explored.tab.wait_for_selector("#view:not([hidden])")
    assert explored.tab.inner_text("#picture-title") == "block3_conv1, channel 70"
    explored.tab.click("#to-channels")
    explored.tab.wait_for_selector("#channels canvas")


def test_the_units_of_a_dense_layer_are_one_picture(explored):
    explored.tab.check("#click-channels")
    explored.tab.click("#layer-fc1")
    explored.tab.click("#channels [aria-label='All units']")
    assert explored.tab.inner_text("#picture-title") == "fc1, all units"


def test_evidence_against_the_class_is_requested_and_drawn_in_two_colours(explored, fake):
    assert explored.tab.is_disabled("#sign")
    explored.tab.check("#signed")
    explored.wait_for_text("#range-low", "−")
    assert last_spec(fake).visualizations[0].grad_cam.signed
    assert explored.tab.is_enabled("#sign")


def test_maps_of_two_models_can_be_compared(explored, fake):
    assert explored.tab.inner_text("#picture-class").endswith("by birds")
    explored.tab.select_option("#model", "vgg16")
    explored.wait_for_text("#picture-class", "by vgg16")
    assert last_spec(fake).model == "vgg16"
    earlier = explored.tab.locator("#compare optgroup[label^=Earlier] option").all_inner_texts()
    assert any(text.startswith("Grad-CAM") and text.endswith("birds") for text in earlier)


def test_a_request_that_is_no_longer_needed_is_cancelled(page, tmp_path, fake, target):
    fake.delay = 3600
    try:
        with page.tab.expect_request("**/v1/visualize"):
            page.tab.set_input_files("#files", str(photo_file(tmp_path, seed=7)))
        with Client(target) as client:
            (job_id,) = until(lambda: [job.id for job in client.jobs() if not job.state.is_final])
            fake.delay = 0
            page.tab.check("#method-layer_cam")
            page.wait_for_maps(4)
            assert until(lambda: client.job(job_id).status().state == JobState.CANCELLED)
    finally:
        fake.delay = 0


def test_methods_that_a_model_cannot_have_are_listed_with_the_reason(open_page):
    reason = "a taped step contains a ReLU"
    card = replace(vgg16(), methods=("vanilla", "grad_cam"), unavailable_methods={"guided": reason})
    with serve([card]) as target, gateway(target) as http:
        page = open_page(str(http.base_url).rstrip("/"))
        assert page.tab.inner_text("#unavailable").split("\n") == ["Guided backprop", reason]
        assert page.tab.locator("#methods input").count() == 2

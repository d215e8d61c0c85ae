"""The page is usable by keyboard and screen reader, in both themes, on wide screens and narrow ones."""

from __future__ import annotations

import importlib.resources

import pytest

AXE_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
CONTROLS = (
    "model", "token-open", "theme", "choose-photo1", "class-search", "signed", "method-guided", "compute-occlusion",
    "compare", "canvas", "divider", "layer-block3_conv1", "opacity", "percentile", "threshold", "kind", "colors",
    "gray", "download-png", "download-npz", "python", "python-copy",
)  # fmt: skip
"""One or more of each part of the page."""
FOCUSED = """() => {
    const node = document.activeElement;
    const outlines = [node, node.closest("label") ?? node].map((shown) => getComputedStyle(shown).outlineStyle);
    return [node.id || node.getAttribute("aria-label") || node.textContent.trim(), outlines.includes("solid")];
}"""


@pytest.fixture(scope="module")
def axe_source():
    """The source of axe-core."""
    package = pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is not installed (dev.txt)")
    return (importlib.resources.files(package) / "axe.min.js").read_text()


@pytest.fixture
def violations(axe_source):
    """A function that returns what axe-core objects to on a page, by rule."""

    def find(page):
        page.wait_until_drawn()
        page.tab.evaluate(axe_source)
        options = {"runOnly": AXE_RULES}
        objections = page.tab.evaluate("async (options) => (await axe.run(document, options)).violations", options)
        return {rule["id"]: [node["html"][:200] for node in rule["nodes"]] for rule in objections}

    return find


@pytest.mark.parametrize(("theme", "width"), [("light", 1440), ("dark", 1440), ("dark", 400)])
def test_axe_core_finds_no_violation(open_page, url, photo, violations, theme, width):
    page = open_page(url, color_scheme=theme, width=width)
    assert page.tab.get_attribute("html", "data-theme") == theme
    assert violations(page) == {}
    page.add(photo)
    page.wait_for_maps(3)
    page.tab.select_option("#compare", "photo")
    assert violations(page) == {}
    page.tab.check("#click-channels")
    page.tab.click("#layer-block5_conv1")
    page.tab.wait_for_selector("#channels canvas")
    assert violations(page) == {}
    page.tab.click("#token-open")
    assert violations(page) == {}


def test_a_whole_exploration_by_keyboard(page, photo):
    page.tab.keyboard.press("Tab")
    assert page.tab.evaluate(FOCUSED)[0] == "Skip to the picture"
    page.add(photo)
    page.wait_for_maps(3)
    page.tab.focus("#predictions button >> nth=1")
    second = page.tab.inner_text("#predictions button >> nth=1").split("\n")[0]
    page.tab.keyboard.press("Enter")
    page.wait_for_text("#picture-class", second)
    assert page.tab.evaluate("document.activeElement.textContent").startswith(second)
    page.tab.focus("#method-layer_cam")
    page.tab.keyboard.press("Space")
    page.wait_for_maps(4)
    assert page.tab.evaluate(FOCUSED)[0] == "method-layer_cam"
    page.tab.focus("#layer-block1_conv1")
    page.tab.keyboard.press("ArrowRight")
    page.tab.keyboard.press("Enter")
    page.wait_for_text("#picture-title", "block1_conv2")
    before = page.tab.input_value("#opacity")
    page.tab.focus("#opacity")
    page.tab.keyboard.press("ArrowLeft")
    assert float(page.tab.input_value("#opacity")) < float(before)


def test_tab_reaches_every_control_and_shows_where_it_is(page, photo):
    page.add(photo)
    page.wait_for_maps(3)
    page.tab.select_option("#compare", "photo")
    page.wait_until_drawn()
    page.tab.evaluate("document.activeElement.blur()")
    reached = []
    for _ in range(150):
        page.tab.keyboard.press("Tab")
        if page.tab.evaluate("document.activeElement === document.body"):
            break  # after the last control
        name, is_outlined = page.tab.evaluate(FOCUSED)
        assert is_outlined or name in {"divider", "files"}, name  # whose focus ring is beside them
        reached.append(name)
    assert set(CONTROLS) - set(reached) == set()


def test_the_theme_is_kept(open_page, url):
    page = open_page(url, color_scheme="light")
    page.tab.click("#theme")
    assert page.tab.get_attribute("html", "data-theme") == "dark"
    page.open()
    assert page.tab.get_attribute("html", "data-theme") == "dark"


@pytest.mark.parametrize(("width", "height"), [(400, 800), (1000, 700), (1440, 900), (2560, 1440)])
def test_nothing_is_wider_than_the_screen(open_page, url, photo, width, height):
    page = open_page(url, width=width, height=height)
    page.add(photo)
    page.wait_for_maps(3)
    page.wait_until_drawn()
    assert page.tab.evaluate("document.documentElement.scrollWidth") == width
    box = page.tab.locator("#canvas").bounding_box()
    assert box["width"] > 0.3 * min(width, height)
    if width >= 1000:
        assert box["y"] + box["height"] < height

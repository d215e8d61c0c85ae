"""A browser, and the page of a gateway whose gRPC server is the SDK's fake one."""

from __future__ import annotations

import contextlib

import pytest
from explore_page import CHROMIUM, ExplorePage, photo_file
from gateways import gateway

from convlens.client.testing import serve, vgg16

LABELS = (*(f"class_{n}" for n in range(998)), "golden retriever", "tabby cat")


@pytest.fixture(scope="module")
def browser():
    """Chromium without a window. Of the module, since its event loop must not run beside that of asynchronous tests."""
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed (dev.txt)")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine: apt-get install chromium")
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def fake():
    """The fake gRPC server with two models, for what it received and for errors on demand."""
    return serve([vgg16(labels=LABELS), vgg16("birds", labels=LABELS)])


@pytest.fixture(scope="module")
def target(fake):
    """The address of the fake server."""
    with fake as address:
        yield address


@pytest.fixture(scope="module")
def url(target):
    """The address of a gateway."""
    with gateway(target) as client:
        yield str(client.base_url).rstrip("/")


@pytest.fixture
def open_page(browser):
    """A function that opens the page in a new context. A page with an error that no test removed fails the test."""
    with contextlib.ExitStack() as stack:
        pages = []

        def open_(url, path="/", *, width=1440, height=900, **options):
            context = browser.new_context(viewport={"width": width, "height": height}, **options)
            stack.callback(context.close)
            pages.append(ExplorePage(context.new_page(), url))
            return pages[-1].open(path)

        yield open_
        assert [error for page in pages for error in page.errors] == []


@pytest.fixture
def page(open_page, url):
    """The page, without a photo."""
    return open_page(url)


@pytest.fixture
def photo(tmp_path):
    """A photo of 120×90 pixels."""
    return photo_file(tmp_path)

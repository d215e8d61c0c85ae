"""The explore page in a real browser, by what a person sees and does there."""

from __future__ import annotations

import base64
import io
import shutil

import numpy as np
from PIL import Image

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
"""Debian's chromium; None where the machine has no browser."""


class ExplorePage:
    """A tab with the page, and what went wrong in it."""

    def __init__(self, tab, url: str) -> None:
        self.tab = tab
        self.url = url
        self.errors: list[str] = []
        """Errors of the console and of scripts; violations of the CSP are among them."""
        self.requests: list[str] = []
        """The paths of requests to the API."""
        tab.on("console", lambda message: message.type == "error" and self.errors.append(message.text))
        tab.on("pageerror", lambda error: self.errors.append(str(error)))
        tab.on("request", self._record)

    def _record(self, request) -> None:
        path = request.url.removeprefix(self.url)
        if path.startswith("/v1/"):
            self.requests.append(path)

    def open(self, path="/"):
        """Open the page and wait until a model is chosen."""
        self.tab.goto(self.url + path)
        self.tab.wait_for_selector("#layers button")
        return self

    def add(self, *files):
        """Add photo files by the picker, and wait for the maps of the first."""
        self.tab.set_input_files("#files", [str(file) for file in files])
        self.wait_for_maps()

    def wait_for_maps(self, count=1):
        """Wait until there are `count` small maps or more, and nothing is under way."""
        self.tab.wait_for_function(
            """count => document.querySelectorAll("#maps canvas").length >= count
                && document.querySelector("#pending").hidden""",
            arg=count,
        )

    def wait_for_text(self, selector, part):
        """Wait until the text of an element contains `part`."""
        self.tab.wait_for_function(
            "([selector, part]) => document.querySelector(selector).textContent.includes(part)", arg=[selector, part]
        )

    def wait_until_drawn(self) -> None:
        """Wait until changes are drawn, which the page does in the next frame."""
        self.tab.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def read_pixels(self):
        """Return the large picture as uint8 (H,W,3)."""
        self.wait_until_drawn()
        url = self.tab.evaluate("document.querySelector('#canvas').toDataURL('image/png')")
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGB"))

    def set_slider(self, name, value):
        """Move a slider as dragging it does."""
        self.tab.locator(f"#{name}").fill(str(value))

    def read_titles(self):
        """Return method and class of each small map."""
        return [text.split("\n") for text in self.tab.locator("#maps button").all_inner_texts()]


def photo_file(folder, name="photo.png", height=90, width=120, seed=5):
    """Write a smooth picture as PNG, and return its path."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(folder / name)
    return folder / name

"""Draw docs/pictures/explore.png: the explore page with a scene of `shapes`. make docs-pictures

Needs Chromium, and does nothing where there is none.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from PIL import Image

PICTURE: Final = Path(__file__).parent / "pictures" / "explore.png"
SIZE: Final = {"width": 1440, "height": 900}
STEP: Final = 6
"""Of 256 levels of a colour."""
SURFACE: Final = (21, 25, 28)
"""RGB of the page's surface, one of the steps."""
CHROMIUM: Final = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def main() -> None:
    """Serve `shapes` and the page, explore a scene, and take the picture."""
    if CHROMIUM is None:
        print(f"no Chromium on this machine: {PICTURE.name} stays as it is")
        return
    from playwright.sync_api import sync_playwright

    from convlens.local import serving

    with serving(log=Path("/dev/null")) as target:
        command = [sys.executable, "-m", "convlens.web", "--server", target, "--port", "0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as gateway, sync_playwright() as playwright:
            try:
                browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
                page = browser.new_page(viewport=SIZE, color_scheme="dark")
                page.goto(f"http://{ready_address(gateway)}")
                explore(page)
                save(page.screenshot())
            finally:
                gateway.terminate()


def ready_address(gateway: subprocess.Popen[str]) -> str:
    """Return the address that a gateway prints once it serves."""
    assert gateway.stdout
    return gateway.stdout.readline().split()[-1]


def explore(page: Any) -> None:
    """Explain the two classes of the first scene, by methods of one pass and by occlusion, and compare them."""
    page.click("#scenes button >> nth=0")
    page.check("#explain-2")
    page.click("#compute-occlusion")
    page.wait_for_selector("#maps [aria-label*=Occlusion]", timeout=120_000)
    page.click("#maps button >> nth=0")
    page.select_option("#compare", index=3)  # the second class, after nothing, the photo and the first
    page.locator("#inputs").evaluate("side => side.scrollTo(0, 0)")
    page.hover("#canvas", position={"x": 300, "y": 180})
    page.wait_for_function("() => document.querySelectorAll('#maps canvas').length === 8")


def save(screenshot: bytes) -> None:
    """Save a screenshot with colours in steps, which the photo's noise hides, in half the bytes."""
    with Image.open(io.BytesIO(screenshot)) as picture:
        levels = [round((value - kept) / STEP) * STEP + kept for kept in SURFACE for value in range(256)]
        picture.convert("RGB").point([min(max(level, 0), 255) for level in levels]).save(PICTURE, optimize=True)


if __name__ == "__main__":
    main()

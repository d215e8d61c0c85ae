"""`make demo` runs without a network, from scenes and a photo to pictures that can be opened."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from PIL import Image

PHOTO = Path(__file__).parents[3] / "examples" / "photos" / "chelsea.png"


def test_the_demo_prints_what_it_computed_and_saves_pictures(tmp_path):
    out = tmp_path / "out"
    offline = {"KERAS_HOME": str(tmp_path / "keras"), "RES_OPTIONS": "timeout:1 attempts:1"}
    process = subprocess.run(
        [sys.executable, "-m", "convlens.local.demo", str(out), str(PHOTO)],
        env=os.environ | offline, capture_output=True, text=True, timeout=240, check=True,
    )  # fmt: skip
    pictures = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.[pj][np]g"))
    assert "chelsea/layerwise_output.jpg" in pictures
    assert len(pictures) >= 2
    for picture in pictures:
        with Image.open(out / picture) as image:
            image.load()
            assert image.width > 500
    assert f"The pictures are in {out}" in process.stdout
    assert "computed" in process.stdout

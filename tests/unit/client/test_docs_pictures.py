"""The pictures in the documentation show every method, as today's code draws them."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
AGAIN = "run: make docs-pictures"


@pytest.fixture(scope="module")
def gallery():
    spec = importlib.util.spec_from_file_location("gallery", ROOT / "docs" / "gallery.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def record(gallery):
    return json.loads(gallery.RECORD.read_text())


def test_pictures_are_drawn_by_the_code_as_it_is(gallery, record):
    assert record["sources"] == gallery.digest(*gallery.SOURCES), AGAIN


def test_each_picture_is_the_one_that_was_drawn(gallery, record):
    for name, drawn in record["pictures"].items():
        assert drawn["sha256"] == gallery.digest(f"docs/pictures/{name}"), f"{name}: {AGAIN}"


def test_the_gallery_shows_every_method_of_the_table(record):
    table = (ROOT / "docs" / "methods.md").read_text().partition("| visualization |")[2].partition("\n\n")[0]
    methods = re.findall(r"^\| `[^`]+` \| `([^`]+)` \|", table, re.MULTILINE)
    assert len(methods) > 15
    shown = record["pictures"]["gallery.png"]["shows"] + record["pictures"]["layers.jpg"]["shows"]
    assert not set(methods) - set(shown), AGAIN

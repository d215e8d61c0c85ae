"""`convlens report`: one whole page for photos, damaged files and hostile names, that loads nothing from elsewhere."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from convlens.client import Activations, GradCAM, Saliency, cli
from convlens.client.cli.report import short_repr
from convlens.client.testing import serve, vgg16

VOID = {"meta", "img", "link", "br", "input", "hr"}
HOSTILE = '<img src=x onerror="alert(1)">&amp;\u202e.png'


class Page(HTMLParser):
    """A parsed page: its tags with their attributes, and its texts. AssertionError unless it is well-formed."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.texts = [], [], []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def server():
    return serve([vgg16("birds", labels=["robin", "<b>wren</b>"] + [f"bird {n}" for n in range(998)])])


@pytest.fixture
def run(server, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    with server as target:
        yield lambda *arguments: CliRunner().invoke(cli.app, ["--server", target, "report", *map(str, arguments)])


@pytest.fixture
def folder(tmp_path):
    """A folder of three photos, one with a hostile name, and of a truncated one, a text, and another file."""
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    for i, name in enumerate(["a.png", "below/b.JPG", HOSTILE]):
        Image.fromarray(np.full((300, 400, 3), 60 * i, np.uint8)).save(folder / name)
    (folder / "torn.png").write_bytes((folder / "a.png").read_bytes()[:60])
    (folder / "text.jpg").write_text("no image")
    (folder / "notes.txt").write_text("not looked at")
    return folder


def test_a_folder_becomes_one_page_with_every_image_its_classes_maps_and_errors(run, folder, tmp_path):
    out = tmp_path / "new" / "page.html"
    done = run(folder, "-o", out, "--layer", "block5_conv3", "--channels", "2,7", "--target", "top2")
    assert done.exit_code == 1, done.output
    assert done.stdout.startswith(f"{out}: 3 images, 2 without a result, ")
    assert "text.jpg: " in done.stderr
    page = Page(out.read_text())
    assert [attributes["id"] for attributes in page.all("article")] == ["image-1", "image-2", "image-3"]
    links = [attributes["href"] for attributes in page.all("a")]
    assert sorted(links) == ["#image-1", "#image-2", "#image-3"]
    assert len(page.all("img")) == 3 * (1 + 3 * 2 + 1)
    text = "".join(page.texts)
    assert "Without a result: 2" in text
    assert "torn.png: the image cannot be drawn here" in text
    assert "channels 2, 7" in text
    assert str(folder) not in text, "the page may be sent to others"
    facts = ("birds", "Saliency(method='guided')", "opacity=0.75", "top2", "client 0.1.0, server 0.1.0")
    assert [fact for fact in facts if fact not in text] == []


def test_the_page_loads_nothing_and_names_are_text(run, folder, tmp_path):
    out = tmp_path / "page.html"
    run(folder, "-o", out)
    html = out.read_text()
    page = Page(html)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert "://" not in html
    assert not re.search(r"url\((?!data:)", html)
    for image in page.all("img"):
        assert image["src"].startswith("data:image/webp;base64,")
        assert image["alt"]
        assert "onerror" not in image
        picture = Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2])))
        assert picture.size == (int(image["width"]), int(image["height"]))
        assert picture.width == 240
    assert '<img src=x onerror="alert(1)">&amp;\\u202e.png' in "".join(page.texts)
    assert "img-src data:" in html
    assert page.all("html") == [{"lang": "en"}]
    assert all(image["loading"] == "lazy" for image in page.all("img"))


def test_photos_alone_are_done_with_status_0_and_json_has_the_page(run, folder, tmp_path):
    out = tmp_path / "page.html"
    done = run(folder / "a.png", folder / "below", "-o", out, "--json", "--side", "64")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {"file": str(out), "images": 2, "errors": []}
    assert "below/b.JPG" in out.read_text()
    assert out.stat().st_size < 2 * 20_000
    errors = json.loads(run(folder, "-o", out, "--json").stdout)["errors"]
    assert [error["image"] for error in errors] == [str(folder / "text.jpg"), str(folder / "torn.png")]


def test_a_call_that_fails_leaves_an_earlier_page(server, run, folder, tmp_path):
    out = tmp_path / "page.html"
    out.write_text("earlier")
    server.fail_next("TOKEN_MISSING")
    done = run(folder, "-o", out)
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert out.read_text() == "earlier"
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".html"] == ["photos"]


def test_a_folder_without_images_is_a_usage_error(run, tmp_path):
    done = run(tmp_path)
    assert done.exit_code == 2
    assert "no image files in" in done.stderr


def test_a_visualization_is_named_by_the_call_that_makes_it():
    assert [short_repr(each) for each in (Saliency(), GradCAM("c1", signed=True), Activations("c1"))] == [
        "Saliency()", "GradCAM(layer='c1', signed=True)", "Activations(layers=('c1',))",
    ]  # fmt: skip

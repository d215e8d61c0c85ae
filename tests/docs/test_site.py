"""The built site is complete, and loads nothing from elsewhere."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from command_reference import walk
from google.protobuf.descriptor import Descriptor
from grpc_reference import read_descriptors
from markdown_blocks import ROOT

import convlens.client
from convlens.local.settings import UpSettings
from convlens.v1 import job_pb2, model_pb2, result_pb2, spec_pb2, tensor_pb2, visualization_pb2
from convlens.v1.reasons import Reason

MODULES = (job_pb2, model_pb2, result_pb2, spec_pb2, tensor_pb2, visualization_pb2)
LOADING = {"script": "src", "img": "src", "iframe": "src", "link": "href", "source": "src", "object": "data"}
"""Elements that load what their attribute names."""


class Page(HTMLParser):
    """The text of a page, the ids of its elements, and the addresses that it loads."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.pieces: list[str] = []
        self.ids: list[str] = []
        self.loaded: list[str] = []
        self.feed(html)
        self.text = " ".join(" ".join(self.pieces).split())

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.ids.append(attributes.get("id") or "")
        if address := attributes.get(LOADING.get(tag, "")):
            self.loaded.append(address)

    def handle_data(self, data):
        self.pieces.append(data)


@pytest.fixture(scope="module")
def pages(site):
    """Every page by its name."""
    return {path.parent.name: Page(path.read_text(encoding="utf-8")) for path in site.rglob("index.html")}


def test_pages_load_nothing_from_elsewhere(pages):
    assert len(pages) > 30
    for name, page in pages.items():
        assert any("bundle" in address for address in page.loaded), name
        assert not [address for address in page.loaded if re.match(r"(\w+:)?//", address)], name


def test_styles_load_nothing_from_elsewhere(site):
    for style in site.rglob("*.css"):
        assert not re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", style.read_text(encoding="utf-8")), style


def test_every_page_of_the_documentation_is_in_the_site(pages):
    written = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"README"}
    assert written <= pages.keys()


def test_the_reference_of_the_grpc_api_is_complete(pages):
    page = pages["grpc-api"]
    for module in MODULES:
        for service in module.DESCRIPTOR.services_by_name.values():
            assert {name.lower() for name in (service.name, *service.methods_by_name)} <= set(page.ids)
        for kind in (*module.DESCRIPTOR.message_types_by_name.values(), *module.DESCRIPTOR.enum_types_by_name.values()):
            check_type(kind, page)


def check_type(kind, page):
    """Check that a message or enum has a section, and that this has all its fields or values."""
    name = kind.full_name.removeprefix("convlens.v1.")
    assert name.lower().replace(".", "") in page.ids
    section = page.text.partition(f" {name} ¶ ")[2].partition(" ¶ ")[0]
    if not isinstance(kind, Descriptor):
        assert {value.name for value in kind.values} <= set(section.split())
        return
    assert {field.name for field in kind.fields} <= set(section.split())
    for nested in (*kind.nested_types, *kind.enum_types):
        if not (isinstance(nested, Descriptor) and nested.GetOptions().map_entry):
            check_type(nested, page)


def test_every_element_of_the_grpc_api_has_a_comment():
    for file in read_descriptors().file:
        if file.package == "convlens.v1":
            paths = {tuple(place.path) for place in file.source_code_info.location if place.leading_comments}
            for at, message in enumerate(file.message_type):
                assert {(4, at, 2, number) for number in range(len(message.field))} <= paths, message.name


def test_the_reference_of_commands_is_complete(pages):
    for name, command in walk():
        assert name.replace(" ", "-") in pages["commands"].ids
        for option in command.params:
            if option.name not in UpSettings.model_fields:
                assert all(flag in pages["commands"].text for flag in option.opts if flag.startswith("--")), name


def test_every_setting_is_listed(pages):
    for name in UpSettings.model_fields:
        assert f"CONVLENS_{name.upper()}" in pages["settings"].text.split()


def test_the_reference_of_the_python_api_is_complete(pages):
    names = {*convlens.client.__all__, "Client.visualize", "Client.saliency", "Result.overlay", "Job.cancel"}
    assert {f"convlens.client.{name}" for name in names} <= set(pages["python-api"].ids)


def test_troubleshooting_names_every_reason(pages):
    assert set(Reason) <= set(re.findall(r"\b[A-Z_]{6,}\b", pages["troubleshooting"].text))

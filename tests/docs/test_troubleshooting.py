"""The messages that docs/troubleshooting.md quotes are those that users see."""

from __future__ import annotations

import re

import numpy as np
import pytest
from markdown_blocks import ROOT

from convlens.client import Client, ConvlensError
from convlens.client.testing import serve, vgg16
from convlens.command import explain_missing

HEADINGS = re.findall(r"^### (.+)$", (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8"), re.MULTILINE)
PHOTO = np.zeros((8, 8, 3), np.uint8)
MISTAKES = {
    "no value of the float pixels exceeds …": lambda client: client.grad_cam(PHOTO + 0.5),
    "its channels come first": lambda client: client.grad_cam(PHOTO.transpose(2, 0, 1)),
    "… is no image of the formats …": lambda client: client.grad_cam(b"<html>not found</html>"),
    "no model …; served are: …": lambda client: client.grad_cam(PHOTO, model="other"),
    "no layer … in model …": lambda client: client.grad_cam(PHOTO, "block9_conv1"),
    "no Convlens server answers at …: connection refused": lambda _: Client(
        "localhost:1", connect_timeout=0.5
    ).models(),
}


@pytest.fixture(scope="module")
def client():
    with serve(models=[vgg16()]) as target, Client(target, timeout=10) as client:
        yield client


@pytest.mark.parametrize("message", MISTAKES)
def test_a_quoted_message_is_that_of_the_error(message, client):
    assert any(f"`{message}`" in heading for heading in HEADINGS)
    with pytest.raises(ConvlensError) as raised:
        MISTAKES[message](client)
    assert re.search(".*".join(map(re.escape, message.split("…"))), str(raised.value))


def test_the_message_of_a_missing_subcommand_is_quoted():
    assert explain_missing("worker").startswith("`convlens worker` is not installed here")
    assert "is not installed here" in (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")

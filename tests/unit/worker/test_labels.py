"""Files of labels: text, JSON lists, and JSON objects of names and indices; ambiguous or invalid ones are refused."""

from __future__ import annotations

import json

import pytest

from convlens.worker.models.model_protocol import ModelUnavailable
from convlens.worker.models.source import Source, read_labels

THREE = ["cat", "dog", "Größe"]
IMAGENET = {"0": ["n02012849", "crane"], "1": ["n03126707", "crane"], "2": ["n01440764", "tench"]}
VALID = {
    "text": ("l.txt", "cat\ndog\nGröße\n".encode()),
    "text without an end of line": ("l.txt", "cat\ndog\nGröße".encode()),
    "text of Windows": ("l.txt", "cat\r\ndog\r\nGröße\r\n".encode()),
    "text with a byte-order mark": ("l.txt", "cat\ndog\nGröße\n".encode("utf-8-sig")),
    "text in UTF-16": ("l.txt", "cat\r\ndog\r\nGröße\r\n".encode("utf-16")),
    "text with trailing blank lines": ("l.txt", "cat\ndog\nGröße\n\n  \n\n".encode()),
    "text with blanks": ("labels", "  cat\ndog \nGröße\t\n".encode()),
    "a JSON list": ("l.json", json.dumps(THREE).encode()),
    "a JSON list by another name": ("l.txt", json.dumps(THREE).encode("utf-8-sig")),
    "class_indices": ("l.json", json.dumps({"dog": 1, "Größe": 2, "cat": 0}).encode()),
    "index to name": ("l.json", json.dumps({"2": "Größe", "0": "cat", "1": "dog"}).encode()),
    "index to identifier and name": (
        "l.JSON",
        json.dumps({str(i): [f"n{i}", name] for i, name in enumerate(THREE)}).encode(),
    ),
}
INVALID = {
    "another number": ("l.txt", b"cat\ndog\n", "has 2 labels, the model 3 units"),
    "another number in JSON": ("l.json", b'["cat"]', "has 1 labels, the model 3 units"),
    "nothing": ("l.txt", b"\n", "has 0 labels, the model 3 units"),
    "a blank line": ("l.txt", b"cat\n\ndog\n", "line 2 is blank; each line is the label of a unit"),
    "Latin 1": (
        "l.txt",
        "cat\ndog\nGröße\n".encode("latin-1"),
        "cannot read labels .* it is no UTF-8: .*save it as UTF-8",
    ),
    "no JSON": ("l.json", b'["cat",', "it is no JSON: "),
    "a number": ("l.json", b"3", "its JSON is neither a list of labels nor an object of labels and indices"),
    "numbers for labels": ("l.json", b'["cat", 2, "dog"]', "entry 1 is 2; a label is needed"),
    "an empty label": ("l.json", b'["cat", "", "dog"]', 'entry 1 is ""; a label is needed'),
    "a gap": ("l.json", b'{"cat": 0, "dog": 1, "fox": 3}', "'fox' has the index 3; 3 labels have 0 to 2"),
    "from one": ("l.json", b'{"cat": 1, "dog": 2, "fox": 3}', "'fox' has the index 3; 3 labels have 0 to 2"),
    "an index twice": ("l.json", b'{"cat": 0, "dog": 1, "fox": 1}', "index 1 is of both 'dog' and 'fox'"),
    "neither way round": ("l.json", b'{"cat": "0", "dog": "1"}', "entry 'cat': an object gives each label its index"),
    "a deep list": ("l.json", b"[" * 100_000, "it is no JSON|recursion"),
}


def read(tmp_path, name, content, units=3):
    (tmp_path / name).write_bytes(content)
    return read_labels(Source("m", "null", labels=tmp_path / name), units)


@pytest.mark.parametrize(("name", "content"), VALID.values(), ids=VALID)
def test_labels_are_read_in_the_order_of_the_units(name, content, tmp_path):
    assert read(tmp_path, name, content) == THREE


def test_two_units_may_have_one_label(tmp_path):
    assert read(tmp_path, "l.json", json.dumps(IMAGENET).encode()) == ["crane", "crane", "tench"]


@pytest.mark.parametrize(("name", "content", "message"), INVALID.values(), ids=INVALID)
def test_invalid_labels_are_refused(name, content, message, tmp_path):
    with pytest.raises(ModelUnavailable, match=f"model 'm': .*{message}"):
        read(tmp_path, name, content)


def test_a_missing_label_file_is_refused_by_its_path(tmp_path):
    with pytest.raises(ModelUnavailable, match=r"cannot read labels .*gone.txt: .*No such file"):
        read_labels(Source("m", "null", labels=tmp_path / "gone.txt"), 3)


def test_utf_16_without_its_mark_is_refused(tmp_path):
    with pytest.raises(ModelUnavailable, match="holds NUL characters"):
        read(tmp_path, "labels.txt", "cat\ndog\nfox\n".encode("utf-16-le"))


def test_labels_are_split_at_line_endings_only(tmp_path):
    labels = ["a\u2028b", "c\x0bd", "e"]
    assert read(tmp_path, "labels.txt", "\r\n".join(labels).encode()) == labels

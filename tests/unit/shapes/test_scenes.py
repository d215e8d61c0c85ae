"""Scenes are reproducible and of every class, and their masks show where the object is."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from convlens.worker.shapes import LABELS, SIZE, draw


def test_a_scene_depends_on_its_seed_and_index_alone():
    one, again = draw(7, 20), draw(7, 20)
    np.testing.assert_array_equal(one.image, again.image)
    np.testing.assert_array_equal(one.mask, again.mask)
    assert (draw(8, 20).image != one.image).any()
    assert (draw(7, 20 + len(LABELS)).image != one.image).any()


@pytest.mark.parametrize("label", range(len(LABELS)))
def test_every_class_has_an_object_whose_mask_lies_in_the_picture(label):
    scene = draw(3, label)
    assert scene.label == label
    assert (scene.image.shape, scene.image.dtype) == ((SIZE, SIZE, 3), np.uint8)
    assert (scene.mask.shape, scene.mask.dtype) == ((SIZE, SIZE), np.bool_)
    assert 0.01 < scene.mask.mean() < 0.35
    rows, columns = np.nonzero(scene.mask)
    assert 64 * 0.8 < max(np.ptp(rows), np.ptp(columns)) + 1 <= 132


def test_drawing_needs_no_tensorflow():
    code = "import sys, convlens.worker.shapes as s; s.draw(1, 1); sys.exit('tensorflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)

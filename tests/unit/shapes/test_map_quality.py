"""Quality measures on maps whose quality is known."""

from __future__ import annotations

import numpy as np
import pytest

from bench.shapes.map_quality import deletion, insertion, mass_inside, pointing

RNG = np.random.default_rng(5)
IMAGE = RNG.uniform(0, 255, (8, 6, 3)).astype(np.float32)
BLANK = np.zeros_like(IMAGE)


def mean_brightness(images):
    return images.mean((1, 2, 3))


def test_a_map_hits_where_its_maximum_is_and_a_constant_one_misses():
    maps = np.zeros((4, 3, 3), np.float32)
    maps[0, 1, 1] = maps[1, 0, 2] = maps[2, 1, 1] = maps[2, 2, 2] = 1
    masks = np.zeros((4, 3, 3), bool)
    masks[:, 1, 1] = True
    masks[3] = True
    assert pointing(maps, masks).tolist() == [True, False, True, False]


def test_mass_counts_positive_values_only():
    maps = np.array([[[3, 1], [-5, 0]], [[0, 0], [0, 0]], [[-1, -1], [-1, -1]]], np.float32)
    masks = np.array([[[True, False], [True, False]]] * 3)
    assert mass_inside(maps, masks).tolist() == [0.75, 0, 0]


@pytest.mark.parametrize("steps", [1, 3, 48])
def test_a_constant_map_deletes_pixels_in_their_order(steps):
    area = deletion(np.zeros((8, 6), np.float32), IMAGE, BLANK, mean_brightness, steps)
    shares = [IMAGE.reshape(-1, 3)[round(48 * step / steps) :].sum() / IMAGE.size for step in range(steps + 1)]
    assert area == pytest.approx(np.trapezoid(shares, dx=1 / steps), rel=1e-5)


def test_the_best_map_deletes_fastest_and_inserts_fastest_and_the_worst_is_its_reverse():
    best = IMAGE.mean(-1)
    others = [RNG.normal(size=(8, 6)).astype(np.float32) for _ in range(20)]
    low, high = (deletion(map_, IMAGE, BLANK, mean_brightness, 48) for map_ in (best, -best))
    assert all(low < deletion(map_, IMAGE, BLANK, mean_brightness, 48) < high for map_ in others)
    assert insertion(best, IMAGE, BLANK, mean_brightness, 48) == pytest.approx(high, rel=1e-4)
    assert low + high == pytest.approx(IMAGE.mean(), rel=1e-4)


def test_the_images_are_not_changed():
    before = IMAGE.copy()
    deletion(IMAGE.mean(-1), IMAGE, BLANK, mean_brightness)
    np.testing.assert_array_equal(IMAGE, before)
    assert not BLANK.any()

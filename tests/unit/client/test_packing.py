"""How many images map() makes a job of."""

from __future__ import annotations

import numpy as np
import pytest

from convlens.client.errors import InvalidArgument
from convlens.client.packing import FIRST, LEAST, MOST, PACK_BYTES, QUICK, SLOW, Packer

IMAGE = np.zeros((4, 4, 3), np.uint8)


def jobs(packer, count):
    """The sizes of the next jobs."""
    found = []
    while len(found) < count:
        if full := packer.add(IMAGE):
            found.append(len(full))
    return found


def test_quick_jobs_are_followed_by_larger_ones_and_slow_ones_by_smaller_ones():
    packer = Packer()
    assert jobs(packer, 2) == [FIRST, FIRST]
    for _ in range(10):
        packer.took(packer.size, QUICK / 2)
    assert jobs(packer, 2) == [MOST, MOST]
    packer.took(MOST, (QUICK + SLOW) / 2)
    assert jobs(packer, 1) == [MOST]
    for _ in range(10):
        packer.took(packer.size, 2 * SLOW)
    assert jobs(packer, 2) == [LEAST, LEAST]


@pytest.mark.parametrize(("images", "seconds", "size"), [(2, QUICK / 2, FIRST), (2 * MOST, 2 * SLOW, FIRST)])
def test_a_small_rest_or_an_older_larger_job_says_nothing_of_the_size(images, seconds, size):
    packer = Packer()
    packer.took(images, seconds)
    assert packer.size == size


def test_a_size_that_shrinks_while_images_are_collected_ends_the_job():
    packer = Packer()
    for _ in range(LEAST + 2):
        assert not packer.add(IMAGE)
    packer.took(FIRST, 2 * SLOW)
    assert jobs(packer, 1) == [LEAST + 3]


def test_a_jobs_bytes_are_bounded():
    large = np.zeros((1, PACK_BYTES // 9, 3), np.uint8)
    packer = Packer()
    assert [len(packer.add(large) or ()) for _ in range(5)] == [0, 0, 0, 3, 0]
    assert len(packer.rest()) == 2
    assert not packer.rest()


def test_what_is_no_image_stands_in_its_place_as_its_error():
    packer = Packer()
    for image in (IMAGE, "no such file", IMAGE, 7):
        assert not packer.add(image)
    batch = packer.rest()
    assert (len(batch), len(batch.images)) == (4, 2)
    first, missing, second, number = batch.in_place(["first", "second"])
    assert (first, second) == ("first", "second")
    assert isinstance(missing, FileNotFoundError)
    assert isinstance(number, InvalidArgument)


def test_an_array_may_be_used_again_once_it_is_packed():
    packer = Packer()
    array = IMAGE + 1
    packer.add(array)
    array[:] = 9
    (image,) = packer.rest().images.images
    assert set(image.data) == {1}

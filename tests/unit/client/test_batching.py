"""How many images `map()` puts into a job."""

from __future__ import annotations

import numpy as np
import pytest

from convlens.client.batching import (
    BATCH_BYTES,
    FAST_JOB,
    FIRST_SIZE,
    LARGEST_SIZE,
    SLOW_JOB,
    SMALLEST_SIZE,
    Batcher,
)
from convlens.client.errors import InvalidArgument

IMAGE = np.zeros((4, 4, 3), np.uint8)


def job_sizes(batcher, count):
    """Return the sizes of the next jobs."""
    sizes = []
    while len(sizes) < count:
        if batch := batcher.add(IMAGE):
            sizes.append(len(batch))
    return sizes


def test_quick_jobs_are_followed_by_larger_ones_and_slow_ones_by_smaller_ones():
    batcher = Batcher()
    assert job_sizes(batcher, 2) == [FIRST_SIZE, FIRST_SIZE]
    for _ in range(10):
        batcher.adapt(batcher.size, FAST_JOB / 2)
    assert job_sizes(batcher, 2) == [LARGEST_SIZE, LARGEST_SIZE]
    batcher.adapt(LARGEST_SIZE, (FAST_JOB + SLOW_JOB) / 2)
    assert job_sizes(batcher, 1) == [LARGEST_SIZE]
    for _ in range(10):
        batcher.adapt(batcher.size, 2 * SLOW_JOB)
    assert job_sizes(batcher, 2) == [SMALLEST_SIZE, SMALLEST_SIZE]


@pytest.mark.parametrize(
    ("images", "seconds", "size"), [(2, FAST_JOB / 2, FIRST_SIZE), (2 * LARGEST_SIZE, 2 * SLOW_JOB, FIRST_SIZE)]
)
def test_a_small_last_job_or_an_older_larger_one_does_not_change_the_size(images, seconds, size):
    batcher = Batcher()
    batcher.adapt(images, seconds)
    assert batcher.size == size


def test_a_size_that_shrinks_while_images_are_collected_ends_the_job():
    batcher = Batcher()
    for _ in range(SMALLEST_SIZE + 2):
        assert not batcher.add(IMAGE)
    batcher.adapt(FIRST_SIZE, 2 * SLOW_JOB)
    assert job_sizes(batcher, 1) == [SMALLEST_SIZE + 3]


def test_a_jobs_bytes_are_bounded():
    large = np.zeros((1, BATCH_BYTES // 9 - 100, 3), np.uint8)
    batcher = Batcher()
    assert [len(batcher.add(large) or ()) for _ in range(5)] == [0, 0, 0, 3, 0]
    assert len(batcher.flush()) == 2
    assert not batcher.flush()


def test_an_error_takes_the_place_of_an_invalid_image():
    batcher = Batcher()
    for image in (IMAGE, "no such file", IMAGE, 7):
        assert not batcher.add(image)
    batch = batcher.flush()
    assert (len(batch), len(batch.images)) == (4, 2)
    first, missing, second, number = batch.in_order(["first", "second"])
    assert (first, second) == ("first", "second")
    assert isinstance(missing, FileNotFoundError)
    assert isinstance(number, InvalidArgument)


def test_an_array_may_be_reused_after_it_was_added():
    batcher = Batcher()
    array = IMAGE + 1
    batcher.add(array)
    array[:] = 9
    (image,) = batcher.flush().images
    assert set(image.pixels.flat) == {1}

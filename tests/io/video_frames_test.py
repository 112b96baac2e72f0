"""Limits of the frames of videos; what else io/video_frames.py does is tested with whole clips."""

import pytest

from genhmr_jax.io.errors import InputError
from genhmr_jax.io.video_frames import check_size


@pytest.mark.parametrize("size", [(16_001, 8), (8, 16_001), (0, 8), (8, 0), (9_000, 9_000)])
def test_sizes_that_are_refused(size):
    with pytest.raises(InputError, match=f"has frames of {size[0]} x {size[1]} px"):
        check_size("x.mp4", *size)
    check_size("x.mp4", 16_000, 8)
    check_size("x.mp4", 8, 16_000)

"""How certain an estimate is. The estimates themselves are tested with the detector."""

import numpy as np

from genhmr_jax.detect.pose_estimate import LEAST_CERTAINTY, certainty


def test_the_certainty_is_that_of_a_measurement():
    """The inverse square of the expected error, 1 for errors that a good photo has, too."""
    found = certainty(np.array([0.0, 0.008, 0.015, 0.03, 0.045, 0.25]))
    np.testing.assert_allclose(found, [1, 1, 1, 1 / 4, 1 / 9, LEAST_CERTAINTY])
    assert certainty(np.float64(0.03)) == np.float64(0.25)

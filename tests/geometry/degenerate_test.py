"""Body, hand, rotations, skeleton and the objective of the refinement at degenerate inputs.

The cases are those of tools/reliability/degenerate.py, with few rows.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from smpl_jax import rotations

from genhmr_jax.core.fit_objective import SMALLEST, camera_of, robust, weak_of
from genhmr_jax.core.mesh_fit import nearest_rotation
from support.reliability import reliability_tool

ROWS = 3
LARGEST = 1e6  # of a gradient: a step of training is lost in a larger one


MODELS = {"body": 8, "hand": 8, "rotation": 15, "skeleton": 8, "objective": 15}  # and cases
SLOW = ("body", "hand", "objective")  # see also smpl_model_test.py and core/numerics_test.py


@pytest.mark.parametrize(
    "model", [pytest.param(m, marks=[pytest.mark.slow] * (m in SLOW)) for m in MODELS]
)
def test_values_and_gradients_are_finite(model):
    tool = reliability_tool("degenerate")
    measured = list(map(tool.measure, tool.cases(model, ROWS)))
    assert len(measured) == MODELS[model]
    assert not [m for m in measured if not m.sound or m.largest > LARGEST]


def test_an_outlier_of_any_distance_has_the_same_loss():
    far = np.float32([1e3, 1e9, 1e18, 1e19, 1e20, 1e30])
    value, slope = jax.vmap(jax.value_and_grad(lambda r: robust(r**2, 0.1)))(far)
    np.testing.assert_allclose(value, 0.01, rtol=1e-6)
    np.testing.assert_allclose(slope, 0, atol=1e-6)


def test_a_camera_of_no_size_gets_the_smallest():
    weak = jnp.array([[0.9, 0.1, 0.2], [0.0, 0.1, 0.2], [-3.0, 0.1, 0.2]])
    back = weak_of(camera_of(weak))
    np.testing.assert_allclose(back[:, 0], [0.9, SMALLEST, SMALLEST], rtol=1e-5)
    np.testing.assert_array_equal(back[:, 1:], weak[:, 1:])
    assert np.isnan(camera_of(weak * jnp.nan)).all()  # what is unknown stays unknown


def test_parallel_vectors_are_no_rotation_but_nearly_parallel_ones_are():
    first = np.random.default_rng(0).normal(size=(50, 3))
    across = np.cross(first, np.random.default_rng(1).normal(size=(50, 3)))
    for angle, rotation in ((1e-7, False), (1e-4, True)):
        second = -first + angle * across
        six = np.float32(np.concatenate([first, second], -1))
        matrix = np.asarray(rotations.rot6d_to_matrix(six, "rows"))
        np.testing.assert_allclose(np.linalg.norm(matrix[:, 0], axis=-1), 1, atol=1e-6)
        np.testing.assert_allclose(np.linalg.det(matrix), float(rotation), atol=1e-4)


def test_the_nearest_rotation_does_not_depend_on_the_size():
    m = np.random.default_rng(0).normal(size=(20, 3, 3))
    sizes = np.array([1.0, 1e-30, 1e-10, 1e10, 1e30, 0.0])[:, None, None, None]
    found = jax.jit(nearest_rotation)(np.float32(sizes * m).reshape(-1, 3, 3)).reshape(6, 20, 3, 3)
    np.testing.assert_allclose(found[:-1], np.tile(found[0], (5, 1, 1, 1)), atol=1e-5)
    np.testing.assert_array_equal(found[-1], np.tile(np.eye(3), (20, 1, 1)))

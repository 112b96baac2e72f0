"""Heights of bodies."""

import dataclasses

import jax
import numpy as np
import pytest
import smpl_jax

from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.stature import LEAST, MOST, stature, with_stature
from genhmr_jax.io.errors import InputError

BODY = load_body("lite")
REST = jax.jit(lambda betas: smpl_jax.forward(BODY, betas, np.zeros(72, np.float32)).vertices)


def posed_height(betas):
    """Of the mesh in the rest pose, by the body itself."""
    vertices = np.asarray(REST(betas))
    return float(vertices[:, 1].max() - vertices[:, 1].min())


@pytest.mark.parametrize("height", [LEAST, 1.2, 1.7, 2.05, MOST])
def test_a_body_of_a_height(height):
    betas = np.random.default_rng(0).normal(size=10).astype(np.float32)
    assert stature(BODY, betas) == pytest.approx(posed_height(betas), abs=1e-5)
    found = with_stature(BODY, betas, height)
    assert found.dtype == np.float32 and found.shape == (10,)
    assert posed_height(found) == pytest.approx(height, abs=1e-3)


def test_a_small_change_is_the_smallest():
    """The height is linear in the betas nearby: no other change of the same effect is shorter."""
    rng = np.random.default_rng(1)
    betas = rng.normal(0, 0.5, 10)
    height = stature(BODY, betas)
    slope = np.array([(stature(BODY, betas + 1e-4 * e) - height) / 1e-4 for e in np.eye(10)])
    change = with_stature(BODY, betas, height + 0.005) - betas
    np.testing.assert_allclose(change, 0.005 * slope / (slope @ slope), atol=1e-4)
    np.testing.assert_allclose(with_stature(BODY, betas, height), betas, atol=1e-6)


@pytest.mark.parametrize("height", [9, 0.2, -1.7, float("nan"), float("inf")])
def test_no_height_of_a_person(height):
    with pytest.raises(InputError, match="is no height of a person"):
        with_stature(BODY, np.zeros(10), height)


def with_shapes(count):
    """The body with its first shape directions only; the others are zero, as load_body fills."""
    directions, weights = BODY.directions, BODY.weights
    directions[count : BODY.num_betas] = 0
    blocks = smpl_jax.blocks.make_blocks(directions, weights)
    return dataclasses.replace(BODY, blocks=blocks)


def test_bodies_of_few_shapes():
    found = with_stature(with_shapes(1), np.zeros(10), 1.75)
    assert found[0] and not found[1:].any()
    assert posed_height(found) == pytest.approx(1.75, abs=1e-3)
    with pytest.raises(InputError, match="has only one shape"):
        with_stature(with_shapes(0), np.zeros(10), 1.75)

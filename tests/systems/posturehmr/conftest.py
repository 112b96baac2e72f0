"""A small untrained PostureHMR, and inputs of simulated people."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genhmr_jax.data import poses, views
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.keypoints import keypoint_model
from genhmr_jax.systems.posturehmr import coarse_body
from genhmr_jax.systems.posturehmr.spec import Mesh2dSpec, PostureSpec
from genhmr_jax.systems.posturehmr.system import PostureSystem

SPEC = PostureSpec(
    Mesh2dSpec(encoder_channels=(), width=16, depth=1, point_width=4), width=16, layers=1, heads=2
)


@pytest.fixture(scope="session")
def posture_model():
    """(system, parameters, inputs of 4 people)."""
    system, rng = PostureSystem(SPEC), np.random.default_rng(0)
    body = load_body("neutral")
    coarse = coarse_body.make(body, SPEC.mesh2d)
    draw = lambda x: jnp.asarray(rng.normal(0, 0.05, x.shape), x.dtype)
    params = jax.tree.map(draw, system.shapes) | {"body": coarse_body.to_params(coarse)}
    params["mesh2d"]["matrix"] = coarse_body.mesh_from_points(coarse)
    corpus = poses.made_up_poses("val", 4)
    spec = views.ViewSpec(crop_jitter=0.0)
    make = jax.jit(
        lambda p, n: views.make_views(keypoint_model(body), p, n, jax.random.key(1), spec)
    )
    inputs = jax.tree.map(np.asarray, make(corpus, np.arange(4, dtype=np.uint32)).inputs())
    region = np.concatenate([inputs.view.crop, np.zeros((4, 1), np.float32)], -1)
    return (
        system,
        params,
        dataclasses.replace(inputs, view=dataclasses.replace(inputs.view, region=region)),
    )

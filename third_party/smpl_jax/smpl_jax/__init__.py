"""SMPL in JAX: a body as a pytree, posed by pure functions.

Example:
    model = smpl_jax.load("SMPL_NEUTRAL.pkl")
    vertices, joints, rest_joints = smpl_jax.forward(model, betas, pose)
"""

from smpl_jax import keypoints, rotations
from smpl_jax.io import load
from smpl_jax.model import SmplModel, SmplOutput, forward, posed_joints

__all__ = ["SmplModel", "SmplOutput", "forward", "keypoints", "load", "posed_joints", "rotations"]

"""SMPL in JAX: a body is a pytree, and pure functions pose it.

SMPL (Loper et al. 2015) is a mesh with a skeleton of 24 joints. Shape coefficients (betas) deform
the mesh of the rest pose and move its joints. The pose is one rotation for each joint, relative to
its parent. Forward kinematics chains the rotations to a motion of each joint; every vertex then
moves by a weighted mean of these motions (linear blend skinning). model.py has the body and
`forward`, lbs.py the computation, rotations.py the rotation formats, io.py the files.

Example:
    model = smpl_jax.load("SMPL_NEUTRAL.pkl")
    vertices, joints, rest_joints = smpl_jax.forward(model, betas, pose)
"""

from smpl_jax import keypoints, rotations
from smpl_jax.io import load
from smpl_jax.model import SmplModel, SmplOutput, forward, posed_joints

__all__ = ["SmplModel", "SmplOutput", "forward", "keypoints", "load", "posed_joints", "rotations"]

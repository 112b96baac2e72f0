"""The part of a system whose latents are the 24 joint rotations themselves, in 6D."""

from collections.abc import Callable

import jax.numpy as jnp
import smpl_jax
from jaxtyping import Array, Float
from smpl_jax import rotations

from genhmr_jax.core.refinement import RefineSpec
from genhmr_jax.core.system import Latents, Params
from genhmr_jax.geometry.camera import CropCamera


class RotationAnswer:
    """`pose` and `confidence` of core.system.System, for "embeddings" (B, 24, 6) in rows.

    Decoding them is Gram-Schmidt; the 2D refinement works on them as it does on tokens. But a
    tokenizer decodes any embeddings to a likely pose, and rotations can be any. Therefore the
    refinement keeps the pose close to the start, by stronger priors (docs/experiments.md).
    """

    refinement = RefineSpec(prior_pose=0.064, masked_prior_pose=0.016)

    pose_parts = tuple(((joint,), (joint,)) for joint in range(24))  # one row for each rotation

    def pose(
        self, params: Params, view: CropCamera
    ) -> Callable[[Float[Array, "B 24 6"]], Float[Array, "B 24 3 3"]]:
        """From 6D rotations to rotation matrices."""
        return lambda embeddings: rotations.rot6d_to_matrix(embeddings, "rows")

    def confidence(
        self,
        params: Params,
        latents: Latents,
        body: smpl_jax.SmplModel,
        rotmats: Array,
        keys: Array,
    ) -> Float[Array, "B 24"]:
        """NaN: the system does not estimate its confidence."""
        return jnp.full(rotmats.shape[:2], jnp.nan)

"""MQ-HMR as core.system.System: its answer is its queries, as coordinates."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import smpl_jax
from flax import nnx
from jaxtyping import Array, Float

from genhmr_jax.core.inputs import Inputs, turned
from genhmr_jax.core.preparation import AroundKeypoints
from genhmr_jax.core.refinement import Parts
from genhmr_jax.core.rotation_answer import RotationAnswer
from genhmr_jax.core.system import Latents, Params
from genhmr_jax.geometry.camera import CropCamera
from genhmr_jax.systems.regressors.model import RegressorSpec
from genhmr_jax.systems.regressors.system import Regressed, RegressorSystem


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RegressedInView(Regressed):
    """Estimates in the axes of the encoder's maps, and the camera of the photo."""

    view: CropCamera


@dataclasses.dataclass(frozen=True)
class MultiQuerySystem(AroundKeypoints, RegressorSystem):
    """The network of a spec, without arrays.

    The 2D refinement moves the queries (BioPose's "2D-informed refinement"), by their coordinates
    in the space of the head's rows: see MultiQueryHead.coordinates.
    """

    refinement = RotationAnswer.refinement

    @property
    def pose_parts(self) -> Parts | None:
        """Each query is a joint, if there are as many."""
        return RotationAnswer.pose_parts if self.spec.decoder.of_joints else None

    @property
    def encoder(self) -> str:
        """See core.system.StoredSystem."""
        return self.spec.encoder

    def encode(self, params: Params, inputs: Inputs) -> RegressedInView:
        """The queries, shape and camera of each crop, or of the detector's region."""
        network = nnx.merge(self.model, params["genhmr"])
        maps = network.maps(inputs.images) if inputs.maps is None else inputs.maps
        queries, betas, camera = network.head.decode(maps)
        return RegressedInView(network.head.coordinates(queries), betas, camera, inputs.view)

    def sample(
        self,
        params: Params,
        body: smpl_jax.SmplModel,
        encoded: RegressedInView,
        keys: Array,
        **how: Any,
    ) -> Latents:
        """The network's answer, with the camera of the photo's crop."""
        latents = super().sample(params, body, encoded, keys, **how)
        if not self.spec.upright:
            return latents
        rest = jnp.broadcast_to(jnp.eye(3), (len(keys), body.num_joints, 3, 3))
        pelvis = smpl_jax.posed_joints(body, encoded.betas, rest)[:, 0]
        weak = encoded.view.weak_of_upright(encoded.weak_camera, pelvis)
        return dataclasses.replace(latents, weak_camera=weak)

    def pose(
        self, params: Params, view: CropCamera
    ) -> Callable[[Float[Array, "B L D"]], Float[Array, "B 24 3 3"]]:
        """From coordinates of the queries to rotation matrices."""
        with jax.named_scope("head"):
            decode = nnx.merge(self.model, params["genhmr"]).head.rotations
        return turned(decode, view.upright()[0]) if self.spec.upright else decode


def make_system(spec: dict[str, Any]) -> MultiQuerySystem:
    """The system of the spec in a model's config.json; for systems/registry.py."""
    return MultiQuerySystem(RegressorSpec.from_dict(spec))

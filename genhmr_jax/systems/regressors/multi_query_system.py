"""MQ-HMR as core.system.System: its answer is its queries, as coordinates."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Float

from genhmr_jax.core.inputs import Inputs
from genhmr_jax.core.preparation import AroundKeypoints
from genhmr_jax.core.refinement import Parts
from genhmr_jax.core.rotation_answer import RotationAnswer
from genhmr_jax.core.system import Params
from genhmr_jax.geometry.camera import CropCamera
from genhmr_jax.systems.regressors.model import RegressorSpec
from genhmr_jax.systems.regressors.system import Regressed, RegressorSystem


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

    def encode(self, params: Params, inputs: Inputs) -> Regressed:
        """The queries, shape and camera of each crop."""
        network = nnx.merge(self.model, params["genhmr"])
        maps = network.maps(inputs.images) if inputs.maps is None else inputs.maps
        queries, betas, camera = network.head.decode(maps)
        return Regressed(network.head.coordinates(queries), betas, camera)

    def pose(
        self, params: Params, view: CropCamera
    ) -> Callable[[Float[Array, "B L D"]], Float[Array, "B 24 3 3"]]:
        """From coordinates of the queries to rotation matrices."""
        with jax.named_scope("head"):
            return nnx.merge(self.model, params["genhmr"]).head.rotations


def make_system(spec: dict[str, Any]) -> MultiQuerySystem:
    """The system of the spec in a model's config.json; for systems/registry.py."""
    return MultiQuerySystem(RegressorSpec.from_dict(spec))

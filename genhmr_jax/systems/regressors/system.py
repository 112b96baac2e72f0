"""HMR2.0 and TokenHMR behind the interface of predict.Networks: what `recover` needs of a network, without sampling.

The "token embeddings" of a regressor are its 24 rotations in 6D, and decoding them is Gram-Schmidt: so the 2D refinement works on them as
it does on tokens.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float
from smpl_jax import rotations

from genhmr_jax.systems.regressors.model import RegressorSpec, graph


class Regressed(NamedTuple):
    """What the network says of B crops: rotations in 6D ("rows"), shape, weak camera."""

    rot6d: Float[Array, "B 24 6"]
    betas: Float[Array, "B 10"]
    weak_camera: Float[Array, "B 3"]


class OneAnswer(NamedTuple):
    """In place of samples: no tokens."""

    tokens: Array


@dataclasses.dataclass(frozen=True)
class RegressorNetworks:
    """Structure of a regressor, without arrays; `params` is {"genhmr": {"encoder", "head"}}."""

    spec: RegressorSpec
    model: nnx.GraphDef
    shapes: dict[str, Any] = dataclasses.field(compare=False)

    refine_steps = 0  # the published models do not refine
    crops_by_box = True  # the square around the person's box
    contexts = ("all", "image")

    @property
    def crop(self) -> str:
        """How its pictures are cut, one of image_encoder.CROPS."""
        return self.spec.crop

    @staticmethod
    def of(spec: RegressorSpec) -> "RegressorNetworks":
        """Networks of a spec."""
        model, shapes = graph(spec)
        return RegressorNetworks(spec, model, {"genhmr": shapes})

    def encode(self, params: dict[str, Any], inputs: dict[str, Any]) -> Regressed:
        """The body of each crop. inputs: "images" (B, 256, 256, 3) in 0..1."""
        body = nnx.merge(self.model, params["genhmr"])(inputs["images"])
        return Regressed(rotations.matrix_to_rot6d(body.rotmats, "rows"), body.betas, body.weak_camera)

    def sample(self, params: dict[str, Any], encoded: Regressed, keys: Array, **how: Any) -> tuple[OneAnswer, Float[Array, "B 24 6"]]:
        """The one answer; keys and settings of sampling change nothing."""
        rows = encoded.rot6d.shape[0]
        return OneAnswer(jnp.zeros((rows, 0), jnp.int32)), encoded.rot6d

    def decode(self, params: dict[str, Any], embeddings: Float[Array, "B 24 6"]) -> Float[Array, "B 24 3 3"]:
        """6D rotations -> matrices."""
        return rotations.rot6d_to_matrix(embeddings, "rows")

    def decoder(self, params: dict[str, Any], inputs: dict[str, Any]) -> Callable[[Float[Array, "B 24 6"]], Float[Array, "B 24 3 3"]]:
        """`decode`, whatever the inputs are."""
        return functools.partial(self.decode, params)

    def joint_confidence(self, params: dict[str, Any], encoded: Regressed, body: Any, rotmats: Array, keys: Array) -> Float[Array, "B 24"]:
        """NaN: a regressor does not say."""
        return jnp.full(rotmats.shape[:2], jnp.nan)

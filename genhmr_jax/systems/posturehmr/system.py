"""PostureHMR as a core.system.System: 2D mesh, T steps to a mesh, and the body that fits it.

The "embeddings" of this system are 24 rotations in 6D (core/rotation_answer.py). All functions but
`prepare` are pure and can be jitted. `params` is {"mesh2d", "decoder", "body"}.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import smpl_jax
from jaxtyping import Array, Float, Int
from smpl_jax import rotations

from genhmr_jax.core.inputs import Inputs, upright
from genhmr_jax.core.preparation import AroundKeypoints
from genhmr_jax.core.rotation_answer import RotationAnswer
from genhmr_jax.core.system import Latents, Params
from genhmr_jax.geometry.camera import CropCamera
from genhmr_jax.io.program_store import remembered_shapes
from genhmr_jax.systems.posturehmr import answer, coarse_body, posture, reverse
from genhmr_jax.systems.posturehmr.mesh2d import Mesh2dEstimate
from genhmr_jax.systems.posturehmr.model import Surface
from genhmr_jax.systems.posturehmr.spec import PostureSpec

KIND = "posturehmr"


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Encoded:
    """The result of the first stage for B people.

    Attributes:
      mesh2d: of the first stage.
      turn: (B, 3, 3) from the upright axes to those of the photo's camera.
      view, photo: the upright camera, and the photo's.
    """

    mesh2d: Mesh2dEstimate
    turn: Float[Array, "B 3 3"]
    view: CropCamera
    photo: CropCamera


@dataclasses.dataclass(frozen=True)
class PostureSystem(AroundKeypoints, RotationAnswer):
    """The networks of a spec, without arrays."""

    spec: PostureSpec

    kind = KIND
    samples = False

    @property
    def shapes(self) -> Params:
        """The shapes of the parameters, float32."""
        return remembered_shapes(self.kind, self.spec, self._shapes)

    def _shapes(self) -> Params:
        return {
            "mesh2d": reverse.mesh2d_network(self.spec.mesh2d)[1],
            "decoder": reverse.decoder_network(self.spec)[1],
            "body": coarse_body.param_shapes(self.spec.mesh2d),
        }

    @property
    def contexts(self) -> tuple[str, ...]:
        """Those of core.choices.CONTEXTS that the model supports."""
        return ("all", "keypoints") if self.spec.mesh2d.encoder_channels else ("all",)

    @property
    def encoder(self) -> str | None:
        """See core.system.StoredSystem."""
        return self.spec.mesh2d.used_encoder

    def encode(self, params: Params, inputs: Inputs) -> Encoded:
        """Estimate the 2D meshes."""
        turn, own = upright(inputs)
        estimate = reverse.mesh2d(self.spec.mesh2d, params["mesh2d"])(own)
        return Encoded(estimate, turn, own.view, inputs.view)

    def _reverse(self, params: Params, encoded: Encoded, keys: Array) -> tuple:
        """The arguments of reverse.run but the number of steps."""
        decoder = reverse.decoder(self.spec, params["decoder"])
        first = posture.start(self.spec, coarse_body.from_params(params["body"]), keys)
        box = encoded.view.box_information()
        surface = Surface(params["body"]["adjacency"], params["body"]["markers"])
        return decoder, first, encoded.mesh2d, box, surface

    def sample(
        self,
        params: Params,
        body: smpl_jax.SmplModel,
        encoded: Encoded,
        keys: Array,
        *,
        iterations: int | Int[Array, ""],
        temperature: float | Float[Array, ""] = 0.0,
        hypotheses: int = 1,
    ) -> Latents:
        """The body that fits the last mesh.

        Args:
          iterations: T.
          temperature, hypotheses: without effect, as the process is deterministic.
        """
        mesh = reverse.run(*self._reverse(params, encoded, keys), iterations)
        return self._answer(params, encoded, mesh)

    def trace(
        self,
        params: Params,
        body: smpl_jax.SmplModel,
        encoded: Encoded,
        keys: Array,
        *,
        iterations: int,
    ) -> Latents:
        """See core.system.TracedSystem; the first answer is the template."""
        meshes = reverse.trace(*self._reverse(params, encoded, keys), iterations)
        return jax.lax.map(lambda mesh: self._answer(params, encoded, mesh), meshes)

    def _answer(self, params: Params, encoded: Encoded, mesh: Float[Array, "B C 3"]) -> Latents:
        """The body and the camera of meshes in the upright axes."""
        fit = answer.fitted(coarse_body.from_params(params["body"]), mesh)
        # The pelvis is where the mesh meets the 2D mesh. It is not the model's origin.
        own = answer.translation_of(mesh, encoded.mesh2d.vertices, encoded.view)
        shape = jnp.einsum("bs,sc->bc", fit.betas, params["body"]["joint_shapedirs"][:, 0])
        pelvis = params["body"]["joint_template"][0] + shape
        translation = jnp.einsum("bij,bj->bi", encoded.turn, own) - pelvis
        root = encoded.turn @ fit.rotmats[:, 0]
        rot6d = rotations.matrix_to_rot6d(fit.rotmats.at[:, 0].set(root), "rows")
        tokens = jnp.zeros((rot6d.shape[0], 0), jnp.int32)
        return Latents(rot6d, fit.betas, encoded.photo.weak(translation), tokens)

    def default_iterations(self, hypotheses: int) -> int:
        """T of the training."""
        return self.spec.steps


def make_system(spec: dict[str, Any]) -> PostureSystem:
    """The system of the spec in a model's config.json; for systems/registry.py."""
    return PostureSystem(PostureSpec.from_dict(spec))

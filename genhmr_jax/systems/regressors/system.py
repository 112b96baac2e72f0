"""HMR2.0 and TokenHMR as core.system.System: one answer, without sampling. MQ-HMR builds on it.

The "embeddings" of a regressor are its 24 rotations in 6D (core/rotation_answer.py). `params`
is {"genhmr": {"encoder", "head"}}.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import smpl_jax
from flax import nnx
from jaxtyping import Array, Float
from smpl_jax import rotations

from genhmr_jax.core import encoders, silhouette_term
from genhmr_jax.core.inputs import Inputs
from genhmr_jax.core.rotation_answer import RotationAnswer
from genhmr_jax.core.system import Latents, Params, PhotoCamera
from genhmr_jax.detect.detections import Detections
from genhmr_jax.geometry import camera
from genhmr_jax.geometry.keypoints import MIN_CONFIDENCE
from genhmr_jax.io.program_store import remembered_shapes
from genhmr_jax.systems.regressors.model import RegressorSpec, graph


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Regressed:
    """What the network estimates of B crops.

    Attributes:
      embeddings: the input of `pose`: rotations in 6D ("rows"), or coordinates of queries.
      betas: shape.
      weak_camera: of the crop.
    """

    embeddings: Float[Array, "B L D"]
    betas: Float[Array, "B 10"]
    weak_camera: Float[Array, "B 3"]


@dataclasses.dataclass(frozen=True)
class RegressorSystem(RotationAnswer):
    """The network of a spec, without arrays."""

    spec: RegressorSpec

    needs_box = True  # it crops the square around the person's box
    samples = False
    contexts = ("all", "image")
    # The published models do not refine.
    refinement = dataclasses.replace(RotationAnswer.refinement, steps=0)

    @property
    def model(self) -> nnx.GraphDef:
        """The graph of the network."""
        return graph(self.spec)[0]

    @property
    def shapes(self) -> Params:
        """The shapes of the parameters."""
        found = remembered_shapes(self.kind, self.spec, lambda: graph(self.spec)[1])
        return {"genhmr": found}

    @property
    def kind(self) -> str:
        """One of model.KINDS."""
        return self.spec.kind

    def prepare(
        self,
        image: np.ndarray,
        people: Detections,
        photo: PhotoCamera,
        rows: int,
        *,
        published_crop: bool = False,
    ) -> Inputs:
        """See core.system.System. The crop is the square around the box, made as in training."""
        height, width = image.shape[:2]
        squares = [camera.square_around(box) for box in people.boxes]
        squares = np.array(squares, np.float32).reshape(-1, 3)
        padded = people.padded(rows)
        is_detected = padded.keypoints[..., 2:] >= MIN_CONFIDENCE
        keypoints = np.where(is_detected, padded.keypoints, np.float32(0))
        # Rows without a box get a crop around their keypoints.
        crop = camera.crop_around(keypoints[..., :2], keypoints[..., 2])
        crop[: len(squares)] = np.where(squares[:, 2:] > 0, squares, crop[: len(squares)])
        # The published demo blurs large crops; the published evaluation does not
        # (geometry/published_crop.py).
        blur = not published_crop
        images = encoders.crop_images(image, crop[: len(people)], rows, self.spec.crop, blur)
        silhouette = silhouette_term.targets(padded, crop, width, height)
        inputs = {"keypoints": keypoints, "images": images, "silhouette": silhouette}
        return Inputs(photo.of_crops(crop), **inputs, certainty=padded.certainty)

    def encode(self, params: Params, inputs: Inputs) -> Regressed:
        """Estimate the body of each crop."""
        body = nnx.merge(self.model, params["genhmr"])(inputs.images)
        rot6d = rotations.matrix_to_rot6d(body.rotmats, "rows")
        return Regressed(rot6d, body.betas, body.weak_camera)

    def sample(
        self,
        params: Params,
        body: smpl_jax.SmplModel,
        encoded: Regressed,
        keys: Array,
        **how: Any,
    ) -> Latents:
        """The network's answer. Keys and settings of sampling have no effect."""
        tokens = jnp.zeros((encoded.betas.shape[0], 0), jnp.int32)
        return Latents(encoded.embeddings, encoded.betas, encoded.weak_camera, tokens)

    def default_iterations(self, hypotheses: int) -> int:
        """One: the network runs once."""
        return 1


def make_system(spec: dict[str, Any]) -> RegressorSystem:
    """The system of the spec in a model's config.json; for systems/registry.py."""
    return RegressorSystem(RegressorSpec.from_dict(spec))

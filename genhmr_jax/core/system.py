"""The interface of a system, as `recover`, `eval` and `aot` use it.

A system turns the detected people of a photo into bodies. It is pure and holds no arrays: `params`
is a pytree that is passed to every call. core/solve.py runs a system, systems/registry.py finds one
by its kind, and docs/adding_a_system.md shows how to write one.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
import smpl_jax
from jaxtyping import Array, Float, Int

from genhmr_jax.core.inputs import Inputs
from genhmr_jax.core.refinement import Parts, RefineSpec
from genhmr_jax.detect.detections import Detections
from genhmr_jax.geometry.camera import CropCamera

Params = Any
"""Nested dictionaries of arrays."""


Encoded = Any
"""The results that a system computes once from its inputs; a pytree, rows first."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Latents:
    """A sampled answer.

    Attributes:
      embeddings: (B, L, D) the input of `System.pose`, which the refinement moves.
      betas: (B, 10) shape.
      weak_camera: (B, 3) of the photo's crop.
      tokens: (B, T) int32 ids; T is 0 for a system without tokens.
      logits: (B, T, N) of all tokens before any was chosen, for `System.confidence`; None for a
        system without tokens, or with a learned confidence.
      near: (B, J) probability that a joint is within confidence.NEAR of the truth, if the system
        has learned it.
      expected_error: (B,) metres, PA-MPJPE plus MPJPE, if the system has learned to score its
        answers.
    """

    embeddings: Float[Array, "B L D"]
    betas: Float[Array, "B 10"]
    weak_camera: Float[Array, "B 3"]
    tokens: Int[Array, "B T"]
    logits: Float[Array, "B T N"] | None = None
    near: Float[Array, "B J"] | None = None
    expected_error: Float[Array, "B"] | None = None


@dataclasses.dataclass(frozen=True)
class PhotoCamera:
    """The camera of a photo. focal: px. principal_point: (x, y) px."""

    focal: float
    principal_point: tuple[float, float]

    def of_crops(self, crops: Float[np.ndarray, "B 3"]) -> CropCamera:
        """The cameras of B people's crops (centre x, y and side, px), on the host."""
        rows = len(crops)
        focal = np.full(rows, self.focal, np.float32)
        return CropCamera(crops, focal, np.tile(np.float32(self.principal_point), (rows, 1)))


class System(Protocol):
    """A system, hashable: it is a static argument of jitted functions.

    Attributes:
      kind: its name in systems/registry.py and in the config.json of its models.
      shapes: its parameters as ShapeDtypeStructs.
      contexts: those of core.choices.CONTEXTS that it supports.
      needs_box: whether it crops by the person's box, so that keypoints are not required.
      samples: whether it is generative, with iterations, hypotheses and a confidence.
      refinement: settings of the 2D refinement, by default.
      pose_parts: independent parts of `pose`, which make the refinement cheaper; or None.
    """

    kind: str
    shapes: Params
    contexts: tuple[str, ...]
    needs_box: bool
    samples: bool
    refinement: RefineSpec
    pose_parts: Parts | None

    def prepare(
        self,
        image: np.ndarray,
        people: Detections,
        photo: PhotoCamera,
        rows: int,
        *,
        published_crop: bool = False,
    ) -> Inputs:
        """Prepare the inputs of the people of one photo, on the host.

        Inputs of several photos can be joined along the rows.

        Args:
          image: uint8 (H, W, 3), RGB.
          people: keypoints below MIN_CONFIDENCE count as not detected.
          photo: its camera.
          rows: number of rows to return, at least P; those after the people are empty.
          published_crop: crop the picture as the published evaluation of an imported model does.
        """

    def encode(self, params: Params, inputs: Inputs) -> Encoded:
        """Compute what sampling needs, once for each input."""

    def sample(
        self,
        params: Params,
        body: smpl_jax.SmplModel,
        encoded: Encoded,
        keys: Array,
        *,
        iterations: int | Int[Array, ""],
        temperature: float | Float[Array, ""],
        hypotheses: int = 1,
    ) -> Latents:
        """Draw one answer for each row.

        Args:
          body: a keypoint model.
          keys: (B,) typed, one for each row.
          iterations, temperature: of sampling; may be traced.
          hypotheses: number of adjacent rows of one person, whose answers must differ; 1: one best
            answer for each row.
        """

    def default_iterations(self, hypotheses: int) -> int:
        """Iterations of sampling for one answer, or for several hypotheses."""

    def pose(
        self, params: Params, view: CropCamera
    ) -> Callable[[Float[Array, "B L D"]], Float[Array, "B J 3 3"]]:
        """A function from embeddings to joint rotations, the root's in the photo camera's axes.

        It is differentiable, and called many times: compute before it what the calls share.
        """

    def confidence(
        self,
        params: Params,
        latents: Latents,
        body: smpl_jax.SmplModel,
        rotmats: Float[Array, "B J 3 3"],
        keys: Array,
    ) -> Float[Array, "B J"]:
        """Probability that each joint of an answer is correct; NaN if there is no estimate.

        Args:
          latents: of `sample`.
          body: a keypoint model, for its joints.
          rotmats: the answer, of `pose`.
          keys: (B,) typed, one for each row.
        """


@runtime_checkable
class TracedSystem(Protocol):
    """What a system of several steps has beside `System`, for pictures of its steps."""

    def trace(
        self,
        params: Params,
        body: smpl_jax.SmplModel,
        encoded: Encoded,
        keys: Array,
        *,
        iterations: int,
    ) -> Latents:
        """The answers of all steps of `System.sample`, with an axis of steps before the rows.

        Args:
          iterations: not traced.
        """


@runtime_checkable
class StoredSystem(Protocol):
    """What a system has beside `System` whose inputs can be stored rows (data/features.py).

    Its crops are around the detected keypoints.

    Attributes:
      encoder: of core/encoders.py, whose output is an input; None for a system of keypoints alone.
    """

    encoder: str | None

"""The networks that read the estimate of a step: its correction, and its score."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from genhmr_jax.core.feedback import DetectedKeypoints, Estimate, Form
from genhmr_jax.nets.deformable_attention import attend
from genhmr_jax.nets.mlp import ResidualMlp

CELL_WIDTH = 16
"""Channels of the image's features that are read at the joints of the current estimate."""
MOST_STEPS = 3
"""Number of steps that differ for `Correction`: later ones count as the last of them."""


@dataclasses.dataclass(frozen=True)
class FeedbackSpec:
    """Sizes of the networks that read the estimate.

    Attributes:
      form: what is estimated.
      num_keypoints: number of detected keypoints, the first ones of `form`.
      levels: number of the image's maps.
      width, depth: of the correction's MLP.
      score_width: of the scorer's MLP.
      token_features: channels of a token that the correction gives.
      flags: number of inputs that only the scorer gets.
    """

    form: Form
    num_keypoints: int
    levels: int
    width: int
    depth: int
    score_width: int
    token_features: int = 64
    flags: int = 0

    @property
    def inputs(self) -> int:
        """Number of values of `_estimate_inputs`, without its flags."""
        detected, own = detected_size(self.num_keypoints), 6 * self.form.joints + 13
        at_joints = self.form.joints * CELL_WIDTH * self.levels
        return detected + own + 5 * self.num_keypoints + at_joints


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Score:
    """Estimates of the errors of B estimates, float32.

    Attributes:
      near: (B, J, 2) logits of the probability that a joint is within each of Form.near, after one
        similarity transform of all joints.
      log_error: (B, 2) log of the mean error of the joints in metres, after that transform
        (PA-MPJPE) and relative to the root (MPJPE).
    """

    near: jax.Array
    log_error: jax.Array


class Correction(nnx.Module):
    """The current estimate -> features of each token; corrected shape and camera.

    One network for all steps: the first estimate is the mean pose. It reads the detected keypoints,
    the estimate, the distances between both, and the image at the estimate's joints.

    Args:
      spec: its sizes.
      length: number of tokens.
      width: of the transformer.
    """

    def __init__(self, spec: FeedbackSpec, length: int, width: int, *, rngs: nnx.Rngs):
        self.form, self.length, features = spec.form, length, spec.token_features
        sizes = spec.inputs + MOST_STEPS, spec.width, spec.depth
        self.mlp = ResidualMlp(*sizes, length * features + 13, rngs=rngs)
        self.spread = nnx.Linear(features, width, rngs=rngs)

    def __call__(
        self, estimate: Estimate, detected: DetectedKeypoints, at_joints: Float[Array, "B F"] | None
    ) -> tuple[Float[Array, "B L C"], Estimate]:
        """The features of the tokens, and the estimate with the corrected shape and camera.

        Its other fields, also `weak_camera`, are those of the step before.

        Args:
          estimate: the current one.
          detected: the keypoints.
          at_joints: of `cells_at`; None for a model without image.
        """
        step = jax.nn.one_hot(jnp.minimum(estimate.step, MOST_STEPS - 1), MOST_STEPS)
        out = self.mlp(_estimate_inputs(self.form, estimate, detected, at_joints, step))
        change = 0.3 * out[:, -13:].astype(jnp.float32)
        estimate = dataclasses.replace(
            estimate, betas=estimate.betas + change[:, :10], camera=estimate.camera + change[:, 10:]
        )
        token_features = out[:, :-13].reshape(out.shape[0], self.length, -1)
        return self.spread(token_features), estimate


class Scorer(nnx.Module):
    """How good an estimate is: for each joint, and as a whole."""

    def __init__(self, spec: FeedbackSpec, *, rngs: nnx.Rngs):
        self.form, outputs = spec.form, len(spec.form.near) * spec.form.joints + 2
        self.mlp = ResidualMlp(spec.inputs + spec.flags, spec.score_width, 2, outputs, rngs=rngs)

    def __call__(
        self,
        estimate: Estimate,
        detected: DetectedKeypoints,
        at_joints: Float[Array, "B F"] | None,
        flags: Float[Array, "B flags"],
    ) -> Score:
        """Score estimates. The gradient only reaches the scorer.

        Args:
          estimate: the meshes.
          detected: the keypoints as detected.
          at_joints: of `cells_at`.
          flags: see FeedbackSpec.
        """
        stopped = jax.lax.stop_gradient((estimate, detected, at_joints))
        out = self.mlp(_estimate_inputs(self.form, *stopped, flags)).astype(jnp.float32)
        near = out[:, :-2].reshape(out.shape[0], self.form.joints, len(self.form.near))
        return Score(near, out[:, -2:])


def cells_at(
    cells: list[Float[Array, "B 1 H W C"]] | None,
    points: Float[Array, "B J 2"],
    image_weight: Float[Array, "B"] | None,
    levels: int,
) -> Float[Array, "B F"] | None:
    """The image's features at the joints of an estimate; zeros where there is no image.

    None if the model has no image at all.

    Args:
      cells: maps of CELL_WIDTH channels; None without an image.
      points: the joints, 0..1 in the maps; zero is read outside.
      image_weight: 0 where the image of a row is ignored.
      levels: number of maps of the model.
    """
    if not levels:
        return None
    rows, joints = points.shape[:2]
    if cells is None:
        return jnp.zeros((rows, joints * levels * CELL_WIDTH))
    points = points[:, :, None, None]
    ones = jnp.ones(points.shape[:-1])
    found = [attend(values.astype(jnp.float32), points, ones) for values in cells]
    found = jnp.concatenate(found, -1).reshape(rows, -1)
    return found * image_weight[:, None]


def detected_size(num_keypoints: int) -> int:
    """Number of values of DetectedKeypoints.flat."""
    return 6 * num_keypoints + 4


def _estimate_inputs(
    form: Form,
    estimate: Estimate,
    detected: DetectedKeypoints,
    at_joints: jax.Array | None,
    flags: jax.Array,
) -> Float[Array, "B I"]:
    """All that is known of an estimate, as the input of a network."""
    parts = [detected.flat(form), estimate.flat(), estimate.gaps(detected, form), flags]
    return jnp.concatenate(parts + ([] if at_joints is None else [at_joints]), -1)

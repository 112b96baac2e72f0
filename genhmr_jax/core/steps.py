"""The steps of sampling and of training: predict tokens, decode and project the estimate.

Without feedback a step is the network's logits alone. With feedback the logits of a step are those
of the step before it plus what the network adds: each step is an update by new information, and its
gradient stays in the step.
"""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import smpl_jax
from jaxtyping import Array, Float, Int

from genhmr_jax.core import feedback
from genhmr_jax.core.feedback import DetectedKeypoints, Estimate, Form
from genhmr_jax.core.inputs import Decode
from genhmr_jax.core.sampling import Feedback
from genhmr_jax.core.sizes import TokenizerSpec

if TYPE_CHECKING:
    from genhmr_jax.core.feedback_networks import Score


class State(NamedTuple):
    """The estimate of the last step, and its logits (B, L, N)."""

    estimate: Estimate
    logits: Array


class EncodedInputs(Protocol):
    """What a system encodes once: the fields that the steps read.

    Attributes:
      detected: the detected keypoints, in the axes of the network.
      betas, weak_camera: in these axes, of a model without feedback.
    """

    detected: DetectedKeypoints
    betas: Float[Array, "B 10"] | None
    weak_camera: Float[Array, "B 3"] | None


class StepNetwork(Protocol):
    """The network of a system, as the steps call it."""

    def corrected(self, encoded: Any, estimate: Estimate) -> tuple[Float[Array, "B L C"], Estimate]:
        """The features of the tokens for the next step, and its corrected shape and camera."""

    def logits(
        self,
        tokens: Int[Array, "B L"],
        codes: Float[Array, "N D+1"],
        encoded: Any,
        estimate: Estimate | None = None,
        token_features: Float[Array, "B L C"] | None = None,
        *,
        remat: str = "none",
    ) -> Float[Array, "B L N"]:
        """Logits of every token, given the visible ones."""

    def score(self, encoded: Any, estimate: Estimate, flags: Float[Array, "B F"]) -> "Score":
        """Estimate the errors of an estimate."""


@dataclasses.dataclass(frozen=True)
class Steps:
    """The steps for B people or hands.

    Attributes:
      form: what is estimated. sizes: of the tokenizer.
      has_feedback: whether a step gets the estimate of the one before it.
      network: with its parameters.
      decode: from embeddings to rotations, in the axes of the network.
      vectors: the code vectors. codes: of `MaskedTransformer.codes`.
      body: a keypoint model.
      encoded: the inputs as detected.
      given: the inputs as the network gets them: the keypoints can have other names.
      flags: of the scorer.
      remat: what is stored for the backward pass (nets/remat.py).
    """

    form: Form
    sizes: TokenizerSpec
    has_feedback: bool
    network: StepNetwork
    decode: Decode
    vectors: Float[Array, "N D"]
    codes: Float[Array, "N D+1"]
    body: smpl_jax.SmplModel
    encoded: EncodedInputs
    given: EncodedInputs
    flags: Float[Array, "B F"]
    remat: str = "none"

    def start(self) -> State:
        """The state before the first step: the mean pose."""
        rows = self.flags.shape[0]
        betas, camera = jnp.zeros((rows, 10)), jnp.zeros((rows, 3))
        if not self.has_feedback:
            betas = self.encoded.betas
            camera = feedback.camera_of(self.encoded.weak_camera, self.form)
        pose, step = self.form.first_pose(rows), jnp.zeros(rows, jnp.int32)
        estimate = self._posed(pose, betas, camera, step)
        return State(estimate, jnp.zeros((rows, self.sizes.length, self.sizes.codebook_size)))

    def predict(
        self, tokens: Int[Array, "B L"], state: State
    ) -> tuple[Float[Array, "B L N"], State]:
        """The logits of every token, given the visible ones (mask id where masked).

        The state gets the corrected shape and camera; its pose is that of the step before.
        """
        if not self.has_feedback:
            new = self._plain_logits(tokens)
            return new, State(state.estimate, new)
        estimate, logits = jax.lax.stop_gradient(state)
        features, corrected = self.network.corrected(self.given, estimate)
        how = {"estimate": estimate, "token_features": features, "remat": self.remat}
        logits = logits + self.network.logits(tokens, self.codes, self.given, **how)
        return logits, State(corrected, logits)

    @property
    def logits(self) -> Callable[..., Any]:
        """The logits as core.sampling takes them: a function of tokens, and with feedback state."""
        return self.predict if self.has_feedback else self._plain_logits

    def _plain_logits(self, tokens: Int[Array, "B L"]) -> Float[Array, "B L N"]:
        """The logits of a model without feedback, which depend on nothing but the tokens."""
        return self.network.logits(tokens, self.codes, self.given, remat=self.remat)

    def feedback(self, commit: bool) -> Feedback:
        """Of core.sampling, for a model with feedback."""
        return Feedback(self.start(), self.assess, commit)

    def decoded(self, embeddings: Float[Array, "B L D"], state: State) -> State:
        """The state with the pose of the embeddings."""
        estimate, pose = state.estimate, self.decode(embeddings)
        estimate = self._posed(pose, estimate.betas, estimate.camera, estimate.step + 1)
        return State(estimate, state.logits)

    def assess(
        self, embeddings: Float[Array, "B L D"], state: State
    ) -> tuple[State, Float[Array, "B L"]]:
        """`decoded`, with the confidence of every token: that its joints are near (Form.near)."""
        state = self.decoded(embeddings, state)
        near = jax.nn.sigmoid(self.score(state.estimate).near[..., 0])
        return state, feedback.confidence_of_tokens(self.sizes, near)

    def score(self, estimate: Estimate) -> "Score":
        """Estimates of the errors of an estimate."""
        return self.network.score(self.encoded, estimate, self.flags)

    def _posed(self, pose: Array, betas: Array, camera: Array, step: Array) -> Estimate:
        view = self.given.detected.view
        return feedback.pose_and_project(self.body, self.form, view, pose, betas, camera, step)

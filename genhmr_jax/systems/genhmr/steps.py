"""The steps of sampling and of training: predict tokens, decode and project the estimate."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import smpl_jax
from jaxtyping import Array, Float, Int

from genhmr_jax.core.sampling import Feedback
from genhmr_jax.core.system import Params
from genhmr_jax.systems.genhmr import feedback, model
from genhmr_jax.systems.genhmr.feedback import DetectedKeypoints, Estimate
from genhmr_jax.systems.genhmr.model import Encoded, Score
from genhmr_jax.systems.genhmr.spec import GenHmrSpec


class State(NamedTuple):
    """The estimate of the last step, and its logits (B, L, N)."""

    estimate: Estimate
    logits: Array


class Steps:
    """The steps for B people.

    With feedback the logits of a step are those of the step before it plus what the network adds:
    each step is an update by new information, and its gradient stays in the step.
    """

    def __init__(
        self,
        spec: GenHmrSpec,
        params: Params,
        body: smpl_jax.SmplModel,
        encoded: Encoded,
        assignment: Int[Array, "B"] | None = None,
        remat: str = "none",
    ):
        """Prepare what the steps share.

        Args:
          spec, params: of the system.
          body: a keypoint model.
          encoded: the people.
          assignment: (B,) one of feedback.ASSIGNMENTS, for other names of the detected keypoints.
          remat: see GenHmr.encode.
        """
        self.spec, self.params, self.body, self.remat = spec, params, body, remat
        self.encoded, self.assignment = encoded, assignment
        self._network = model.network(spec, params)
        self._codes = self._network.transformer.codes(params["codebook"]["vectors"])
        self._decode = model.tokenizer(spec, params).decoding()
        detected = encoded.detected
        if assignment is not None:
            detected = detected.reassigned(assignment)
        self._given = dataclasses.replace(encoded, detected=detected)

    @property
    def detected(self) -> DetectedKeypoints:
        """The keypoints under the assigned names."""
        return self._given.detected

    def start(self) -> State:
        """The state before the first step: the mean pose."""
        rows, sizes = self.detected.keypoints.shape[0], self.spec.tokenizer
        betas, camera = jnp.zeros((rows, 10)), jnp.zeros((rows, 3))
        if not self.spec.feedback:
            weak = self.encoded.weak_camera
            scale = jnp.log(weak[:, :1] / feedback.MEAN_SCALE)
            betas, camera = self.encoded.betas, jnp.concatenate([scale, weak[:, 1:]], -1)
        pose, step = feedback.mean_pose(rows), jnp.zeros(rows, jnp.int32)
        estimate = self._posed(pose, betas, camera, step)
        return State(estimate, jnp.zeros((rows, sizes.length, sizes.codebook_size)))

    def predict(
        self, tokens: Int[Array, "B L"], state: State
    ) -> tuple[Float[Array, "B L N"], State]:
        """The logits of every token, given the visible ones (mask id where masked).

        The state gets the corrected shape and camera; its pose is that of the step before.
        """
        network, given = self._network, self._given
        estimate, logits = jax.lax.stop_gradient(state)
        if not self.spec.feedback:
            new = self._plain_logits(tokens)
            return new, State(state.estimate, new)
        features, corrected = network.corrected(given, estimate)
        how = {"estimate": estimate, "token_features": features, "remat": self.remat}
        logits = logits + network.logits(tokens, self._codes, given, **how)
        return logits, State(corrected, logits)

    @property
    def logits(self) -> Callable[..., Any]:
        """The logits as core.sampling takes them: a function of tokens, and with feedback state."""
        if self.spec.feedback:
            return self.predict
        return self._plain_logits

    def _plain_logits(self, tokens: Int[Array, "B L"]) -> Float[Array, "B L N"]:
        """The logits of a model without feedback, which depend on nothing but the tokens."""
        return self._network.logits(tokens, self._codes, self._given, remat=self.remat)

    def feedback(self, commit: bool) -> Feedback:
        """Of core.sampling, for a model with feedback."""
        return Feedback(self.start(), self.assess, commit)

    def decoded(self, embeddings: Float[Array, "B L D"], state: State) -> State:
        """The state with the pose of the embeddings."""
        estimate = state.estimate
        pose = self._decode(embeddings)
        estimate = self._posed(pose, estimate.betas, estimate.camera, estimate.step + 1)
        return State(estimate, state.logits)

    def assess(
        self, embeddings: Float[Array, "B L D"], state: State
    ) -> tuple[State, Float[Array, "B L"]]:
        """`decoded`, with the confidence of every token: that its joints are within 5 cm."""
        state = self.decoded(embeddings, state)
        near = jax.nn.sigmoid(self.score(state.estimate).near[..., 0])
        return state, feedback.confidence_of_tokens(self.spec.tokenizer, near)

    def score(self, estimate: Estimate) -> Score:
        """Estimates of the errors of an estimate."""
        rows = estimate.betas.shape[0]
        own = jnp.zeros(rows, jnp.int32) if self.assignment is None else self.assignment
        return self._network.score(self.encoded, estimate, own)

    def _posed(self, pose: Array, betas: Array, camera: Array, step: Array) -> Estimate:
        return feedback.pose_and_project(self.body, self.detected.view, pose, betas, camera, step)

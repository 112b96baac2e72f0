"""The steps of sampling and of training: predict tokens, decode the answer, see where it lands."""

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
from genhmr_jax.systems.genhmr.feedback import Answer, Observed
from genhmr_jax.systems.genhmr.model import Encoded, Score
from genhmr_jax.systems.genhmr.spec import GenHmrSpec


class State(NamedTuple):
    """The answer of the last step, and its logits (B, L, N)."""

    answer: Answer
    logits: Array


class Steps:
    """The steps for B people.

    With feedback the logits of a step are those of the step before it plus what the network adds:
    each step is an update by new evidence, and its gradient stays in the step.
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
        observed = encoded.observed
        if assignment is not None:
            observed = observed.reassigned(assignment)
        self._given = dataclasses.replace(encoded, observed=observed)

    @property
    def observed(self) -> Observed:
        """The keypoints under the assigned names."""
        return self._given.observed

    def start(self) -> State:
        """The state before the first step: the mean pose."""
        rows, sizes = self.observed.keypoints.shape[0], self.spec.tokenizer
        betas, camera = jnp.zeros((rows, 10)), jnp.zeros((rows, 3))
        if not self.spec.feedback:
            weak = self.encoded.weak_camera
            scale = jnp.log(weak[:, :1] / feedback.MEAN_SCALE)
            betas, camera = self.encoded.betas, jnp.concatenate([scale, weak[:, 1:]], -1)
        pose, step = feedback.mean_pose(rows), jnp.zeros(rows, jnp.int32)
        answer = self._landed(pose, betas, camera, step)
        return State(answer, jnp.zeros((rows, sizes.length, sizes.codebook_size)))

    def predict(
        self, tokens: Int[Array, "B L"], state: State
    ) -> tuple[Float[Array, "B L N"], State]:
        """The logits of every token, given the visible ones (mask id where masked).

        The state gets the corrected shape and camera; its pose is that of the step before.
        """
        network, given = self._network, self._given
        answer, logits = jax.lax.stop_gradient(state)
        if not self.spec.feedback:
            new = network.logits(tokens, self._codes, given, remat=self.remat)
            return new, State(state.answer, new)
        evidence, corrected = network.corrected(given, answer)
        how = {"answer": answer, "evidence": evidence, "remat": self.remat}
        logits = logits + network.logits(tokens, self._codes, given, **how)
        return logits, State(corrected, logits)

    @property
    def logits(self) -> Callable[..., Any]:
        """The logits as core.sampling takes them: a function of tokens, and with feedback state."""
        if self.spec.feedback:
            return self.predict
        return lambda tokens: self.predict(tokens, self.start())[0]

    def feedback(self, commit: bool) -> Feedback:
        """Of core.sampling, for a model with feedback."""
        return Feedback(self.start(), self.look, commit)

    def decoded(self, embeddings: Float[Array, "B L D"], state: State) -> State:
        """The state with the pose of the embeddings."""
        answer = state.answer
        pose = self._decode(embeddings)
        answer = self._landed(pose, answer.betas, answer.camera, answer.step + 1)
        return State(answer, state.logits)

    def look(
        self, embeddings: Float[Array, "B L D"], state: State
    ) -> tuple[State, Float[Array, "B L"]]:
        """`decoded`, with the confidence of every token: that its joints are within 5 cm."""
        state = self.decoded(embeddings, state)
        near = jax.nn.sigmoid(self.score(state.answer).near[..., 0])
        return state, feedback.confidence_of_tokens(self.spec.tokenizer, near)

    def score(self, answer: Answer) -> Score:
        """Estimates of the errors of an answer."""
        rows = answer.betas.shape[0]
        own = jnp.zeros(rows, jnp.int32) if self.assignment is None else self.assignment
        return self._network.score(self.encoded, answer, self.encoded.observed, own)

    def _landed(self, pose: Array, betas: Array, camera: Array, step: Array) -> Answer:
        return feedback.landed(self.body, self.observed.view, pose, betas, camera, step)

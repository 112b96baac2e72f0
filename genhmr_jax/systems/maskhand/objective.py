"""The loss of MaskHand: cross-entropy of masked tokens, and losses of the hand they decode to.

The terms are the paper's: tokens, MANO's parameters, 3D and projected keypoints. For a masked token
the decoder gets the expected embedding (the paper's differentiable sampling), for a visible one its
code. A model with feedback is trained over `masking.steps` of its own steps (core/unrolling.py),
each with all terms.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
from jaxtyping import Array, Float

from genhmr_jax.core import losses, sampling
from genhmr_jax.core.steps import Steps
from genhmr_jax.core.system import Params
from genhmr_jax.core.unrolling import Step, Sums, only_step, score_gap, unrolled
from genhmr_jax.systems.maskhand.model import Encoded, weak_unit
from genhmr_jax.systems.maskhand.samples import Sample
from genhmr_jax.systems.maskhand.system import KIND, MaskHandSystem


def system_params(params: Params, frozen: Any) -> Params:
    """The parameters that MaskHandSystem takes: the trained network's and the tokenizer's."""
    return {KIND: params, "tokenizer": frozen["tokenizer"], "codebook": frozen["codebook"]}


@dataclasses.dataclass(frozen=True)
class Objective:
    """Terms of the loss of a system under a config (`loss` and `masking` are read)."""

    config: ml_collections.ConfigDict
    system: MaskHandSystem

    def loss(
        self, params: Params, frozen: Any, samples: dict[str, Sample]
    ) -> tuple[Array, dict[str, Any]]:
        """The weighted sum over all parts of a batch; see train.task.Task.loss."""
        parts = {name: self.terms(params, frozen, sample) for name, sample in samples.items()}
        return losses.combined(self.config.loss, parts)

    def terms(self, params: Params, frozen: Any, sample: Sample) -> tuple[Sums, Sums]:
        """The terms of the loss, and metrics; all are sums over the rows."""
        everything, hand = system_params(params, frozen), frozen["hand"]
        encoded = self.encoded(everything, sample)
        steps = self.system.steps(everything, hand, encoded)
        embed = lambda logits, mask, _: _embeddings(logits, mask, steps, sample)
        if not self.system.spec.feedback:
            last = only_step(steps, sample.masked, embed)
            return _step_terms(last, sample), _metrics(last, sample)
        terms_of = lambda step: (
            _step_terms(step, sample) | {"score": _score_term(steps, step, sample)}
        )
        last, terms = unrolled(steps, sample.masked, self.config.masking.steps, embed, terms_of)
        return {name: jnp.mean(value) for name, value in terms.items()}, _metrics(last, sample)

    def encoded(self, everything: Params, sample: Sample) -> Encoded:
        """The encoded inputs, which are in the axes of the network already."""
        own, rows = sample.inputs, sample.weight.shape[0]
        turn = jnp.broadcast_to(jnp.eye(3), (rows, 3, 3))
        return self.system.encode_upright(everything, own, own.view, turn)


def _embeddings(logits: Array, mask: Array, steps: Steps, sample: Sample) -> Float[Array, "B L D"]:
    """What is decoded: expected embeddings of masked tokens, the true code of the others."""
    soft = jax.nn.softmax(logits) @ steps.vectors
    return jnp.where(mask[..., None], soft, steps.vectors[sample.masked.tokens])


def _step_terms(step: Step, sample: Sample) -> Sums:
    """The cross-entropy of the masked tokens, and the terms of the hand."""
    estimate = step.estimate
    points2d = jnp.minimum(jnp.abs(estimate.points2d - sample.points2d), 1.0)
    camera = jnp.abs((estimate.weak_camera - sample.weak_camera) / weak_unit())
    rows = {
        "rotation": losses.row_mean((estimate.rotmats - sample.rotmats) ** 2),
        "keypoints3d": losses.row_mean(jnp.abs(estimate.points3d - sample.keypoints)),
        "keypoints2d": losses.row_mean(points2d),
        "betas": losses.row_mean((estimate.betas - sample.betas) ** 2),
        "camera": losses.row_mean(camera),
    }
    terms = {name: jnp.sum(sample.weight * value) for name, value in rows.items()}
    nll = losses.token_nll(step.logits, sample.masked.tokens)
    return terms | {"token": jnp.sum(step.weight * nll)}


def _score_term(steps: Steps, step: Step, sample: Sample) -> Float[Array, ""]:
    """How wrong the scorer is; rows that saw true tokens do not count."""
    counts, score = sample.masked.unroll | step.is_first, steps.score(step.estimate)
    joints = step.estimate.joints - step.estimate.joints[:, :1]
    value = score_gap(score, joints, sample.joints, jnp.ones(joints.shape[:2]), steps.form)
    return jnp.sum(counts * sample.weight * value)


def _metrics(step: Step, sample: Sample) -> Sums:
    """The accuracy of the masked tokens, and the MPJPE of the last step."""
    is_right = sampling.most_probable(step.logits) == sample.masked.tokens
    distance = jnp.linalg.norm(step.estimate.points3d - sample.keypoints, axis=-1).mean(-1)
    return {
        "accuracy": jnp.sum(sample.masked.token_weight * is_right),
        "mpjpe_mm": 1000 * jnp.sum(sample.weight * distance),
    }

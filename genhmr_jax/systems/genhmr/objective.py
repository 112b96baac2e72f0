"""The loss of stage 2: cross-entropy of masked tokens, and losses of the body that they decode to.

For a masked token the decoder gets the expected embedding (or a straight-through sample), so that
gradients of rotations, joints and keypoints reach the logits.

A model with feedback is trained over `masking.steps` of its own steps (core/unrolling.py), each
with all terms.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import smpl_jax
from jaxtyping import Array, Bool, Float, Int

from genhmr_jax.core import losses, quantizer, sampling
from genhmr_jax.core.losses import known_mean
from genhmr_jax.core.masking import BINS
from genhmr_jax.core.steps import Steps
from genhmr_jax.core.system import Params
from genhmr_jax.core.unrolling import Step, Sums, only_step, score_gap, unrolled
from genhmr_jax.data.image_rows import rooted
from genhmr_jax.data.rows import Rows
from genhmr_jax.geometry.keypoints import project_keypoints
from genhmr_jax.geometry.metrics import distances, masked_mean
from genhmr_jax.systems.genhmr.model import Encoded
from genhmr_jax.systems.genhmr.samples import Sample
from genhmr_jax.systems.genhmr.system import GenHmrSystem

ALTERNATIVE_STEPS = 2  # after which an estimate to other names of the keypoints is scored


class Truth(NamedTuple):
    """Labels in the axes of the network: rotations, joints (metres), crop coordinates, camera."""

    rotmats: Float[Array, "B 24 3 3"]
    joints: Float[Array, "B 24 3"]
    points2d: Float[Array, "B K 2"]
    weak_camera: Float[Array, "B 3"]


def system_params(params: Params, frozen: Any) -> Params:
    """The parameters that GenHmrSystem takes: the trained network's and the frozen tokenizer's."""
    return {
        "genhmr": params,
        "tokenizer": frozen["tokenizer"],
        "codebook": frozen["codebook"],
    }


@dataclasses.dataclass(frozen=True)
class Objective:
    """Terms of the loss of a system under a config (`loss` and `masking` are read)."""

    config: ml_collections.ConfigDict
    system: GenHmrSystem

    def loss(self, params: Params, frozen: Any, samples: dict[str, Sample]) -> tuple[Array, Any]:
        """The weighted sum over all parts of a batch; see train.task.Task.loss."""
        parts = {name: self.terms(params, frozen, sample) for name, sample in samples.items()}
        return losses.combined(self.config.loss, parts)

    def terms(self, params: Params, frozen: Any, sample: Sample) -> tuple[Sums, Sums]:
        """The terms of the loss, and metrics; all are sums over the rows."""
        everything, spec = system_params(params, frozen), self.system.spec
        encoded = self.system.encode(everything, sample.inputs)
        truth = _truth(sample.rows, encoded)
        people = (frozen["body"], encoded)
        steps = self.system.steps(everything, *people)
        masked = sample.targets.masked
        embed = lambda *step: self._embeddings(*step, steps, sample)
        if not spec.feedback:
            last = only_step(steps, masked, embed)
            return self._step_terms(last, truth, sample), self._metrics(last, truth, sample)
        # 1. Every step has all terms; their means count.
        terms_of = lambda step: (
            self._step_terms(step, truth, sample)
            | {"score": _score_term(steps, step, truth, sample)}
        )
        last, terms = unrolled(steps, masked, self.config.masking.steps, embed, terms_of)
        terms = {name: jnp.mean(values) for name, values in terms.items()}
        # 2. Estimates from other names of the keypoints, which the scorer must tell apart.
        if spec.num_keypoints:
            assignment = sample.targets.assignment
            constant = jax.lax.stop_gradient((everything, people))
            other = self.system.steps(constant[0], *constant[1], assignment)
            others = lambda logits, mask, number: embed(
                logits, mask, number + self.config.masking.steps
            )
            wrong, _ = unrolled(other, masked, ALTERNATIVE_STEPS, others, lambda step: {})
            steps = self.system.steps(everything, *people, assignment)
            terms["score"] += _score_term(steps, wrong, truth, sample)
        return terms, self._metrics(last, truth, sample)

    def _embeddings(
        self,
        logits: Float[Array, "B L N"],
        mask: Bool[Array, "B L"],
        number: Int[Array, ""],
        steps: Steps,
        sample: Sample,
    ) -> Float[Array, "B L D"]:
        """What is decoded: a sample of each masked token, and the true code of the others."""
        vectors, targets = steps.vectors, sample.targets
        keys = jax.vmap(lambda key: jax.random.fold_in(key, number))(targets.noise_key)
        soft = self._differentiable_sample(logits, vectors, keys)
        return jnp.where(mask[..., None], soft, vectors[targets.masked.tokens])

    def _step_terms(self, step: Step, truth: Truth, sample: Sample) -> Sums:
        """The cross-entropy of the masked tokens, and the terms of the body."""
        smoothing = self.config.loss.label_smoothing
        nll = losses.token_nll(step.logits, sample.targets.masked.tokens, smoothing)
        return {"token": jnp.sum(step.weight * nll)} | _body_terms(step, truth, sample)

    def _metrics(self, step: Step, truth: Truth, sample: Sample) -> Sums:
        """Accuracies and MPJPE of the last step."""
        known = sample.rows.confidence_of_joints()
        both = rooted(step.estimate.joints, known), rooted(truth.joints, known)
        error = masked_mean(distances(*both), known)
        mpjpe = 1000 * jnp.sum(sample.targets.weights.joints3d * error)
        return _accuracies(step.logits, sample) | {"mpjpe_mm": mpjpe}

    def _differentiable_sample(
        self, logits: Float[Array, "B L N"], vectors: Float[Array, "N D"], keys: Array
    ) -> Float[Array, "B L D"]:
        """Embeddings through which gradients reach the logits.

        The expected ones, also without gradient, or straight-through Gumbel-softmax (Jang et al.
        2017).
        """
        how = self.config.loss.differentiable_sampling
        if how != "straight_through":
            expected = jax.nn.softmax(logits) @ vectors
            return jax.lax.stop_gradient(expected) if how == "none" else expected
        noise = jax.vmap(lambda key: jax.random.gumbel(key, logits.shape[1:]))(keys)
        noisy = jax.nn.softmax(logits + noise)
        hard = jax.nn.one_hot(sampling.most_probable(noisy), logits.shape[-1])
        return quantizer.straight_through(noisy, hard) @ vectors


def _truth(rows: Rows, encoded: Encoded) -> Truth:
    """The labels of rows in the axes of the network."""
    view = encoded.detected.view
    if encoded.turn is not None:
        rows = rows.turned(encoded.turn, view)
    return Truth(rows.rotmats, rows.joints, view.to_crop(rows.points2d), rows.weak_camera)


def _accuracies(logits: Float[Array, "B L N"], sample: Sample) -> Sums:
    """Share of masked tokens that are right, and the number of right ones by mask ratio."""
    masked = sample.targets.masked
    is_right = sampling.most_probable(logits) == masked.tokens
    right = jnp.sum(masked.mask & is_right, -1)
    by_ratio = jnp.sum(sample.targets.bins * right[:, None], 0)
    metrics = {"accuracy": jnp.sum(masked.token_weight * is_right)}
    return metrics | {
        f"accuracy_masked_to_{100 * (i + 1) // BINS}%": by_ratio[i] for i in range(BINS)
    }


def _body_terms(step: Step, truth: Truth, sample: Sample) -> Sums:
    """Terms of rotations, joints, projected keypoints, shape and camera."""
    rows, weights, estimate = sample.rows, sample.targets.weights, step.estimate
    rotation = losses.row_mean((estimate.rotmats - truth.rotmats) ** 2)
    known = rows.confidence_of_joints()
    both = rooted(estimate.joints, known), rooted(truth.joints, known)
    joints3d = known_mean(jnp.mean(jnp.abs(both[0] - both[1]), -1), known)
    gap = jnp.mean(jnp.minimum(jnp.abs(estimate.points2d - truth.points2d), 1.0), -1)
    betas = losses.row_mean((estimate.betas - rows.betas) ** 2)
    camera = losses.row_mean(jnp.abs(estimate.weak_camera - truth.weak_camera))
    return {
        "betas": jnp.sum(weights.betas * betas),
        "camera": jnp.sum(weights.camera * camera),
        "rotation": jnp.sum(weights.rotation * rotation),
        "joints3d": jnp.sum(weights.joints3d * joints3d),
        "joints2d": jnp.sum(weights.joints2d * known_mean(gap, rows.confidence_of_points2d())),
    }


def _score_term(steps: Steps, step: Step, truth: Truth, sample: Sample) -> Float[Array, ""]:
    """How wrong the scorer is; rows that saw true tokens do not count."""
    counts, score = sample.targets.masked.unroll | step.is_first, steps.score(step.estimate)
    known = sample.rows.confidence_of_joints()
    both = rooted(step.estimate.joints, known), rooted(truth.joints, known)
    value = score_gap(score, *both, known, steps.form)
    return jnp.sum(counts * sample.targets.weights.joints3d * value)


def keypoint_gap(
    body: smpl_jax.SmplModel,
    output: smpl_jax.SmplOutput,
    weak_camera: Float[Array, "B 3"],
    rows: Rows,
) -> Float[Array, "B K 2"]:
    """From labelled keypoints to projected ones, in half sides of the crop.

    Projected by the camera of the whole photo.
    """
    view = rows.view
    projected = project_keypoints(body, output, weak_camera, view)
    return view.to_crop(projected) - view.to_crop(rows.points2d)

"""The loss of stage 2: cross-entropy of masked tokens, and losses of the body that they decode to.

For a masked token the decoder gets the expected embedding (or a straight-through sample), so that
gradients of rotations, joints and keypoints reach the logits.

A model with feedback is trained over `masking.steps` of its own steps, each with all terms. The
first step has every token masked. In the later ones a share of the rows (`masking.unroll`) goes on
from the network's own guesses, as sampling does; the others see true tokens, so that the network
also learns p(token | visible tokens). Gradients stop between steps.
"""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import smpl_jax
from jaxtyping import Array, Bool, Float

from genhmr_jax.core import losses, quantizer
from genhmr_jax.core.masking import BINS
from genhmr_jax.core.system import Params
from genhmr_jax.data.image_rows import known_mean, rooted
from genhmr_jax.data.rows import Rows
from genhmr_jax.geometry.keypoints import project_keypoints
from genhmr_jax.geometry.metrics import centred, distances, masked_mean, procrustes
from genhmr_jax.systems.genhmr.feedback import Estimate
from genhmr_jax.systems.genhmr.model import NEAR, Encoded, Score
from genhmr_jax.systems.genhmr.samples import Sample
from genhmr_jax.systems.genhmr.steps import Steps
from genhmr_jax.systems.genhmr.system import GenHmrSystem

Sums = dict[str, jax.Array]
ALTERNATIVE_STEPS = 2  # after which an estimate to other names of the keypoints is scored


class Truth(NamedTuple):
    """Labels in the axes of the network: rotations, joints (metres), crop coordinates, camera."""

    rotmats: Float[Array, "B 24 3 3"]
    joints: Float[Array, "B 24 3"]
    points2d: Float[Array, "B K 2"]
    weak_camera: Float[Array, "B 3"]


class Step(NamedTuple):
    """A step of the unrolled sampling: its logits, its estimate, and which tokens were masked."""

    logits: Float[Array, "B L N"]
    estimate: Estimate
    mask: Bool[Array, "B L"]
    score: Score | None


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
        total, all_terms, all_metrics = 0.0, {}, {}
        for group, sample in samples.items():
            terms, metrics = self.terms(params, frozen, sample)
            total = total + sum(self.config.loss[name] * value for name, value in terms.items())
            prefix = "image_" if group == "images" else ""
            all_terms |= {prefix + name: value for name, value in terms.items()}
            all_metrics |= {prefix + name: value for name, value in metrics.items()}
        return total, {"terms": all_terms, "metrics": all_metrics, "carry": {}}

    def terms(self, params: Params, frozen: Any, sample: Sample) -> tuple[Sums, Sums]:
        """The terms of the loss, and metrics; all are sums over the rows."""
        everything = system_params(params, frozen)
        encoded = self.system.encode(everything, sample.inputs)
        truth = _truth(sample.rows, encoded)
        steps = self.system.steps(everything, frozen["body"], encoded)
        # 1. Every step has all terms; their means count.
        found = []
        for number, step in enumerate(self._unrolled(steps, sample)):
            terms = self._token_term(step, sample, number) | _body_terms(step, truth, sample)
            if step.score is not None:
                own = sample.targets.unroll | (number == 0)
                terms["score"] = _score_term(step, truth, sample, own)
            found.append(terms)
        terms = {name: sum(t[name] for t in found) / len(found) for name in found[0]}
        metrics = _accuracies(step.logits, sample) | _error(step.estimate, truth, sample, "")
        # 2. Answers to other names of the keypoints, which the scorer must tell apart.
        if step.score is not None and self.system.spec.num_keypoints:
            assignment = 1 + (sample.targets.kept % 2)
            steps = self.system.steps(everything, frozen["body"], encoded, assignment)
            *_, last = itertools.islice(self._unrolled(steps, sample), ALTERNATIVE_STEPS)
            terms["score"] += _score_term(last, truth, sample, sample.targets.unroll)
        return terms, metrics

    def _unrolled(self, steps: Steps, sample: Sample) -> Iterator[Step]:
        """The steps of the training, one after the other."""
        targets, spec = sample.targets, self.system.spec
        vectors = steps.params["codebook"]["vectors"]
        nothing = jnp.full_like(targets.tokens, spec.tokenizer.codebook_size)
        visible, mask = targets.visible, targets.mask
        if spec.feedback:
            visible, mask = nothing, jnp.ones_like(targets.mask)
        state = steps.start()
        for _ in range(self.config.masking.steps if spec.feedback else 1):
            # 1. Predict, decode, and score.
            logits, state = steps.predict(visible, state)
            soft = self._differentiable_sample(logits, vectors, targets.noise_key)
            embeddings = jnp.where(mask[..., None], soft, vectors[targets.tokens])
            if not spec.feedback:
                yield Step(logits, steps.decoded(embeddings, state).estimate, mask, None)
                return
            state, confidence = steps.assess(embeddings, state)
            yield Step(logits, state.estimate, mask, steps.score(state.estimate))
            # 2. What the next step sees: the most confident own guesses, or true tokens.
            rank = jnp.argsort(jnp.argsort(-jax.lax.stop_gradient(confidence), -1), -1)
            own = jnp.where(rank < targets.kept[:, None], jnp.argmax(logits, -1), nothing)
            visible = jnp.where(targets.unroll[:, None], own, targets.visible)
            mask = targets.mask

    def _token_term(self, step: Step, sample: Sample, number: int) -> Sums:
        """The cross-entropy of the masked tokens."""
        targets = sample.targets
        is_first = self.system.spec.feedback and number == 0
        weight = targets.first_weight if is_first else targets.token_weight
        smoothing = self.config.loss.label_smoothing
        return {"token": jnp.sum(weight * losses.token_nll(step.logits, targets.tokens, smoothing))}

    def _differentiable_sample(
        self, logits: Float[Array, "B L N"], vectors: Float[Array, "N D"], keys: Array
    ) -> Float[Array, "B L D"]:
        """Embeddings through which gradients reach the logits.

        The expected ones, or straight-through Gumbel-softmax (Jang et al. 2017).
        """
        if self.config.loss.differentiable_sampling == "expected":
            return jax.nn.softmax(logits) @ vectors
        noise = jax.vmap(lambda key: jax.random.gumbel(key, logits.shape[1:]))(keys)
        noisy = jax.nn.softmax(logits + noise)
        hard = jax.nn.one_hot(jnp.argmax(noisy, -1), logits.shape[-1])
        return quantizer.straight_through(noisy, hard) @ vectors


def _truth(rows: Rows, encoded: Encoded) -> Truth:
    """The labels of rows in the axes of the network."""
    view, rotmats, joints = encoded.detected.view, rows.rotmats, rows.joints
    points, weak = rows.points2d, rows.weak_camera
    if (turn := encoded.turn) is not None:
        rotmats = rotmats.at[:, 0].set(turn.mT @ rotmats[:, 0])
        joints = joints @ turn
        middle = view.centre[:, None]
        points = (points - middle) @ turn[:, :2, :2] + middle
        weak = view.weak(jnp.einsum("bji,bj->bi", turn, rows.view.translation(weak)))
    return Truth(rotmats, joints, view.to_crop(points), weak)


def _accuracies(logits: Float[Array, "B L N"], sample: Sample) -> Sums:
    """Share of masked tokens that are right, and the number of right ones by mask ratio."""
    targets = sample.targets
    is_right = jnp.argmax(logits, -1) == targets.tokens
    right = jnp.sum(targets.mask & is_right, -1)
    by_ratio = jnp.sum(targets.bins * right[:, None], 0)
    metrics = {"accuracy": jnp.sum(targets.token_weight * is_right)}
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


def _error(estimate: Estimate, truth: Truth, sample: Sample, name: str) -> Sums:
    """MPJPE in mm."""
    known = sample.rows.confidence_of_joints()
    both = rooted(estimate.joints, known), rooted(truth.joints, known)
    error = masked_mean(distances(*both), known)
    return {f"{name}mpjpe_mm": 1000 * jnp.sum(sample.targets.weights.joints3d * error)}


def _score_term(
    step: Step, truth: Truth, sample: Sample, counts: Bool[Array, "B"]
) -> Float[Array, ""]:
    """How wrong the scorer is: cross-entropy of "near", and the log of the errors."""
    joints = jax.lax.stop_gradient(step.estimate.joints)
    known = sample.rows.confidence_of_joints()
    aligned = distances(procrustes(joints, truth.joints, known)(joints), truth.joints)
    rooted_error = distances(centred(joints), centred(truth.joints))
    near = (aligned[..., None] < jnp.array(NEAR)).astype(jnp.float32)
    logits = step.score.near
    entropy = jnp.mean(jax.nn.softplus(logits) - near * logits, -1)
    errors = jnp.stack([masked_mean(aligned, known), masked_mean(rooted_error, known)], -1)
    gap = jnp.abs(step.score.log_error - jnp.log(errors + 1e-3))
    value = known_mean(entropy, known) + 0.5 * jnp.mean(gap, -1)
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

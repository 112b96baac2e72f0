"""The loss of stage 2: cross-entropy of masked tokens, and losses of the body that they decode to.

For a masked token the decoder gets the expected embedding (or a straight-through sample), so that
gradients of rotations, joints and keypoints reach the logits.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import smpl_jax
from jaxtyping import Array, Float, Int

from genhmr_jax.core import losses, quantizer
from genhmr_jax.core.masking import BINS
from genhmr_jax.core.system import Params
from genhmr_jax.data.image_rows import known_mean, rooted
from genhmr_jax.data.rows import Rows
from genhmr_jax.geometry.keypoints import project_keypoints
from genhmr_jax.geometry.metrics import distances, masked_mean
from genhmr_jax.systems.genhmr.model import Encoded
from genhmr_jax.systems.genhmr.samples import Sample
from genhmr_jax.systems.genhmr.system import GenHmrSystem

Sums = dict[str, jax.Array]


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
        rows, targets = sample.rows, sample.targets
        everything, inputs = system_params(params, frozen), sample.inputs
        # 1. Predict the masked tokens.
        encoded = self.system.encode(everything, inputs)
        visible = targets.visible
        if self.config.masking.unroll:
            visible = self._unrolled(everything, sample, encoded)
        logits = self.system.logits(everything, visible, encoded)
        # 2. Cross-entropy; shape and camera.
        nll = losses.token_nll(logits, targets.tokens, self.config.loss.label_smoothing)
        weights = targets.weights
        betas = losses.row_mean((encoded.betas - rows.betas) ** 2)
        camera = losses.row_mean(jnp.abs(encoded.weak_camera - rows.weak_camera))
        terms = {
            "token": jnp.sum(targets.token_weight * nll),
            "betas": jnp.sum(weights.betas * betas),
            "camera": jnp.sum(weights.camera * camera),
        }
        metrics = _accuracies(logits, sample)
        if self.config.loss.differentiable_sampling == "none":
            return terms, metrics
        # 3. Decode the answer and compare bodies.
        vectors = frozen["codebook"]["vectors"]
        soft = self._differentiable_sample(logits, vectors, targets.noise_key)
        embeddings = jnp.where(targets.mask[..., None], soft, vectors[targets.tokens])
        rotmats = self.system.pose(everything, inputs.view)(embeddings)
        more_terms, more_metrics = _body_terms(frozen["body"], rotmats, encoded, sample)
        return terms | more_terms, metrics | more_metrics

    def _unrolled(self, everything: Params, sample: Sample, encoded: Encoded) -> Int[Array, "B L"]:
        """Visible tokens; in rows to unroll, the network's own most confident guesses.

        So the network learns to continue from, and to revise, what it gets after the first step of
        sampling: its own guesses, where plain training shows true tokens (as step-unrolled
        denoising does, Savinov et al. 2022).
        """
        targets = sample.targets
        nothing = jnp.full_like(targets.tokens, self.system.spec.tokenizer.codebook_size)
        logits = jax.lax.stop_gradient(self.system.logits(everything, nothing, encoded))
        probability = jax.nn.softmax(logits)
        rank = jnp.argsort(jnp.argsort(-jnp.max(probability, -1), -1), -1)
        keep = rank < targets.kept[:, None]
        own = jnp.where(keep, jnp.argmax(probability, -1), nothing)
        return jnp.where(targets.unroll[:, None], own, targets.visible)

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


def _body_terms(
    body: smpl_jax.SmplModel, rotmats: Float[Array, "B 24 3 3"], encoded: Encoded, sample: Sample
) -> tuple[Sums, Sums]:
    """Terms of rotations, joints and projected keypoints, and MPJPE in mm."""
    rows, weights = sample.rows, sample.targets.weights
    output = smpl_jax.forward(body, encoded.betas, rotmats)
    rotation = losses.row_mean((rotmats - rows.rotmats) ** 2)
    known = rows.confidence_of_joints()
    both = rooted(output.joints, known), rooted(rows.joints, known)
    joints3d = known_mean(jnp.mean(jnp.abs(both[0] - both[1]), -1), known)
    gap = keypoint_gap(body, output, encoded.weak_camera, rows)
    joints2d = jnp.mean(jnp.minimum(jnp.abs(gap), 1.0), -1)
    terms = {
        "rotation": jnp.sum(weights.rotation * rotation),
        "joints3d": jnp.sum(weights.joints3d * joints3d),
        "joints2d": jnp.sum(weights.joints2d * known_mean(joints2d, rows.confidence_of_points2d())),
    }
    mpjpe = masked_mean(distances(*both), known)
    return terms, {"mpjpe_mm": 1000 * jnp.sum(weights.joints3d * mpjpe)}


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

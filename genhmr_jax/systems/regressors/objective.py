"""The published losses of HMR2.0 and TokenHMR, which MQ-HMR has too, on prepared rows of images.

Their losses are sums over the batch and over the elements of each label. Here a batch's loss is the
same sum divided by its rows, those without the label included: terms keep the published
proportions, and AdamW is invariant to the common factor. HMR2.0's adversarial term is left out, as
in TokenHMR.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import smpl_jax
from jaxtyping import Array, Float, UInt
from smpl_jax import rotations

from genhmr_jax.core import losses
from genhmr_jax.data.image_rows import rooted
from genhmr_jax.data.rows import Known, Rows
from genhmr_jax.geometry.camera import CropCamera
from genhmr_jax.geometry.keypoints import DETECTED, keypoint_points
from genhmr_jax.geometry.metrics import distances, masked_mean
from genhmr_jax.nets.vit import drop_path_factors
from genhmr_jax.systems.regressors.heads import Body
from genhmr_jax.train.random_streams import stream

CROP_PX, CROP_FOCAL = 256.0, 5000.0  # the crop camera of HMR and its descendants


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sample:
    """B prepared rows.

    Attributes:
      images: crops. maps: of a frozen encoder, in place of them.
      rotmats, betas, joints: labels, see data.rows.Rows.
      points2d: keypoints in sides of the crop from its middle.
      joints_confidence, points2d_confidence: of the labels.
      weights: of each row in each term.
      measured: weights of the mean error; they sum to 1 over the rows with 3D joints.
      exact: 1 where the body was measured, 0 where it was fitted to 2D keypoints.
      drop_path: factors of stochastic depth, or None.
    """

    images: UInt[Array, "B 256 256 3"] | None
    maps: list[Float[Array, "B H W _"]] | None
    rotmats: Float[Array, "B 24 3 3"]
    betas: Float[Array, "B 10"]
    joints: Float[Array, "B 24 3"]
    points2d: Float[Array, "B K 2"]
    joints_confidence: Float[Array, "B 24"]
    points2d_confidence: Float[Array, "B K"]
    weights: Known
    measured: Float[Array, "B"]
    exact: Float[Array, "B"]
    drop_path: Float[Array, "B depth 2"] | None = None


def is_loose(config: ml_collections.ConfigDict) -> bool:
    """Whether small errors count less (TokenHMR)."""
    return config.loss.loose.weight < 1


def prepare(rows: Rows, config: ml_collections.ConfigDict, depth: int) -> Sample:
    """The samples of a batch.

    Args:
      rows: of images.
      config: of the stage: `seed`, `drop_path` and `loss` are read.
      depth: layers of a trained encoder.
    """
    size = rows.size
    exact = jnp.ones(size)
    if is_loose(config) and rows.exact is not None:
        exact = rows.exact
    weights = jax.tree.map(lambda known: known / size, rows.labels)
    # Fitted bodies are labels of rotations only: tokenhmr/lib/models/tokenhmr.py, L227, L240.
    trusted = {"joints3d": weights.joints3d * exact, "betas": weights.betas * exact}
    weights = dataclasses.replace(weights, **trusted)
    drop_path = None
    if config.drop_path:
        seeds = stream(config.seed, "drop_path")
        keys = jax.vmap(lambda number: jax.random.fold_in(seeds, number))(rows.number)
        drop_path = drop_path_factors(keys, depth, config.drop_path)
    return Sample(
        images=rows.images,
        maps=rows.maps,
        rotmats=rows.rotmats,
        betas=rows.betas,
        joints=rows.joints,
        points2d=rows.view.to_crop(rows.points2d) / 2.0,
        joints_confidence=rows.confidence_of_joints(),
        points2d_confidence=rows.confidence_of_points2d(),
        weights=weights,
        measured=losses.normalised(weights.joints3d),
        exact=exact,
        drop_path=drop_path,
    )


def terms(
    body: smpl_jax.SmplModel, answer: Body, sample: Sample, config: ml_collections.ConfigDict
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """The terms of the loss and the metrics of estimated bodies; sums over the rows."""
    weights, loose = sample.weights, config.loss.loose
    output = smpl_jax.forward(body, answer.betas, answer.rotmats)
    known, visible = sample.joints_confidence, sample.points2d_confidence
    joints = rooted(output.joints, known), rooted(sample.joints, known)
    points = in_crop(keypoint_points(body, output, DETECTED), answer.weak_camera)
    angle_weight = jnp.ones((visible.shape[0], 24))
    if is_loose(config):
        # Times the confidence, as published (tokenhmr/lib/models/tokenhmr.py, L218).
        squared = visible * jnp.sum((points - sample.points2d) ** 2, -1)
        visible = visible * loosened(squared, jnp.array(loose.points2d) ** 2, loose.weight)
        angles = rotations.geodesic_angle(answer.rotmats, sample.rotmats)
        low = jnp.where(sample.exact > 0, 1.0, loose.weight)[:, None]
        angle_weight = loosened(angles, jnp.array(loose.angles), low)
    gap3d = jnp.sum(jnp.abs(joints[0] - joints[1]), -1)
    gap2d = jnp.sum(jnp.abs(points - sample.points2d), -1)
    turned = angle_weight * jnp.sum((answer.rotmats - sample.rotmats) ** 2, (-1, -2))
    rows = {
        "joints3d": weights.joints3d * jnp.sum(known * gap3d, -1),
        "joints2d": weights.joints2d * jnp.sum(visible * gap2d, -1),
        "orient": weights.rotation * turned[:, 0],
        "pose": weights.rotation * jnp.sum(turned[:, 1:], -1),
        "betas": weights.betas * jnp.sum((answer.betas - sample.betas) ** 2, -1),
    }
    mpjpe = masked_mean(distances(*joints), known)
    metrics = {"mpjpe_mm": 1000 * jnp.sum(sample.measured * mpjpe)}
    return {name: jnp.sum(values) for name, values in rows.items()}, metrics


def in_crop(
    points: Float[Array, "B K 3"], weak_camera: Float[Array, "B 3"]
) -> Float[Array, "B K 2"]:
    """Body points through the crop camera, in crop sides from the crop's middle.

    HMR's crop camera has a picture of 256 x 256 px and a focal length of 5000 px, so almost no
    perspective; the translation is [tx, ty, 2 f / (256 s)].

    Args:
      points: metres, relative to the model's origin.
      weak_camera: (s, tx, ty).
    """
    side = jnp.full(weak_camera.shape[:1], CROP_PX)
    crop = jnp.stack([side / 2, side / 2, side], -1)
    view = CropCamera(crop, jnp.full_like(side, CROP_FOCAL), crop[:, :2])
    projected = view.project(points + view.translation(weak_camera)[:, None])
    return view.to_crop(projected) / 2.0


def loosened(
    error: Float[Array, "B K"], threshold: Float[Array, "K"], weight: Any
) -> Float[Array, "B K"]:
    """The factors of TokenHMR's threshold-adaptive loss scaling (Dwivedi et al. 2024, section 3.2).

    `weight` where the error is below its threshold, else 1: a body need not follow a label more
    closely than the label, or the crop camera, is right.
    """
    return jnp.where(error < threshold, weight, 1.0)

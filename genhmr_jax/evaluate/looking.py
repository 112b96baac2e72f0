"""A model looks at pictures of one person each whose body is known: shots in, bodies out, error of each joint."""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import smpl_jax
from jaxtyping import Array, Float
from tqdm import tqdm

from genhmr_jax.data.synthetic.generate import Sample
from genhmr_jax.detect.observed import Observed, can_recover
from genhmr_jax.geometry import metrics
from genhmr_jax.geometry.keypoints import DETECTED, MIN_CONFIDENCE
from genhmr_jax.geometry.mean_pose import MEAN_POSE_72
from genhmr_jax.recover.photo import Recoverer, RecoverOptions

BATCH = 16
LOOKING = RecoverOptions(max_people=3)
BOX_MARGIN = 1.1  # of the labels' own box: its points lie inside the body


@dataclasses.dataclass(frozen=True)
class Shot:
    """A picture and who is in it.

    Attributes:
      image: uint8 (H, W, 3).
      keypoints: (23, 3) the true ones, px and 1 where visible: of the people found, the nearest to them is taken.
      box: (4,) xyxy px: where the person is; None: the detector shall find out.
      window: (4,) xyxy whole px: the part of the image that the 2D detector may see; None: all.
      given: (23, 3) keypoints in px of the image, and confidence, in place of the detector's.
    """

    image: np.ndarray
    keypoints: np.ndarray
    box: np.ndarray | None = None
    window: tuple[int, int, int, int] | None = None
    given: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Seen:
    """What a model took from N shots: batches of inputs (the last one filled up), who was found (N,), seconds a shot."""

    batches: list[dict[str, Any]]
    found: np.ndarray
    seconds: float


@dataclasses.dataclass(frozen=True)
class Answers:
    """What a model says of N people; of those not found, the mean pose with confidence 0.

    Attributes:
      joints: (N, 24, 3) metres, camera orientation.
      confidence: (N, 24).
      keypoints: (N, 23, 2) projected, px; NaN for those not found.
      found: (N,).
      seconds: a person, the solving alone.
      hypotheses: (N, H, 24, 3), ordered by refinement loss, where several were asked for.
      hypothesis_confidence: (N, H, 24).
    """

    joints: np.ndarray
    confidence: np.ndarray
    keypoints: np.ndarray
    found: np.ndarray
    seconds: float = 0.0
    hypotheses: np.ndarray | None = None
    hypothesis_confidence: np.ndarray | None = None


def shot_of(sample: Sample, with_box: bool = False, with_keypoints: bool = False) -> Shot:
    """A rendered sample as a shot: with the true box or without any; with all true 2D keypoints, hidden ones too, or as detected."""
    true = np.concatenate([sample.keypoints[:, :2], np.ones((len(DETECTED), 1))], -1).astype(np.float32)
    box = true_box(sample) if with_box else None
    return Shot(sample.image, sample.keypoints, box, given=true if with_keypoints else None)


def true_box(sample: Sample) -> Float[np.ndarray, "4"]:
    """The box, px, of the true keypoints, hidden ones too, a little larger; cut by the image."""
    low, high = sample.keypoints[:, :2].min(0), sample.keypoints[:, :2].max(0)
    centre, half = (low + high) / 2, BOX_MARGIN * (high - low) / 2
    height, width = sample.image.shape[:2]
    return np.clip(np.concatenate([centre - half, centre + half]), 0, [width, height, width, height]).astype(np.float32)


def look(model: Recoverer, shots: Sequence[Shot], options: RecoverOptions = LOOKING, batch: int = BATCH) -> Seen:
    """The model's 2D part: finds the person of each shot, and encodes; compiling does not count as time."""
    _person(model, shots[0], options)
    began = time.perf_counter()
    people = [_person(model, shot, options) for shot in tqdm(shots, desc="looking", unit="image", leave=False, disable=None)]
    views = []
    for shot, person in zip(shots, people, strict=True):
        height, width = shot.image.shape[:2]
        views.append(model.view(shot.image, Observed.nobody() if person is None else person, options.focal_length(width, height), 1))
    seconds = time.perf_counter() - began
    views += [views[-1]] * (-len(views) % batch)
    stacked = {name: np.concatenate([view[name] for view in views]) for name in views[0]}
    parts = [{name: value[i : i + batch] for name, value in stacked.items()} for i in range(0, len(views), batch)]
    jax.block_until_ready(model.encode(parts[0]))
    began = time.perf_counter()
    encoded = jax.block_until_ready([model.encode(part) for part in parts])
    seconds += time.perf_counter() - began
    return Seen(encoded, np.array([person is not None for person in people]), seconds / len(shots))


def _person(model: Recoverer, shot: Shot, options: RecoverOptions) -> Observed | None:
    """What is seen of the person of a shot, px of its image, or None."""
    if shot.given is not None:
        return model.see(shot.image, None, shot.given[None], options)
    x0, y0, x1, y1 = shot.window or (0, 0, shot.image.shape[1], shot.image.shape[0])
    image, box, corner = np.ascontiguousarray(shot.image[y0:y1, x0:x1]), shot.box, np.array([x0, y0], np.float32)
    if box is not None:
        box = np.clip(box - np.tile(corner, 2), 0, [x1 - x0, y1 - y0, x1 - x0, y1 - y0])
        if min(box[2:] - box[:2]) < 1:
            return None
        box = box[None]
    found = model.see(image, box, None, options)
    found = found.only(can_recover(found.keypoints) | model.networks.crops_by_box).moved(*corner)
    chosen = 0 if shot.box is not None and len(found) else nearest_person(found.keypoints, shot.keypoints)
    return None if chosen is None else found.only([chosen])


def nearest_person(people: Float[np.ndarray, "P K 3"], truth: Float[np.ndarray, "K 3"]) -> int | None:
    """Whose keypoints lie nearest to the true ones, by the mean distance of those that are visible and detected.

    None where all are further away than half the person's size.
    """
    visible = truth[:, 2] > 0
    if not visible.any():
        return None
    extent, best = np.ptp(truth[visible, :2], axis=0).max(), (np.inf, None)
    for i, points in enumerate(people):
        both = visible & (points[:, 2] >= MIN_CONFIDENCE)
        distance = np.linalg.norm(points[both, :2] - truth[both, :2], axis=-1).mean() if both.any() else np.inf
        best = min(best, (distance, i), key=lambda pair: pair[0])
    return best[1] if best[0] < extent / 2 else None


def solve(model: Recoverer, seen: Seen, options: RecoverOptions) -> Answers:
    """The model's 3D part under some options. Each person's random draws follow from the seed and their number in the set."""
    count, batch = len(seen.found), len(seen.batches[0]["crop"])
    several = options.hypotheses > 1
    names = ["joints", "joint_confidence", "projected_keypoints"]
    names += ["hypothesis_joints", "hypothesis_confidence"] if several else []
    numbers = np.arange(len(seen.batches) * batch)
    jax.block_until_ready(model.solve(seen.batches[0], numbers[:batch], options))
    began, parts = time.perf_counter(), []
    for i, inputs in enumerate(seen.batches):
        solved = jax.block_until_ready(model.solve(inputs, numbers[i * batch : (i + 1) * batch], options))
        parts.append({name: np.asarray(solved[name]) for name in names})
    seconds = (time.perf_counter() - began) / len(numbers)
    all_of = {name: np.concatenate([part[name] for part in parts])[:count] for name in names}
    found = seen.found[:, None, None]
    mean_joints = mean_pose_joints(model.body)
    return Answers(
        joints=np.where(found, all_of["joints"], mean_joints),
        confidence=np.where(seen.found[:, None], all_of["joint_confidence"], 0.0),
        keypoints=np.where(found, all_of["projected_keypoints"], np.nan),
        found=seen.found,
        seconds=seconds,
        hypotheses=np.where(found[..., None], all_of["hypothesis_joints"], mean_joints) if several else None,
        hypothesis_confidence=np.where(found, all_of["hypothesis_confidence"], 0.0) if several else None,
    )


def mean_pose_joints(body: smpl_jax.SmplModel) -> Float[np.ndarray, "24 3"]:
    """Joints of the mean pose and shape, upright and facing the camera, metres."""
    return np.asarray(_mean_pose_joints(body))


@jax.jit
def _mean_pose_joints(body: smpl_jax.SmplModel) -> Array:
    return smpl_jax.forward(body, jnp.zeros(10), jnp.asarray(MEAN_POSE_72).reshape(24, 3)).joints


def mean_pose_answers(body: smpl_jax.SmplModel, count: int) -> Answers:
    """The baseline: everybody in the mean pose."""
    joints = np.tile(mean_pose_joints(body), (count, 1, 1))
    return Answers(joints, np.zeros((count, 24)), np.full((count, len(DETECTED), 2), np.nan), np.ones(count, bool))


def joint_errors(predicted: Float[np.ndarray, "*b 24 3"], truth: Float[np.ndarray, "*b 24 3"]) -> dict[str, Float[np.ndarray, "*b 24"]]:
    """Error of each joint, mm: "mpjpe" relative to the pelvis (joint 0), "pa_mpjpe" after one similarity transform a person.

    Their means over the joints are MPJPE and PA-MPJPE.
    """
    plain, aligned = _joint_errors(jnp.asarray(predicted), jnp.asarray(truth))
    return {"mpjpe": np.asarray(plain, np.float64), "pa_mpjpe": np.asarray(aligned, np.float64)}


@jax.jit
def _joint_errors(predicted: Array, truth: Array) -> tuple[Array, Array]:
    plain = metrics.distances(metrics.centred(predicted), metrics.centred(truth))
    aligned = metrics.distances(metrics.procrustes(predicted, truth)(predicted), truth)
    return 1000 * plain, 1000 * aligned

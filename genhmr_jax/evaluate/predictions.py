"""Test images in, bodies out: what every evaluation of a model goes through.

`prepare` detects the people of each image, picks the one whose body is known, and makes the
system's inputs; `solve` makes the bodies. It is what `Recoverer.recover` does to a photo, for one
person in each of many images, with the time that it takes.
"""

import dataclasses
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import smpl_jax
from jaxtyping import Array, Bool, Float
from tqdm import tqdm

from genhmr_jax.core.inputs import Inputs
from genhmr_jax.core.system import PhotoCamera
from genhmr_jax.detect.detections import Detections
from genhmr_jax.detect.detector import detect
from genhmr_jax.geometry.keypoints import DETECTED, MIN_CONFIDENCE
from genhmr_jax.geometry.mean_pose import MEAN_POSE_72
from genhmr_jax.recover.photo import Recoverer, RecoverOptions

BATCH = 16
"""People who are solved at a time."""


@dataclasses.dataclass(frozen=True)
class TestImage:
    """An image and which person in it to predict.

    With `box` or `given` there is no search. Otherwise the person is chosen among those whom the
    detector finds: the one nearest to `keypoints`, or without them the one whose box overlaps
    `true_box` most.

    Attributes:
      image: uint8 (H, W, 3), RGB.
      keypoints: (23, 3) the true ones, px and 1 where visible.
      true_box: (4,) xyxy px of the person; the detector does not get it.
      box: (4,) xyxy px of the person, for the detector.
      given: (23, 3) px and confidence, in place of detected keypoints.
      window: xyxy, whole px: the part of the image that the detector gets. None: all of it.
      camera: None: as the options assume it.
    """

    image: np.ndarray
    keypoints: np.ndarray | None = None
    true_box: np.ndarray | None = None
    box: np.ndarray | None = None
    given: np.ndarray | None = None
    window: tuple[int, int, int, int] | None = None
    camera: PhotoCamera | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Prepared:
    """N people to be solved, NumPy. A row without a person is empty.

    Attributes:
      inputs: of N rows.
      boxes, keypoints: (N, 4) xyxy px, (N, 23, 3) px and confidence, as detected or given.
      found: (N,) whether the person was found.
      people: (N,) how many people of the image can be recovered.
      seconds: (N,) detection and preparation.
    """

    inputs: Inputs
    boxes: Float[np.ndarray, "N 4"]
    keypoints: Float[np.ndarray, "N 23 3"]
    found: Bool[np.ndarray, "N"]
    people: np.ndarray
    seconds: np.ndarray

    def camera(self, row: int) -> PhotoCamera:
        """The camera of the row's image."""
        view = self.inputs.view
        return PhotoCamera(float(view.focal[row]), tuple(view.centre[row].tolist()))

    def batches(self, size: int) -> list[Inputs]:
        """The inputs in batches of `size` rows; copies of the last row fill up the last batch."""
        count = len(self.found)
        index = np.minimum(np.arange(count + -count % size), count - 1)
        return [
            jax.tree.map(lambda x, rows=rows: x[rows], self.inputs)
            for rows in index.reshape(-1, size)
        ]


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The bodies of N people. Who was not found has the mean pose with confidence 0.

    Attributes:
      found: (N,) whether the person was found.
      pose: (N, 72) axis-angle, radians; the root in camera coordinates.
      betas: (N, 10).
      joints, vertices: (N, 24, 3), (N, V, 3) metres, camera coordinates; of the mean pose, from the
        model origin.
      confidence: (N, 24) of the joints; NaN from a system without an estimate.
      keypoints: (N, 23, 2) of the body, projected, px; NaN for those not found.
      seconds: a person, solving alone.
      hypotheses, hypothesis_confidence: (N, H, 24, 3) joints and (N, H, 24), that of the lowest
        refinement loss first, where the options ask for several.
    """

    found: Bool[np.ndarray, "N"]
    pose: Float[np.ndarray, "N 72"]
    betas: Float[np.ndarray, "N 10"]
    joints: Float[np.ndarray, "N 24 3"]
    vertices: Float[np.ndarray, "N V 3"]
    confidence: Float[np.ndarray, "N 24"]
    keypoints: Float[np.ndarray, "N 23 2"]
    seconds: float = 0.0
    hypotheses: Float[np.ndarray, "N H 24 3"] | None = None
    hypothesis_confidence: Float[np.ndarray, "N H 24"] | None = None


def settings(
    iterations: Sequence[int], refine_steps: int, options: RecoverOptions
) -> dict[str, RecoverOptions]:
    """Options by label: every number of sampling iterations with sampling alone and, unless
    `refine_steps` is 0, with refinement."""
    stages = {"sampling alone": 0} | ({"with refinement": refine_steps} if refine_steps else {})
    return {
        f"T={t}, {stage}": dataclasses.replace(options, iterations=t, refine_steps=steps)
        for stage, steps in stages.items()
        for t in iterations
    }


def prepare(
    recoverer: Recoverer,
    images: Sequence[TestImage],
    options: RecoverOptions,
    *,
    published_crop: bool = False,
    warm_up: bool = False,
) -> Prepared:
    """Detects the person of each test image and makes the inputs of the system.

    Args:
      options: its camera is that of images without one; `max_people` limits the search.
      published_crop: see System.prepare.
      warm_up: prepare the first image once before, so that the seconds do not include compilation.

    Raises:
      ValueError: of detect.detector.detect, such as for a box outside the image.
    """
    if warm_up:
        _prepare_one(recoverer, images[0], options, published_crop)
    bar = {"desc": "detecting", "unit": "image", "leave": False}
    shown = tqdm(images, **bar, disable=None if len(images) > 1 else True)
    return joined([_prepare_one(recoverer, image, options, published_crop) for image in shown])


def joined(parts: Sequence[Prepared]) -> Prepared:
    """The people of all parts, of one system."""
    return jax.tree.map(lambda *rows: np.concatenate(rows), *parts)


def solve(
    recoverer: Recoverer,
    prepared: Prepared,
    options: RecoverOptions,
    numbers: np.ndarray | None = None,
    *,
    batch: int = BATCH,
    warm_up: bool = False,
) -> Prediction:
    """The bodies of prepared people.

    Args:
      options: its camera is not used; the inputs have theirs.
      numbers: one for each person, where N is a multiple of `batch`: the person's random draws
        follow from the seed and this number. None: the person's index.
      batch: people at a time; changes the speed alone.
      warm_up: solve the first batch once before, so that the seconds do not include compilation.
    """
    batches, count = prepared.batches(batch), len(prepared.found)
    if numbers is None:
        numbers = np.arange(len(batches) * batch)
    numbers = numbers.reshape(-1, batch)
    if warm_up:
        jax.block_until_ready(recoverer.solve(batches[0], numbers[0], options))
    began = time.perf_counter()
    parts = [
        jax.tree.map(np.asarray, recoverer.solve(*of_batch, options))
        for of_batch in zip(batches, numbers, strict=True)
    ]
    seconds = (time.perf_counter() - began) / numbers.size
    solved = jax.tree.map(lambda *rows: np.concatenate(rows)[:count], *parts)
    found, several = prepared.found, solved.hypotheses
    mean = mean_pose(recoverer.body, 1)

    def or_else(answer: np.ndarray, default: np.ndarray | float) -> np.ndarray:
        """`default` for those not found."""
        return np.where(found.reshape(-1, *[1] * (answer.ndim - 1)), answer, default)

    return Prediction(
        found=found,
        pose=or_else(np.concatenate([solved.global_orient, solved.body_pose], -1), mean.pose),
        betas=or_else(solved.betas, 0.0),
        joints=or_else(solved.joints, mean.joints),
        vertices=or_else(solved.vertices, mean.vertices),
        confidence=or_else(solved.joint_confidence, 0.0),
        keypoints=or_else(solved.projected_keypoints, np.nan),
        seconds=seconds,
        hypotheses=or_else(several.joints, mean.joints) if several else None,
        hypothesis_confidence=or_else(several.confidence, 0.0) if several else None,
    )


def mean_pose(body: smpl_jax.SmplModel, count: int) -> Prediction:
    """The baseline: everybody in the mean pose and shape, upright and facing the camera."""
    output = _posed_mean(body)
    rows = lambda array: np.tile(array, (count, *[1] * np.ndim(array)))
    return Prediction(
        found=np.ones(count, bool),
        pose=rows(MEAN_POSE_72),
        betas=np.zeros((count, 10), np.float32),
        joints=rows(output.joints),
        vertices=rows(output.vertices),
        confidence=np.zeros((count, 24)),
        keypoints=np.full((count, len(DETECTED), 2), np.nan),
    )


def nearest_person(
    people: Float[np.ndarray, "P K 3"], truth: Float[np.ndarray, "K 3"]
) -> int | None:
    """Whose keypoints are nearest to the true ones, by the mean distance of those that are visible
    and detected.

    None where the distance is more than half the person's size for everybody.
    """
    visible = truth[:, 2] > 0
    if not visible.any():
        return None
    extent, best = np.ptp(truth[visible, :2], axis=0).max(), (np.inf, None)
    for i, points in enumerate(people):
        both = visible & (points[:, 2] >= MIN_CONFIDENCE)
        gaps = np.linalg.norm(points[both, :2] - truth[both, :2], axis=-1)
        best = min(best, (gaps.mean() if both.any() else np.inf, i), key=lambda pair: pair[0])
    return best[1] if best[0] < extent / 2 else None


def box_overlap(
    boxes: Float[np.ndarray, "P 4"], box: Float[np.ndarray, "4"]
) -> Float[np.ndarray, "P"]:
    """Intersection over union of boxes with one box, xyxy."""
    low, high = np.maximum(boxes[:, :2], box[:2]), np.minimum(boxes[:, 2:], box[2:])
    inside = np.clip(high - low, 0, None).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
    return inside / (areas - inside)


def _prepare_one(
    recoverer: Recoverer, test_image: TestImage, options: RecoverOptions, published_crop: bool
) -> Prepared:
    """One row."""
    began = time.perf_counter()
    height, width = test_image.image.shape[:2]
    people = recoverer.recoverable(_detect(test_image, options.max_people))
    chosen = _choose(people, test_image)
    person = people.only([] if chosen is None else [chosen])
    camera = test_image.camera or options.camera(width, height)
    inputs = recoverer.system.prepare(
        test_image.image, person, camera, 1, published_crop=published_crop
    )
    row = person.padded(1)
    return Prepared(
        inputs=inputs,
        boxes=row.boxes,
        keypoints=row.keypoints,
        found=np.array([chosen is not None]),
        people=np.array([len(people)]),
        seconds=np.array([time.perf_counter() - began]),
    )


def _detect(test_image: TestImage, max_people: int | None) -> Detections:
    """The people in the window, px of the whole image."""
    image, box, given = test_image.image, test_image.box, test_image.given
    x0, y0 = 0, 0
    if test_image.window is not None:
        x0, y0, x1, y1 = test_image.window
        image = np.ascontiguousarray(image[y0:y1, x0:x1])
        if box is not None:
            box = np.clip(box - np.float32([x0, y0, x0, y0]), 0, np.tile([x1 - x0, y1 - y0], 2))
            if min(box[2:] - box[:2]) < 1:
                return Detections.empty(0)
    one_row = lambda array: None if array is None else array[None]
    return detect(image, one_row(box), one_row(given), max_people=max_people).moved(x0, y0)


def _choose(people: Detections, test_image: TestImage) -> int | None:
    """The index of the test image's person, or None."""
    if test_image.box is not None or test_image.given is not None:
        return 0 if len(people) else None
    if test_image.keypoints is not None:
        return nearest_person(people.keypoints, test_image.keypoints)
    overlap = box_overlap(people.boxes, test_image.true_box)
    return int(np.argmax(overlap)) if overlap.any() else None


@jax.jit
def _posed_mean(body: smpl_jax.SmplModel) -> smpl_jax.SmplOutput:
    pose: Array = jnp.asarray(MEAN_POSE_72).reshape(24, 3)
    return smpl_jax.forward(body, jnp.zeros(10), pose)

"""From test images to predicted bodies, for every evaluation that starts from images.

`prepare` detects the people of each image, chooses the labelled one, and makes the inputs of the
system. `solve` predicts the bodies. Together they do what `Recoverer.recover` does to a photo, but
for one person in each of many images, and they measure the time.
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

from genhmr_jax.core.inputs import Inputs, joined
from genhmr_jax.core.system import PhotoCamera
from genhmr_jax.detect.detections import Detections
from genhmr_jax.detect.detector import detect
from genhmr_jax.geometry.boxes import box_overlap
from genhmr_jax.geometry.keypoints import DETECTED, MIN_CONFIDENCE
from genhmr_jax.geometry.mean_pose import MEAN_POSE_72
from genhmr_jax.recover.photo import Recoverer, RecoverOptions

BATCH = 16
"""The default number of people in a batch."""


@dataclasses.dataclass(frozen=True)
class TestImage:
    """An image, and the person in it whose body is predicted.

    With `box` or `given` there is no person detection. Otherwise the person is one of the detected
    people: the nearest one to `keypoints`, or without them the one whose box overlaps `true_box`
    most.

    Attributes:
      image: uint8 (H, W, 3), RGB.
      keypoints: (23, 3) true keypoints, px and 1 where visible.
      true_box: (4,) xyxy px of the person, hidden from the detector.
      box: (4,) xyxy px of the person, an input of the detector.
      given: (23, 3) px and confidence, in place of detected keypoints.
      window: xyxy, whole px: the part of the image that the detector gets. None: the whole image.
      camera: None: that of the options.
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
    """The inputs of N people, NumPy. The row of a person who was not found is empty.

    Attributes:
      inputs: of N rows.
      boxes: (N, 4) xyxy px, detected or given.
      keypoints: (N, 23, 3) px and confidence, detected or given.
      found: (N,) whether the person was found.
      people: (N,) the number of people in the image who can be recovered.
      seconds: (N,) time of detection and preparation.
    """

    inputs: Inputs
    boxes: Float[np.ndarray, "N 4"]
    keypoints: Float[np.ndarray, "N 23 3"]
    found: Bool[np.ndarray, "N"]
    people: np.ndarray
    seconds: np.ndarray

    def camera(self, row: int) -> PhotoCamera:
        """The camera of the image of a row."""
        view = self.inputs.view
        return PhotoCamera(float(view.focal[row]), tuple(view.centre[row].tolist()))

    def batches(self, size: int) -> list[Inputs]:
        """The inputs in batches of `size` rows. Copies of the last row fill up the last batch."""
        count = len(self.found)
        index = np.minimum(np.arange(count + -count % size), count - 1)
        return [
            jax.tree.map(lambda x, rows=rows: x[rows], self.inputs)
            for rows in index.reshape(-1, size)
        ]


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The bodies of N people. A person who was not found has the mean pose with confidence 0.

    Attributes:
      found: (N,) whether the person was found.
      pose: (N, 72) axis-angle, radians; the root in camera coordinates.
      betas: (N, 10).
      joints, vertices: (N, 24, 3), (N, V, 3) metres, camera coordinates; those of the mean pose
        are relative to the model origin.
      confidence: (N, 24) of the joints; NaN for a system without an estimate.
      keypoints: (N, 23, 2) projected keypoints of the body, px; NaN for people who were not found.
      seconds: time of `solve` for each person.
      hypotheses, hypothesis_confidence: (N, H, 24, 3) joints and (N, H, 24), the best first;
        None for one hypothesis.
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
    """Options by label: each number of sampling iterations, without and with refinement.

    With `refine_steps` 0 there are only those without refinement.
    """
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
    """Detect the person of each test image, and make the inputs of the system.

    Args:
      recoverer: the system that gets the inputs.
      images: the test images.
      options: their camera is used for images without one; `max_people` limits the detection.
      published_crop: see System.prepare.
      warm_up: prepare the first image once before, so that the seconds do not include compilation.

    Raises:
      ValueError: an error of detect.detector.detect, such as a box outside the image.
    """
    if warm_up:
        _prepare_one(recoverer, images[0], options, published_crop)
    bar = {"desc": "detecting", "unit": "image", "leave": False}
    shown = tqdm(images, **bar, disable=None if len(images) > 1 else True)
    return joined([_prepare_one(recoverer, image, options, published_crop) for image in shown])


def solve(
    recoverer: Recoverer,
    prepared: Prepared,
    options: RecoverOptions,
    numbers: np.ndarray | None = None,
    *,
    batch: int = BATCH,
    warm_up: bool = False,
) -> Prediction:
    """Predict the bodies of prepared people.

    Args:
      recoverer: the model.
      prepared: of `prepare`, for the same system.
      options: their camera is ignored; the inputs have their own.
      numbers: (N,) where N must be a multiple of `batch`. The random draws of a person depend only
        on the seed and on this number. None: the index of the person.
      batch: people in a batch; it changes only the speed.
      warm_up: solve the first batch once before, so that the seconds do not include compilation.
    """
    # 1. Solve batch by batch.
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

    # 2. The mean pose for people who were not found.
    found, several = prepared.found, solved.hypotheses
    mean = mean_pose(recoverer.body, 1)

    def or_else(answer: np.ndarray, default: np.ndarray | float) -> np.ndarray:
        """`default` in the rows of people who were not found."""
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
    """The baseline: the mean pose and shape for everybody, upright and facing the camera."""
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
    """The index of the person whose keypoints are nearest to the true ones.

    The distance is the mean over keypoints that are visible and detected. The result is None if it
    exceeds half the size of the true person for everybody.
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


def _prepare_one(
    recoverer: Recoverer, test_image: TestImage, options: RecoverOptions, published_crop: bool
) -> Prepared:
    """Prepare one test image."""
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
    """Detect the people in the window; px of the whole image."""
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

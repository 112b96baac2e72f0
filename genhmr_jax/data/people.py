"""Photos of labelled people as training rows: records of a mixture, cropped and augmented.

The record of a row and its augmentation follow from (seed, global sample number) alone. Rows hold
which labels are known: a label that a dataset lacks is zero and has no weight.
"""

import dataclasses
from collections.abc import Collection, Iterator, Sequence

import jax
import numpy as np
import smpl_jax
from jaxtyping import Float
from scipy.spatial.transform import Rotation
from smpl_jax.keypoints import BODY44, BODY44_FLIP, SMPL24, SMPL24_FLIP

from genhmr_jax.core.encoders import CROP_SIZE
from genhmr_jax.data import augment
from genhmr_jax.data.mixtures import Dataset
from genhmr_jax.data.packing import pack
from genhmr_jax.data.poses import sample_hash
from genhmr_jax.data.rows import Known, Rows
from genhmr_jax.data.sources import PersonRecord
from genhmr_jax.geometry.camera import CropCamera
from genhmr_jax.geometry.keypoints import DETECTED, match
from genhmr_jax.geometry.skeleton import forward_kinematics
from genhmr_jax.geometry.warp import warp_file
from genhmr_jax.io.errors import InputError

# Indices into BODY44, of its OpenPose half and of its extra half; -1: no such keypoint.
_OPENPOSE = np.array(match(BODY44, [f"openpose_{name}" for name in DETECTED]))
_EXTRA = np.array(match(BODY44, DETECTED))
# Joints with the same definition in all datasets; the definitions of neck and head differ.
_ALIKE = ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")
_LIMBS = [name if name.endswith(_ALIKE) else "" for name in SMPL24]
_JOINT_OPENPOSE = np.array(match(BODY44, [f"openpose_{name}" for name in _LIMBS]))
_JOINT_EXTRA = np.array(match(BODY44, _LIMBS))
_HIPS = [SMPL24.index("left_hip"), SMPL24.index("right_hip")]
_UNKNOWN_POSE = np.tile(np.eye(3, dtype=np.float32), (24, 1, 1))


class PeopleSource:
    """Augmented crops drawn from a mixture of datasets; a data.pipeline.Source.

    Args:
      datasets: with weights, whose sum need not be 1.
      size: rows of the global batch.
      seed: of the order and of the augmentation.
      body: whose skeleton gives the joints of records with pose and shape.
      spec: of the augmentation.
      exact: names of the datasets whose bodies were measured or made; None: no `Rows.exact`.

    Raises:
      InputError: no datasets, or an empty one.
    """

    def __init__(
        self,
        datasets: Sequence[Dataset],
        size: int,
        seed: int,
        body: smpl_jax.SmplModel,
        spec: augment.AugmentSpec = augment.AugmentSpec(),  # noqa: B008
        exact: Collection[str] | None = None,
    ):
        if not datasets:
            raise InputError("mixture", "has no datasets", "name at least one")
        for dataset in datasets:
            if not len(dataset.records):
                raise InputError(dataset.name, "holds no records", "build it again")
        self.datasets, self.size, self.seed, self.spec = list(datasets), size, seed, spec
        weights = np.array([dataset.weight for dataset in datasets], np.float64)
        self._upper_ends = np.cumsum(weights / weights.sum())
        self._skeleton = Skeleton.of(body)
        self._exact = None
        if exact is not None:
            self._exact = np.array([dataset.name in exact for dataset in datasets], np.float32)

    def draw(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Global sample numbers (b,) -> for each the index of its dataset and of its record."""
        chosen = np.searchsorted(self._upper_ends, sample_hash(numbers, self.seed), side="right")
        chosen = np.minimum(chosen, len(self.datasets) - 1)
        lengths = np.array([len(dataset.records) for dataset in self.datasets])[chosen]
        return chosen, (sample_hash(numbers, self.seed + 1) * lengths).astype(np.int64)

    def load(self, numbers: np.ndarray) -> Rows:
        """The rows with these global numbers (b,).

        Raises:
          InputError: a picture is missing or damaged; the error names dataset, record and picture.
        """
        numbers = np.asarray(numbers)
        which, index = self.draw(numbers)
        samples: list = [None] * len(numbers)
        for i, dataset in enumerate(self.datasets):
            mine = np.flatnonzero(which == i)
            for row, sample in zip(mine, fetch(dataset, index[mine]), strict=True):
                samples[row] = (sample, augment.draw(self.spec, self.seed, int(numbers[row])))
        rows = rows_of(samples, self._skeleton)
        exact = None if self._exact is None else self._exact[which]
        return dataclasses.replace(rows, number=numbers.astype(np.uint32), exact=exact)

    def shapes(self) -> Rows:
        """Shapes of one row."""
        return batch_shapes(exact=self._exact is not None)


def all_batches(
    dataset: Dataset, size: int, limit: int, body: smpl_jax.SmplModel
) -> Iterator[Rows]:
    """Records of a dataset without augmentation, in batches of `size`.

    `weight` is 1, and 0 where the last batch is padded.

    Args:
      limit: the largest number of records; from more, this many evenly spaced ones are taken.
    """
    count, skeleton = min(limit, len(dataset.records)), Skeleton.of(body)
    chosen = np.linspace(0, len(dataset.records) - 1, count).astype(np.int64)
    for part in pack(np.ones(count, np.int64), size):
        # Rows that pad the batch are copies of the last one, which is decoded once.
        known = int((part.weight > 0).sum())
        fetched = fetch(dataset, chosen[part.image[:known]])
        rows = rows_of([(sample, augment.Augmentation()) for sample in fetched], skeleton)
        copies = np.minimum(np.arange(size), known - 1)
        rows = jax.tree.map(lambda x, copies=copies: x[copies], rows)
        yield dataclasses.replace(rows, weight=part.weight)


@dataclasses.dataclass(frozen=True)
class Skeleton:
    """The joints of a body as a function of its shape and pose, in NumPy.

    Rows are made in threads on the host.

    Attributes:
      template: (24, 3) metres.
      shapes: (10, 24, 3).
      parents: (24,)
    """

    template: Float[np.ndarray, "24 3"]
    shapes: Float[np.ndarray, "10 24 3"]
    parents: tuple[int, ...]

    @staticmethod
    def of(body: smpl_jax.SmplModel) -> "Skeleton":
        """The skeleton of a body."""
        shapes = np.zeros((10, 24, 3))
        given = np.asarray(body.joint_shapedirs, np.float64)[:10]
        shapes[: len(given)] = given
        return Skeleton(np.asarray(body.joint_template, np.float64), shapes, body.parents)

    def rest(self, betas: Float[np.ndarray, "b 10"]) -> Float[np.ndarray, "b 24 3"]:
        """Joints of the rest pose, metres."""
        return self.template + np.einsum("bs,sjc->bjc", betas, self.shapes)

    def posed(
        self, rest: Float[np.ndarray, "b 24 3"], rotmats: Float[np.ndarray, "b 24 3 3"]
    ) -> Float[np.ndarray, "b 24 3"]:
        """Joints of the posed body relative to the model's origin, metres."""
        parents = np.array(self.parents)
        offsets = np.where(parents[:, None] >= 0, rest - rest[:, parents], rest)
        return forward_kinematics(self.parents, offsets, rotmats)[1]


def batch_shapes(*rows: int, exact: bool = False) -> Rows:
    """Shapes of a batch of `rows` of a PeopleSource; without an argument, of one row."""
    k = len(DETECTED)
    shape = lambda *sizes, kind=np.float32: jax.ShapeDtypeStruct((*rows, *sizes), kind)
    return Rows(
        view=CropCamera(shape(3), shape(), shape(2)),
        rotmats=shape(24, 3, 3),
        betas=shape(10),
        joints=shape(24, 3),
        joints_confidence=shape(24),
        keypoints=shape(k, 3),
        points2d=shape(k, 2),
        points2d_confidence=shape(k),
        weak_camera=shape(3),
        known=Known(*[shape()] * 5),
        images=shape(CROP_SIZE, CROP_SIZE, 3, kind=np.uint8),
        number=shape(kind=np.uint32),
        exact=shape() if exact else None,
    )


@dataclasses.dataclass(frozen=True)
class Sample:
    """A record, and its origin for errors."""

    where: str
    record: PersonRecord


def fetch(dataset: Dataset, indices: np.ndarray) -> list[Sample]:
    """Records of a dataset by number."""
    found = ((int(index), dataset.records[int(index)]) for index in indices)
    return [
        Sample(f"{dataset.name}: record {index} ({record['image_name']})", record)
        for index, record in found
    ]


def rows_of(samples: Sequence[tuple[Sample, augment.Augmentation]], skeleton: Skeleton) -> Rows:
    """Rows of records with their augmentations, without numbers.

    Measured joints are relative to the release's origin, and the loss aligns them. Keypoints are
    the labelled ones that are in the crop and not behind an occluder.
    """
    poses = [
        np.concatenate([sample.record["global_orient"], sample.record["body_pose"]])
        for sample, _ in samples
    ]
    rotvecs = np.stack(poses).reshape(-1, 3)
    rotmats = Rotation.from_rotvec(rotvecs).as_matrix().reshape(-1, 24, 3, 3)
    made = [_row(*sample, turns, skeleton) for sample, turns in zip(samples, rotmats, strict=True)]
    rows = {name: np.stack([row[name] for row in made]) for name in made[0]}

    # A known pose and shape determine all joints; else there are the measured ones.
    exact = rows.pop("has_both")[:, None] > 0
    posed = skeleton.posed(skeleton.rest(rows["betas"]), rows["rotmats"])
    rows["joints"] = np.where(exact[..., None], posed, rows["joints"])
    rows["joints_confidence"] = np.where(exact, 1.0, rows["joints_confidence"])
    # To align joints, the loss needs the pelvis or both hips.
    known = rows["joints_confidence"] > 0
    rows["has_joints3d"] = (known[:, 0] | known[:, _HIPS].all(1)) & (known.sum(1) > 1)

    view = CropCamera(*(rows.pop(name) for name in ("crop", "focal", "centre")))
    weak = view.weak(rows.pop("translation"))
    rows["weak_camera"] = np.where(rows["has_camera"][:, None] > 0, weak, 0.0)
    labels = Known(*(rows.pop(f"has_{field.name}") for field in dataclasses.fields(Known)))
    single = lambda x: x if x.dtype == np.uint8 else x.astype(np.float32)
    return jax.tree.map(single, Rows(view=view, known=labels, **rows))


def _row(
    sample: Sample,
    augmentation: augment.Augmentation,
    rotmats: Float[np.ndarray, "24 3 3"],
    skeleton: Skeleton,
) -> dict[str, np.ndarray]:
    """The arrays of one row in float64; "has_both" and "translation" are for `rows_of`.

    Args:
      rotmats: the pose of the record.
    """
    # 1. The camera, the crop and its pixels.
    record = sample.record
    intrinsics = record["intrinsics"] if record["has_intrinsics"] else None
    view = augment.view_of(record["image_size"], intrinsics, augmentation)
    crop = view.crop(augment.crop_square(record["box"], record["keypoints2d"], augmentation))
    image, hidden = _image(sample, view, crop, augmentation)

    # 2. 2D keypoints; those outside the crop or behind an occluder are not visible.
    points = view.labels(record["keypoints2d"].astype(np.float64), BODY44_FLIP)
    points = _named(points, _OPENPOSE, _EXTRA)
    inside = (points[:, :2] - crop[:2] + crop[2] / 2) * (CROP_SIZE / crop[2])  # crop px
    visible = ((inside >= 0) & (inside < CROP_SIZE)).all(-1) & (points[:, 2] > 0)
    x, y = np.clip(inside, 0, CROP_SIZE - 1).astype(int).T
    visible &= ~hidden[y, x]

    # 3. Measured 3D joints: SMPL's, else those of BODY44.
    joints = view.labels(record["joints24_3d"].astype(np.float64), SMPL24_FLIP)
    if not (joints[:, 3] > 0).any():
        joints = view.labels(record["keypoints3d"].astype(np.float64), BODY44_FLIP)
        joints = _named(joints, _JOINT_OPENPOSE, _JOINT_EXTRA)

    # 4. The body. Without a shape the pelvis that the translation refers to is unknown.
    has_pose, has_betas = record["has_pose"] > 0, record["has_betas"] > 0
    betas = record["betas"].astype(np.float64) * has_betas
    pelvis = skeleton.rest(betas[None])[0, 0]
    known_camera = record["has_translation"] > 0 and record["has_intrinsics"] > 0
    translation = np.array([0.0, 0.0, 1.0])
    if known_camera:
        translation = view.translation(record["translation"].astype(np.float64), pelvis)
    return {
        "rotmats": view.rotmats(rotmats) if has_pose else _UNKNOWN_POSE,
        "betas": betas,
        "joints": joints[:, :3],
        "joints_confidence": np.minimum(joints[:, 3], 1.0),
        "keypoints": points * visible[:, None],
        "points2d": points[:, :2],
        "points2d_confidence": np.minimum(points[:, 2], 1.0),  # some releases write 2 for "visible"
        "crop": crop,
        "translation": translation,
        "focal": np.float64(view.focal),
        "centre": view.size / 2,
        "images": image,
        "has_rotation": np.float64(has_pose),
        "has_betas": np.float64(has_betas),
        "has_both": np.float64(has_pose and has_betas),
        "has_camera": np.float64(known_camera and has_betas),
        "has_joints2d": np.float64((points[:, 2] > 0).any()),
    }


def _image(
    sample: Sample, view: augment.View, crop: np.ndarray, augmentation: augment.Augmentation
) -> tuple[np.ndarray, np.ndarray]:
    """The crop (256, 256, 3) uint8, and a mask (256, 256) of its occluders."""
    where, record = sample.where, sample.record
    if not record["image"]:
        remedy = "build the dataset from a release with its pictures"
        raise InputError(where, "has no picture", remedy)
    size = tuple(int(side) for side in record["image_size"])
    matrix = view.crop_matrix(crop, CROP_SIZE)
    try:
        image = warp_file(record["image"], matrix, CROP_SIZE, size, augmentation.colour)
    except ValueError as error:
        remedy = "download this part of the release again and build with --skip-bad"
        raise InputError(where, str(error), remedy) from error
    if augmentation.occluders:
        return augment.occlude(image, augmentation)
    return image, np.zeros((CROP_SIZE, CROP_SIZE), bool)


def _named(points: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Keypoints of BODY44 by index in one half, or in the other where they are unknown."""
    padded = np.concatenate([points, np.zeros_like(points[:1])])  # index -1
    one, other = padded[first], padded[second]
    return np.where(one[:, -1:] > 0, one, other)

"""Photos of labelled people as training samples: a weighted mixture of built datasets, cropped and
augmented.

Which record a sample is and how it is changed follow from (seed, global sample number) alone. Rows
hold which labels are known: a label that a dataset lacks is zero and has no weight.
"""

import dataclasses
import difflib
import pathlib
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Protocol

import jax
import numpy as np
import smpl_jax
from jaxtyping import Float
from scipy.spatial.transform import Rotation
from smpl_jax.keypoints import BODY44, BODY44_FLIP, SMPL24, SMPL24_FLIP

from genhmr_jax.core.encoders import CROP_SIZE
from genhmr_jax.data import augment
from genhmr_jax.data.packing import PersonIndex, pack
from genhmr_jax.data.poses import sample_hash
from genhmr_jax.data.sources import SOURCES
from genhmr_jax.data.rows import Known, Rows
from genhmr_jax.geometry.camera import CropCamera
from genhmr_jax.geometry.keypoints import DETECTED, match
from genhmr_jax.geometry.warp import warp_file
from genhmr_jax.io.errors import InputError

RENDERED = "rendered"  # the part of a mixture that is rendered when it is asked for
MIXTURES: dict[str, dict[str, float]] = {
    "hmr2": {
        "hmr2_h36m": 0.1, "hmr2_mpii": 0.1, "hmr2_coco": 0.1, "hmr2_coco_vitpose": 0.1, "hmr2_mpi_inf": 0.02, "hmr2_ava": 0.19,
        "hmr2_aic": 0.19, "hmr2_insta": 0.2,
    },
    "tokenhmr": {
        "hmr2_h36m": 0.1, "hmr2_mpii": 0.1, "hmr2_coco": 0.1, "hmr2_coco_vitpose": 0.1, "bedlam": 0.18, "hmr2_mpi_inf": 0.04,
        "hmr2_ava": 0.13, "hmr2_aic": 0.13, "hmr2_insta": 0.12,
    },
    "tokenhmr_bedlam": {"bedlam": 1.0},
}  # fmt: skip
"""Datasets and weights of HMR2 (4D-Humans), TokenHMR, and TokenHMR trained on BEDLAM alone."""

_OPENPOSE = np.array(
    match(BODY44, [f"openpose_{name}" for name in DETECTED])
)  # -1: no such keypoint
_EXTRA = np.array(match(BODY44, DETECTED))
_LIMBS = [
    name if name.endswith(("hip", "knee", "ankle", "shoulder", "elbow", "wrist")) else ""
    for name in SMPL24
]
_JOINT_OPENPOSE = np.array(
    match(BODY44, [f"openpose_{name}" for name in _LIMBS])
)  # what "neck" or "head" means differs between datasets
_JOINT_EXTRA = np.array(match(BODY44, _LIMBS))
_HIPS = [SMPL24.index("left_hip"), SMPL24.index("right_hip")]
_UNKNOWN_POSE = np.tile(np.eye(3, dtype=np.float32), (24, 1, 1))


class Records(Protocol):
    """Person records (data/sources/records.py) by number: a list, or a built dataset."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A part of a mixture."""

    name: str
    records: Records
    weight: float = 1.0


def parse_mixture(text: str) -> dict[str, float]:
    """Dataset -> weight of "hmr2", "tokenhmr", "tokenhmr_bedlam", or of "NAME=WEIGHT,NAME=WEIGHT"
    (a NAME alone weighs 1).

    A NAME is a dataset of people, or "rendered".

    Raises:
      InputError: an unknown name, or a weight that is no positive number.
    """
    if text in MIXTURES:
        return dict(MIXTURES[text])
    known = sorted(
        [RENDERED, *(name for name, source in SOURCES.items() if source.kind == "people")]
    )
    mixture: dict[str, float] = {}
    for part in text.split(","):
        name, _, weight = part.strip().partition("=")
        if name not in known:
            near = difflib.get_close_matches(name, [*known, *MIXTURES], n=3) or [*MIXTURES, *known]
            raise InputError(
                f"mixture {text!r}",
                f"{name!r} is neither a mixture nor a dataset of people",
                f"did you mean {', '.join(near)}?",
            )
        try:
            mixture[name] = float(weight or 1)
        except ValueError:
            mixture[name] = 0.0
        if not 0 < mixture[name] < np.inf:
            raise InputError(
                f"mixture {text!r}",
                f"{name} has the weight {weight!r}",
                "give a positive number, as in bedlam=0.2",
            )
    return mixture


def open_mixture(
    data_dir: str | pathlib.Path,
    mixture: str,
    split: str = "train",
    rendered: Callable[[str], Records] | None = None,
) -> list[Dataset]:
    """The built datasets of a mixture (see `parse_mixture`), below `data_dir`.

    Args:
      rendered: makes the records of "rendered" (data/synthetic/rendered.py) for a split, if the
        mixture names it.

    Raises:
      InputError: an unknown mixture, or a dataset that is not built.
    """

    def records(name: str) -> Records:
        if name == RENDERED:
            if rendered is None:
                raise InputError(
                    f"mixture {mixture!r}", "people cannot be rendered here", "leave rendered out"
                )
            return rendered(split)
        from genhmr_jax.data.builders import open_built  # imported late: needs tensorflow_datasets

        return open_built(data_dir, name, split)

    return [Dataset(name, records(name), weight) for name, weight in parse_mixture(mixture).items()]


class PeopleSource:
    """Augmented crops drawn from a mixture of datasets; a data.pipeline.Source.

    Args:
      datasets: with a weight each; they need not add up to 1.
      size: rows of the global batch.
      seed: of the order and of the augmentation.
      body: whose skeleton gives the joints of records with pose and shape.
      spec: of the augmentation.
      exact: names of the datasets whose bodies were measured or made; None leaves `Rows.exact`
        away.

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
        """Global sample numbers (b,) -> the dataset of each (its place in `datasets`), and the
        record in it."""
        chosen = np.searchsorted(self._upper_ends, sample_hash(numbers, self.seed), side="right")
        chosen = np.minimum(chosen, len(self.datasets) - 1)
        lengths = np.array([len(dataset.records) for dataset in self.datasets])[chosen]
        return chosen, (sample_hash(numbers, self.seed + 1) * lengths).astype(np.int64)

    def load(self, numbers: np.ndarray) -> Rows:
        """The samples with these global numbers (b,).

        Raises:
          InputError: a picture is missing or damaged; dataset, record and picture are named.
        """
        numbers = np.asarray(numbers)
        which, index = self.draw(numbers)
        samples: list = [None] * len(numbers)
        for place, dataset in enumerate(self.datasets):
            mine = np.flatnonzero(which == place)
            for at, sample in zip(mine, fetch(dataset, index[mine]), strict=True):
                samples[at] = (sample, augment.draw(self.spec, self.seed, int(numbers[at])))
        rows = rows_of(samples, self._skeleton)
        exact = None if self._exact is None else self._exact[which]
        return dataclasses.replace(rows, number=numbers.astype(np.uint32), exact=exact)

    def shapes(self) -> Rows:
        """Of one sample."""
        return batch_shapes(exact=self._exact is not None)


def all_batches(
    dataset: Dataset, size: int, limit: int, body: smpl_jax.SmplModel
) -> Iterator[Rows]:
    """Records of a dataset without augmentation, in batches of `size`, with `weight`: 0 where the
    last batch is padded.

    Args:
      limit: if there are more records, so many of them are taken, evenly spaced.
    """
    count, skeleton = min(limit, len(dataset.records)), Skeleton.of(body)
    chosen = np.linspace(0, len(dataset.records) - 1, count).astype(np.int64)
    for part in pack(PersonIndex(np.ones(count, np.int64)).counts, size):
        samples = [
            (sample, augment.Augmentation()) for sample in fetch(dataset, chosen[part.image])
        ]
        yield dataclasses.replace(rows_of(samples, skeleton), weight=part.weight)


@dataclasses.dataclass(frozen=True)
class Skeleton:
    """Rest joints of a body as a function of its shape, and their posing, in NumPy: rows are made
    in threads beside the devices.

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
        """Forward kinematics (Loper et al. 2015, eq. 4): joints of the posed body relative to the
        model's origin, metres."""
        turns, joints = rotmats.copy(), rest.copy()
        for joint, parent in enumerate(self.parents):
            if parent >= 0:
                turns[:, joint] = turns[:, parent] @ rotmats[:, joint]
                joints[:, joint] = joints[:, parent] + np.einsum(
                    "bij,bj->bi", turns[:, parent], rest[:, joint] - rest[:, parent]
                )
        return joints


def batch_shapes(*rows: int, exact: bool = False) -> Rows:
    """What a PeopleSource loads for a batch of `rows`; without an argument, one sample."""
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
    """A record, and where it comes from, for errors."""

    where: str
    record: dict[str, Any]


def fetch(dataset: Dataset, indices: np.ndarray) -> list[Sample]:
    """Records of a dataset by number; in one read where it can."""
    records, indices = dataset.records, [int(index) for index in indices]
    if not indices:
        return []
    found = (
        records.__getitems__(indices)
        if hasattr(records, "__getitems__")
        else [records[index] for index in indices]
    )
    return [
        Sample(f"{dataset.name}: record {i} ({r['image_name']})", r)
        for i, r in zip(indices, found, strict=True)
    ]


def rows_of(samples: Sequence[tuple[Sample, augment.Augmentation]], skeleton: Skeleton) -> Rows:
    """Rows of records and of what is done to each, without numbers.

    joints are relative to an origin of the release's own where they are measured (the loss aligns
    them), keypoints are the labelled ones that are in the crop and not behind an occluder.
    """
    rotvecs = np.stack(
        [
            np.concatenate([s.record["global_orient"], s.record["body_pose"]]).reshape(24, 3)
            for s, _ in samples
        ]
    )
    rotmats = Rotation.from_rotvec(rotvecs.reshape(-1, 3)).as_matrix().reshape(-1, 24, 3, 3)
    made = [_row(*sample, turns, skeleton) for sample, turns in zip(samples, rotmats, strict=True)]
    rows = {name: np.stack([row[name] for row in made]) for name in made[0]}
    # A pose with its shape says where all joints are; else what was measured.
    exact = rows.pop("has_both")[:, None] > 0
    posed = skeleton.posed(skeleton.rest(rows["betas"]), rows["rotmats"])
    rows["joints"] = np.where(exact[..., None], posed, rows["joints"])
    rows["joints_confidence"] = np.where(exact, 1.0, rows["joints_confidence"])
    known = rows["joints_confidence"] > 0
    rows["has_joints3d"] = (known[:, 0] | known[:, _HIPS].all(1)) & (
        known.sum(1) > 1
    )  # there is something to align by
    view = CropCamera(*(rows.pop(name) for name in ("crop", "focal", "centre")))
    weak = view.weak(rows.pop("translation"))
    rows["weak_camera"] = np.where(rows["has_camera"][:, None] > 0, weak, 0.0)
    labels = Known(
        **{field.name: rows.pop(f"has_{field.name}") for field in dataclasses.fields(Known)}
    )
    single = lambda x: x if x.dtype == np.uint8 else x.astype(np.float32)
    return jax.tree.map(single, Rows(view=view, known=labels, **rows))


def _row(
    sample: Sample,
    augmentation: augment.Augmentation,
    rotmats: Float[np.ndarray, "24 3 3"],
    skeleton: Skeleton,
) -> dict[str, np.ndarray]:
    """One row of a record whose pose is `rotmats`, float64; "has_both" and "translation" are for
    `rows_of`."""
    record = sample.record
    intrinsics = record["intrinsics"] if record["has_intrinsics"] else None
    view = augment.view_of(record["image_size"], intrinsics, augmentation)
    crop = view.crop(augment.crop_square(record["box"], record["keypoints2d"], augmentation))
    image, hidden = _image(sample, view, crop, augmentation)

    points = _named(
        view.labels(record["keypoints2d"].astype(np.float64), BODY44_FLIP), _OPENPOSE, _EXTRA
    )
    inside = (points[:, :2] - crop[:2] + crop[2] / 2) * (CROP_SIZE / crop[2])  # crop px
    seen = ((inside >= 0) & (inside < CROP_SIZE)).all(-1) & (points[:, 2] > 0)
    x, y = np.clip(inside, 0, CROP_SIZE - 1).astype(int).T
    seen &= ~hidden[y, x]

    joints = view.labels(record["joints24_3d"].astype(np.float64), SMPL24_FLIP)
    if not (joints[:, 3] > 0).any():
        joints = _named(
            view.labels(record["keypoints3d"].astype(np.float64), BODY44_FLIP),
            _JOINT_OPENPOSE,
            _JOINT_EXTRA,
        )

    has_pose, has_betas = record["has_pose"] > 0, record["has_betas"] > 0
    betas = record["betas"].astype(np.float64) * has_betas
    pelvis = skeleton.rest(betas[None])[0, 0]
    known_camera = record["has_translation"] > 0 and record["has_intrinsics"] > 0
    translation = (
        view.translation(record["translation"].astype(np.float64), pelvis)
        if known_camera
        else np.array([0.0, 0.0, 1.0])
    )
    return {
        "rotmats": view.rotmats(rotmats) if has_pose else _UNKNOWN_POSE,
        "betas": betas,
        "joints": joints[:, :3],
        "joints_confidence": np.minimum(joints[:, 3], 1.0),
        "keypoints": points * seen[:, None],
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
        "has_camera": np.float64(
            known_camera and has_betas
        ),  # where a shape is unknown, so is the pelvis that the translation places
        "has_joints2d": np.float64((points[:, 2] > 0).any()),
    }


def _image(
    sample: Sample, view: augment.View, crop: np.ndarray, augmentation: augment.Augmentation
) -> tuple[np.ndarray, np.ndarray]:
    """The crop (256, 256, 3) uint8, and where occluders hide it."""
    where, record = sample.where, sample.record
    if not record["image"]:
        raise InputError(
            where, "has no picture", "build the dataset from a release with its pictures"
        )
    size = tuple(int(side) for side in record["image_size"])
    try:
        image = warp_file(
            record["image"], view.crop_matrix(crop, CROP_SIZE), CROP_SIZE, size, augmentation.colour
        )
    except ValueError as error:
        raise InputError(
            where, str(error), "download this part of the release again and build with --skip-bad"
        ) from error
    if augmentation.occluders:
        return augment.occlude(image, augmentation)
    return image, np.zeros((CROP_SIZE, CROP_SIZE), bool)


def _named(points: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Keypoints of BODY44 by their index in one of its halves, or where they are unknown there, in
    the other; else zero."""
    padded = np.concatenate([points, np.zeros_like(points[:1])])  # index -1
    one, other = padded[first], padded[second]
    return np.where(one[:, -1:] > 0, one, other)

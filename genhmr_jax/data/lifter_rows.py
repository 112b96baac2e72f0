"""Rows on which the lifter is trained: BlazePose's outputs in the regions of rendered people.

    python -m genhmr_jax.data.features --images runs/images --out runs/lifter_rows \\
        --encoder early --split train

Each image and its mirror image give a row, if BlazePose finds a person there. Each has its own
error of the region. In split train the crop's colours, sharpness and noise are changed at random.
"""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import smpl_jax
from jaxtyping import Array, Float, UInt
from PIL import Image, ImageFilter

from genhmr_jax.data.feature_set import StoredSet
from genhmr_jax.data.known_regions import known_region
from genhmr_jax.data.synthetic.generate import Sample, mirrored
from genhmr_jax.detect import blazepose
from genhmr_jax.detect.blazepose import LANDMARKS
from genhmr_jax.detect.pose_estimate import IS_PERSON
from genhmr_jax.geometry.keypoints import DETECTED, MIN_KEYPOINTS

ENCODER = "early"
"""Name of these rows among the encoders of data/features.py: they hold blazepose.EARLY."""
# Standard deviations and shares of the random changes of a crop.
GAIN, GAMMA, TINT, GREY, BLUR, NOISE = 0.25, 0.25, 0.08, 0.1, 0.3, 0.3
_to_matrices = jax.jit(smpl_jax.rotations.axis_angle_to_matrix)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LifterRows:
    """B people in regions.

    Attributes:
      early: float16, blazepose.EARLY.
      landmarks, world, heat, region: see blazepose.Evidence.
      points2d: px of the image, true.
      rotmats: true joint rotations, the root's in camera coordinates.
      betas: true shape.
      number: uint32, the global sample number, from which random keys follow.
      weight: in mean errors; 0 in rows that pad the last batch.
    """

    early: Float[Array, "B 16 16 88"]
    landmarks: Float[Array, "B 39 5"]
    world: Float[Array, "B 39 3"]
    heat: Float[Array, "B 39 6"]
    region: Float[Array, "B 4"]
    points2d: Float[Array, "B 23 2"]
    rotmats: Float[Array, "B 24 3 3"]
    betas: Float[Array, "B 10"]
    number: UInt[Array, "B"] | None = None
    weight: Float[Array, "B"] | None = None

    @property
    def size(self) -> int:
        """B."""
        return self.betas.shape[0]


def shapes(rows: int) -> LifterRows:
    """A training batch as ShapeDtypeStructs."""
    shape = lambda *sizes, kind=jnp.float32: jax.ShapeDtypeStruct((rows, *sizes), kind)
    return LifterRows(
        early=shape(*blazepose.EARLY_SHAPE, kind=jnp.float16),
        landmarks=shape(LANDMARKS, 5),
        world=shape(LANDMARKS, 3),
        heat=shape(LANDMARKS, 6),
        region=shape(4),
        points2d=shape(len(DETECTED), 2),
        rotmats=shape(24, 3, 3),
        betas=shape(10),
        number=shape(kind=jnp.uint32),
    )


class LifterSet(StoredSet[LifterRows]):
    """The lifter's rows of a split."""

    def __init__(self, folder: str | pathlib.Path):
        super().__init__(folder, ENCODER, lambda arrays: LifterRows(**arrays))


def part_arrays(samples: list[Sample], seed: list[int], training: bool) -> dict[str, np.ndarray]:
    """The rows of some images, as arrays by name; {} if nobody is found.

    Args:
      seed: of the random changes.
      training: whether colours, sharpness and noise are changed.
    """
    found = []
    for number, sample in enumerate(samples):
        rng = np.random.default_rng([*seed, number])
        for person in (sample, mirrored(sample)):
            if (person.keypoints[:, 2] > 0).sum() < MIN_KEYPOINTS:
                continue
            region = known_region(person.keypoints[:, :2], rng)
            crop = region.crop(person.image)
            crop = changed(crop, rng) if training else crop
            seen = blazepose.landmarks_of_crop(crop, region)
            if seen.person >= IS_PERSON:
                found.append(_row(person, seen))
    return {name: np.stack([row[name] for row in found]) for name in found[0]} if found else {}


def changed(
    crop: Float[np.ndarray, "S S 3"], rng: np.random.Generator
) -> Float[np.ndarray, "S S 3"]:
    """A crop, 0..1, with other light, colours, sharpness and noise."""
    # 1. Light and colours.
    gain, gamma = np.exp(GAIN * rng.standard_normal()), np.exp(GAMMA * rng.standard_normal())
    tint = np.exp(TINT * rng.standard_normal(3))
    out = np.clip(gain * tint * crop**gamma, 0, 1)
    if rng.random() < GREY:
        out = np.repeat(out @ np.array([[0.299], [0.587], [0.114]]), 3, -1)
    # 2. Sharpness and noise.
    if rng.random() < BLUR:
        soft = Image.fromarray(np.round(255 * out).astype(np.uint8))
        soft = soft.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.8)))
        out = np.asarray(soft, np.float32) / 255.0
    if rng.random() < NOISE:
        out = out + rng.uniform(0.005, 0.05) * rng.standard_normal(out.shape)
    return np.clip(out, 0, 1).astype(np.float32)


def _row(sample: Sample, seen: blazepose.Landmarks) -> dict[str, np.ndarray]:
    evidence = seen.evidence
    angles = np.concatenate([sample.global_orient, sample.body_pose]).reshape(24, 3)
    row = {
        "landmarks": evidence.landmarks,
        "world": evidence.world,
        "heat": evidence.heat,
        "region": evidence.region,
        "points2d": sample.keypoints[:, :2],
        "rotmats": np.asarray(_to_matrices(angles)),
        "betas": sample.betas,
    }
    halves = {"early": np.asarray(seen.early, np.float16)}
    return {name: np.asarray(value, np.float32) for name, value in row.items()} | halves

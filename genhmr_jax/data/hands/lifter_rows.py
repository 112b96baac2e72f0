"""Rows on which the lifter of hands is trained: rendered hands, and the landmark network's outputs.

    python -m genhmr_jax.data.hands.lifter_rows --poses hand_poses.npz --backgrounds DIR \\
        --out runs/hand_lifter_rows/train --count 20000 --split train --seed 1

A picture gives a row for each of COPIES crops. Each has its own error of the region, and in split
train the crop's colours, sharpness and noise are changed at random. All hands are right hands.
Parts that exist are kept, so that a stopped run continues.
"""

import argparse
import dataclasses
import functools
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt
from smpl_jax.keypoints import HAND21

from genhmr_jax.data.feature_set import StoredSet, join_parts
from genhmr_jax.data.hands.pictures import SPLITS, Pictures, write_parts
from genhmr_jax.data.hands.render import HandSample
from genhmr_jax.data.hands.write import MIN_PRESENCE, moved_region
from genhmr_jax.data.lifter_rows import changed
from genhmr_jax.detect import hand_landmarks as network
from genhmr_jax.io.atomic import atomic_path
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.paths import path_argument

ENCODER = "hand_early"
"""The form of these rows: they hold detect.hand_landmarks.EARLY."""
COPIES = {"train": 2, "val": 1}
_VERSION = 1  # of the rows; a part of another version is not used


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class HandLifterRows:
    """B right hands in regions, in the axes of the region.

    Attributes:
      early: float16, see detect.hand_landmarks.HandEstimate.
      landmarks, world: of the network, see detect.hand_landmarks.HandEstimate.
      points2d: true keypoints, in sides of the region from its middle.
      points3d: metres from the wrist.
      number: uint32, the global sample number, from which random keys follow.
      weight: in mean errors; 0 in rows that pad the last batch.
    """

    early: Float[Array, "B 14 14 64"]
    landmarks: Float[Array, "B 21 3"]
    world: Float[Array, "B 21 3"]
    points2d: Float[Array, "B 21 2"]
    points3d: Float[Array, "B 21 3"]
    number: UInt[Array, "B"] | None = None
    weight: Float[Array, "B"] | None = None

    @property
    def size(self) -> int:
        """B."""
        return self.landmarks.shape[0]


def shapes(rows: int) -> HandLifterRows:
    """A training batch as ShapeDtypeStructs."""
    shape = lambda *sizes, kind=jnp.float32: jax.ShapeDtypeStruct((rows, *sizes), kind)
    return HandLifterRows(
        early=shape(*network.EARLY_SHAPE, kind=jnp.float16),
        landmarks=shape(len(HAND21), 3),
        world=shape(len(HAND21), 3),
        points2d=shape(len(HAND21), 2),
        points3d=shape(len(HAND21), 3),
        number=shape(kind=jnp.uint32),
    )


class HandLifterSet(StoredSet[HandLifterRows]):
    """The rows of a split."""

    def __init__(self, folder: str | pathlib.Path):
        super().__init__(folder, ENCODER, lambda arrays: HandLifterRows(**arrays))


def write_rows(out: pathlib.Path, count: int, pictures: Pictures, workers: int = 1) -> int:
    """Render `count` pictures, and write the rows of the hands that are detected.

    Args:
      out: folder of the set.
      workers: processes.

    Returns:
      the number of rows.

    Raises:
      InputError: no such corpus, hand or backgrounds; no hand is detected; or `out` holds rows of
        other settings.
    """
    settings = {"version": _VERSION, "form": ENCODER} | pictures.settings()
    write = functools.partial(_write_rows, pictures)
    return join_parts(write_parts(out, count, settings, write, workers), out, ENCODER)


def _write_rows(pictures: Pictures, path: pathlib.Path, start: int, stop: int) -> None:
    """Write the rows of the pictures from `start` to `stop`."""
    found: list[dict[str, np.ndarray]] = []
    for number in range(start, stop):
        found += picture_rows(*pictures.draw(number), pictures.split)
    arrays = {name: np.stack([row[name] for row in found]) for name in found[0]} if found else {}
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, encoder=np.array(ENCODER), **arrays)


def picture_rows(
    sample: HandSample, rng: np.random.Generator, split: str
) -> list[dict[str, np.ndarray]]:
    """The rows of a picture, as arrays by name, of the crops in which a hand is detected."""
    starts = [moved_region(sample, rng) for _ in range(COPIES[split])]
    first = network.estimates(sample.image, starts)
    regions = [estimate.next_region() for estimate in first]
    crops = [region.crop(sample.image, network.SIZE) for region in regions]
    if split == "train":
        crops = [changed(crop, rng) for crop in crops]
    found = network.estimates_of_crops(crops, regions)
    return [_row(sample, seen) for seen in found if seen.presence >= MIN_PRESENCE]


def _row(sample: HandSample, seen: network.HandEstimate) -> dict[str, np.ndarray]:
    region, points = seen.region, sample.keypoints - sample.keypoints[:1]
    # From the axes of the image to those of the region.
    row = {
        "landmarks": seen.landmarks,
        "world": seen.world,
        "points2d": (sample.points2d - [region.x, region.y]) @ region.axes() / region.side,
        "points3d": np.concatenate([points[:, :2] @ region.axes(), points[:, 2:]], -1),
    }
    halves = {"early": np.asarray(seen.early, np.float16)}
    return {name: np.asarray(value, np.float32) for name, value in row.items()} | halves


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Write the rows of the lifter of hands.")
    about = "pose corpus of hands (npz); made-up: a few poses without a file"
    parser.add_argument("--poses", required=True, type=path_argument, help=about)
    about = "folder of photos; procedural backgrounds without"
    parser.add_argument("--backgrounds", type=path_argument, help=about)
    parser.add_argument("--out", type=path_argument, required=True, help="folder of the rows")
    parser.add_argument("--count", type=int, required=True, help="number of pictures")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", choices=SPLITS, required=True)
    about = "a hand of the package, or the path of MANO_RIGHT.pkl"
    parser.add_argument("--hand", default="free", type=path_argument, help=about)
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes")
    args = parser.parse_args()
    try:
        pictures = Pictures(args.poses, args.split, args.backgrounds, args.seed, args.hand)
        total = write_rows(pathlib.Path(args.out), args.count, pictures, args.workers)
        print(f"{total} rows of {args.count} pictures in {args.out}")
    except InputError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()

"""Writes stored rows of rendered hands: exact labels, and what the hand detector finds.

    python -m genhmr_jax.data.hands.write --poses hand_poses.npz --backgrounds DIR \\
        --out hand_images/train --count 8000 --split train

A row holds the detected keypoints and the landmark network's map in the region of its last pass,
or with --pixels the pixels around the hand, for a ViT that is trained (geometry/hand_pixels.py).
There is no search for palms: the first region is the true one with an error like that of the palm
detector. All pictures are of right hands. Left hands need no rows, because a left hand is recovered
in the mirror image, in which it is a right hand.

Picture i is a function of (split, seed, i). Parts that exist are kept, so that a stopped run
continues, and a larger --count extends a set.
"""

import argparse
import dataclasses
import functools
import os
import pathlib

import jax
import numpy as np
from smpl_jax.rotations import axis_angle_to_matrix

from genhmr_jax.data.hands.parts import PartRow, joined_parts, write_part
from genhmr_jax.data.hands.pictures import SPLITS, Pictures, write_parts
from genhmr_jax.data.hands.render import HandSample
from genhmr_jax.data.hands.stored import PIXELS
from genhmr_jax.data.rows import Rows
from genhmr_jax.detect import hand_landmarks, hand_lifter
from genhmr_jax.detect import hands as detector
from genhmr_jax.detect.blazepose import Region
from genhmr_jax.detect.hand_landmarks import SIZE
from genhmr_jax.geometry.camera import CropCamera, crop_around
from genhmr_jax.geometry.hand_crop import upright_region
from genhmr_jax.geometry.hand_pixels import hand_pixels
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.paths import path_argument

PASSES = 2
MIN_PRESENCE = 0.5
# Error of the first region: shift in sides, logarithm of the side, angle in radians.
REGION_DEVIATION = np.array([0.07, 0.07, 0.12, 0.2])
_VERSION = 5  # of the pictures and rows; a part of another version is not used
_to_matrices = jax.jit(axis_angle_to_matrix)


def write_rows(
    out: pathlib.Path,
    count: int,
    poses: str,
    split: str,
    *,
    backgrounds: str | pathlib.Path | None = None,
    seed: int = 0,
    hand: str = "free",
    pixels: bool = False,
    workers: int = 1,
) -> int:
    """Render `count` hands and write the rows of those that are detected, as a FeatureSet.

    Beside the arrays of the set, region.npy (N, 4) has the region of each map: x, y, side in px and
    angle in radians.

    Args:
      out: folder of the set.
      count: of pictures.
      poses: corpus of data.hands.corpus.
      split: "train" or "val", of the corpus.
      backgrounds: folder of photos; None: procedural ones.
      seed: of the pictures.
      hand: a right hand, see load_hand.
      pixels: the rows hold pixels in place of maps.
      workers: processes.

    Returns:
      the number of rows. The other pictures have a presence below MIN_PRESENCE.

    Raises:
      InputError: no such corpus, hand or backgrounds; no hand is detected; or `out` holds rows of
        other settings.
    """
    pictures = Pictures(poses, split, backgrounds, seed, hand)
    form = PIXELS if pixels else detector.ENCODER
    settings = {"version": _VERSION, "form": form} | pictures.settings()
    write = functools.partial(_write_rows, pictures, form)
    return joined_parts(write_parts(out, count, settings, write, workers), out, form)


def _write_rows(pictures: Pictures, form: str, path: pathlib.Path, start: int, stop: int) -> None:
    """Write the rows of the pictures from `start` to `stop`."""
    found = []
    for number in range(start, stop):
        found += detected_row(*pictures.draw(number), pixels=form == PIXELS)
    write_part(path, found, form)


def detected_row(
    sample: HandSample, rng: np.random.Generator, *, pixels: bool = False
) -> list[PartRow]:
    """The row of a picture, or none if no hand is detected in its true region."""
    detected = in_true_region(sample, rng)
    if detected.scores[0] < MIN_PRESENCE:
        return []
    return [(row_of(sample, detected, pixels=pixels), detected.regions[0])]


def in_true_region(sample: HandSample, rng: np.random.Generator) -> detector.Hands:
    """The detector's estimate (one hand) in the true region, which is moved at random first."""
    region = moved_region(sample, rng)
    for _ in range(PASSES):
        (estimate,) = hand_landmarks.estimates(sample.image, [region])
        region = estimate.next_region()
    lifted = detector.two_looks(sample.image, [estimate], hand_lifter.lifted([estimate]))
    return detector.rows_of([estimate], lifted, sample.image.shape[:2])


def moved_region(sample: HandSample, rng: np.random.Generator) -> Region:
    """The true region of a hand with a random error like that of the palm detector."""
    x, y, log_side, angle = REGION_DEVIATION * rng.standard_normal(4)
    true = hand_landmarks.next_region(sample.points2d)
    middle = true.to_image(SIZE * (0.5 + np.array([x, y])), SIZE)
    return Region(*middle, true.side * float(np.exp(log_side)), true.angle + angle)


def row_of(sample: HandSample, detected: detector.Hands, *, pixels: bool = False) -> Rows:
    """The row of a picture, without a row axis.

    Args:
      sample: the picture and its labels.
      detected: one hand.
      pixels: the row holds the pixels in place of the map.
    """
    keypoints, lifted = detected.keypoints[0], detected.keypoints3d[0]
    camera = sample.camera
    view = CropCamera(
        crop=crop_around(keypoints[:, :2], keypoints[:, 2]),
        focal=np.array(camera.focal, np.float32),
        centre=np.asarray(camera.centre, np.float32),
    )
    row = Rows(
        view=view,
        rotmats=np.asarray(_to_matrices(sample.pose.reshape(16, 3))),
        betas=sample.betas,
        joints=sample.joints,
        keypoints=keypoints,
        keypoints3d=lifted - lifted[:1],
        points2d=sample.points2d,
        weak_camera=view.weak(np.asarray(camera.translation, np.float32)),
    )
    row = jax.tree.map(np.float32, row)
    if pixels:
        region = upright_region(row.keypoints)[None]
        images = hand_pixels(sample.image, region, np.ones(1, bool), middle=0.0)
        return dataclasses.replace(row, images=images[0])
    return dataclasses.replace(row, maps=[detected.features[0].astype(np.float16)])


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Write stored rows of rendered hands.")
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
    about = "store the pixels around the hand, for a model with a ViT, and not the network's map"
    parser.add_argument("--pixels", action="store_true", help=about)
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes")
    args = parser.parse_args()
    try:
        out, chosen = pathlib.Path(args.out), (args.count, args.poses, args.split)
        more = dict(backgrounds=args.backgrounds, seed=args.seed, hand=args.hand)
        more |= dict(pixels=args.pixels, workers=args.workers)
        total = write_rows(out, *chosen, **more)
        print(f"{total} rows of {args.count} pictures in {out}")
    except InputError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()

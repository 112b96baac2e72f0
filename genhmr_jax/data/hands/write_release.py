"""Writes stored rows of the hands of a released dataset, to train MaskHand on photos.

    python -m genhmr_jax.data.hands.write_release --release freihand --manual-dir downloads \\
        --split training --hand MANO_RIGHT.pkl --out hand_rows/train --pixels

The rows are those of data/hands/write.py, and hold the same: detected keypoints, and a map or
pixels. The labels are those of the MANO pose and shape of the release. A record is skipped if it
has none, if the hand that they give is not where its keypoints are, or if no hand is detected. A
left hand becomes the right hand of the mirror image, as in recover/hands.py; its shape stays the
same, and its keypoints tell whether that is true.
"""

import argparse
import functools
import hashlib
import itertools
import pathlib
from collections.abc import Callable, Iterable

import numpy as np
import smpl_jax
from tqdm import tqdm

from genhmr_jax.data.hands.parts import PART, check_settings, joined_parts, write_part
from genhmr_jax.data.hands.releases import find
from genhmr_jax.data.hands.releases.record import HandRecord, full_pose
from genhmr_jax.data.hands.render import HandCamera, HandSample, posed
from genhmr_jax.data.hands.stored import PIXELS
from genhmr_jax.data.hands.write import detected_row
from genhmr_jax.data.sources.source import Report
from genhmr_jax.detect import hands as detector
from genhmr_jax.geometry.hand import (
    HandPca,
    load_hand,
    load_hand_pca,
    mirror_points,
    mirror_pose,
)
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.paths import path_argument

FARTHEST = 0.01
"""Metres: mean distance of the keypoints of the labelled hand from the labelled keypoints, above
which a record is skipped."""
_SQUARE = 0.01  # relative difference of the two focal lengths
_VERSION = 1


def sample_of(
    record: HandRecord, hand: smpl_jax.SmplModel, pca: Callable[[bool], HandPca] | None = None
) -> HandSample:
    """A record as a picture of a right hand with its labels.

    Args:
      record: with pose, shape, camera, and a wrist or a translation.
      hand: the right hand whose pose and shape they are: MANO's.
      pca: gives the components of the right hand (True) or of the left one (False).

    Raises:
      InputError: a label is missing, the pixels are not square, the image is damaged, or the hand
        of the labels is not where the labelled keypoints are.
    """
    if record.betas is None or record.intrinsics is None:
        raise InputError(record.name, "has no shape or no camera", "leave it out")
    focal, other = record.intrinsics[0, 0], record.intrinsics[1, 1]
    if abs(focal / other - 1) > _SQUARE:
        raise InputError(record.name, f"has focal lengths {focal} and {other}", "leave it out")
    needs_pca = record.pose is not None and record.pose_form != "flat" and pca is not None
    pose = full_pose(record, pca(record.right) if needs_pca else None).reshape(16, 3)
    image, centre = record.read(), record.intrinsics[:2, 2].copy()
    # 1. A left hand in the mirror image.
    same = lambda points: points
    mirrored = same if record.right else lambda points: np.asarray(mirror_points(points))
    if not record.right:
        image, pose = np.ascontiguousarray(image[:, ::-1]), np.asarray(mirror_pose(pose))
        centre[0] = image.shape[1] - centre[0]
    # 2. The hand of the labels, in the picture.
    _, joints, keypoints = posed(hand, pose.ravel(), record.betas)
    if record.trans is not None:
        translation = mirrored(record.trans)
    elif record.wrist is not None:
        translation = mirrored(record.wrist) - joints[0]
    else:
        raise InputError(record.name, "has no translation and no wrist", "leave it out")
    _check_keypoints(record, keypoints + translation, mirrored)
    camera = HandCamera(translation, float(focal), centre, max(image.shape[:2]))
    return HandSample(
        image=image,
        mask=np.zeros(image.shape[:2], bool),
        pose=pose.ravel(),
        betas=record.betas,
        camera=camera,
        joints=joints,
        keypoints=keypoints,
        points2d=camera.project(keypoints),
    )


def _check_keypoints(
    record: HandRecord, points: np.ndarray, mirrored: Callable[[np.ndarray], np.ndarray]
) -> None:
    """Raise InputError if points (21, 3), metres, are far from the labelled ones."""
    if record.keypoints3d is None:
        return
    known = np.ones(21, bool) if record.keypoints is None else record.keypoints[:, 2] > 0
    if known.any():
        gap = np.linalg.norm(points - mirrored(record.keypoints3d), axis=-1)[known].mean()
        if gap > FARTHEST:
            problem = f"its pose puts the keypoints {1000 * gap:.0f} mm from the labelled ones"
            raise InputError(record.name, problem, "is --hand the MANO file of the dataset?")


def write_release(
    out: pathlib.Path,
    records: Iterable[HandRecord],
    report: Report,
    hand: smpl_jax.SmplModel,
    settings: dict[str, object],
    pca: Callable[[bool], HandPca] | None = None,
    *,
    pixels: bool = False,
) -> tuple[int, int]:
    """Write the rows of records as a FeatureSet.

    Args:
      out: folder of the set.
      records: of a reader of data.hands.releases.
      report: of bad records; one that skips also skips those without usable labels.
      hand, pca: as of `sample_of`.
      settings: what the records depend on, JSON; a stopped run continues only with the same.
      pixels: the rows hold pixels in place of maps.

    Returns:
      the numbers of rows and of records.

    Raises:
      InputError: a bad record and a report that does not skip, no row at all, or `out` holds rows
        of other settings.
    """
    (out / "parts").mkdir(parents=True, exist_ok=True)
    sha = hashlib.sha256(np.ascontiguousarray(hand.template).tobytes()).hexdigest()[:16]
    form = PIXELS if pixels else detector.ENCODER
    check_settings(
        out / "settings.json", settings | {"version": _VERSION, "hand": sha, "form": form}
    )
    files, count, records = [], 0, iter(records)
    while part := list(itertools.islice(records, PART)):
        start, count = count, count + len(part)
        files.append(out / "parts" / f"{start:07d}-{count:07d}.npz")
        if files[-1].is_file():
            continue
        found = []
        for number, record in enumerate(part, start):
            with report.skipping():
                sample = sample_of(record, hand, pca)
                found += detected_row(sample, np.random.default_rng([number]), pixels=pixels)
        write_part(files[-1], found, form)
    return joined_parts(files, out, form) if files else 0, count


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Write stored rows of a dataset of hands.")
    add = parser.add_argument
    add("--release", required=True, help="freihand, ho3d, dexycb or interhand")
    add("--manual-dir", required=True, type=path_argument, help="folder of the releases")
    add("--split", required=True, help="of the release")
    add("--hand", required=True, type=path_argument, help="your MANO_RIGHT.pkl")
    add("--left-hand", type=path_argument, help="your MANO_LEFT.pkl, for poses of left hands")
    add("--out", required=True, type=path_argument, help="folder of the rows")
    add("--count", type=int, help="only the first N records")
    add("--pixels", action="store_true", help="store pixels, for a model with a ViT, and no maps")
    add("--skip-bad", action="store_true", help="skip records that cannot be used, and count them")
    args = parser.parse_args()
    try:
        source = find(args.release)
        report = source.report(args.skip_bad)
        records = source.records(args.manual_dir, args.split, report)
        records = tqdm(itertools.islice(records, args.count), unit=" hands", disable=None)
        files = {True: args.hand, False: args.left_hand or args.hand}
        rows, count = write_release(
            pathlib.Path(args.out),
            records,
            report,
            load_hand(args.hand),
            {"release": args.release, "split": args.split},
            functools.lru_cache(lambda right: load_hand_pca(files[right])),
            pixels=args.pixels,
        )
        print(f"{rows} rows of {count} records in {args.out}; {report.summary()}")
    except InputError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()

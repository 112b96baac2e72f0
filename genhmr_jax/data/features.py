"""Detections and encoder outputs of rendered images, computed once ahead of training.

    python -m genhmr_jax.data.features --images runs/images --out runs/features --split train

Images of split val go through the whole detector, as in inference. For training there is no search
for people: the person's region is the true one with an error like that of the detector. This takes
a third of the time. With an encoder, the mirror images are detected too.

feature_set.py reads them.
"""

import argparse
import concurrent.futures
import dataclasses
import multiprocessing
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import smpl_jax
from tqdm import tqdm

from genhmr_jax.core import encoders
from genhmr_jax.data import lifter_rows
from genhmr_jax.data.feature_set import join_parts
from genhmr_jax.data.known_regions import known_region
from genhmr_jax.data.rows import Rows, to_arrays
from genhmr_jax.data.synthetic.generate import Sample, mirrored
from genhmr_jax.data.synthetic.write import read_shard
from genhmr_jax.detect import detector
from genhmr_jax.detect.blazepose import Evidence
from genhmr_jax.detect.pose_estimate import IS_PERSON, PoseEstimate
from genhmr_jax.geometry.camera import CropCamera, crop_around
from genhmr_jax.geometry.crop import crop_image
from genhmr_jax.geometry.keypoints import MIN_CONFIDENCE, MIN_KEYPOINTS
from genhmr_jax.io.atomic import atomic_path
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.folders import find_files
from genhmr_jax.io.paths import path_argument

CHUNK = 32  # crops that are encoded at once
DETECTOR = "detector"  # the encoder whose output is the detector's evidence
_to_matrices = jax.jit(smpl_jax.rotations.axis_angle_to_matrix)


def compute(
    images: pathlib.Path, out: pathlib.Path, split: str, encoder: str, workers: int = 1
) -> int:
    """Detects, crops and encodes every image of a split.

    Images in which nobody is detected are left out. Each shard of images becomes one part, so that
    a stopped run continues where it was.

    Args:
      encoder: of core/encoders.py; "none" for keypoints alone.
      workers: processes.

    Returns:
      the number of rows.

    Raises:
      InputError: there are no images, nobody is detected in any, or the parts are of another
        encoder.
    """
    folder = out / split
    parts = folder / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    files = find_files(images / split, "*.npz")
    if not files:
        raise InputError(
            images / split,
            "holds no shards of synthetic images",
            "make them with python -m genhmr_jax.data.synthetic.write",
        )
    left = [file for file in files if not (parts / file.name).is_file()]
    jobs = [(file, parts / file.name, encoder, split == "train") for file in left]
    if workers > 1 and left:
        # Fresh processes: threads of JAX do not survive a fork.
        fresh = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(workers, fresh) as pool:
            running = [pool.submit(_compute_part, *job) for job in jobs]
            done = concurrent.futures.as_completed(running)
            for job in tqdm(done, total=len(running), unit="shard"):
                job.result()
    else:
        for job in tqdm(jobs, unit="shard"):
            _compute_part(*job)
    return join_parts([parts / file.name for file in files], folder, encoder)


def _compute_part(file: pathlib.Path, part: pathlib.Path, encoder: str, training: bool) -> None:
    """Writes the rows of one shard, with its encoder's output, into one .npz."""
    if encoder == lifter_rows.ENCODER:
        samples = [encoded.sample for encoded in read_shard(file)]
        arrays = lifter_rows.part_arrays(samples, [int(file.stem)], training)
        return _write_part(part, encoder, arrays)
    found, crops = [], []
    for number, encoded in enumerate(read_shard(file)):
        # Keypoints are mirrored in training (data/turns.py); an encoder's output cannot be.
        sample = encoded.sample
        both = (sample,) if encoder == "none" else (sample, mirrored(sample))
        rng = np.random.default_rng([int(file.stem), number])
        for person, pose in _in_known_regions(both, rng) if training else _detected(sample):
            row = _row(person, pose)
            if encoder == DETECTOR:
                row = dataclasses.replace(row, evidence=_stored(pose.evidence))
            elif encoder != "none":
                crops.append(crop_image(person.image, row.view.crop, encoders.CROP_SIZE))
            found.append(row)
    rows = jax.tree.map(lambda *x: np.stack(x), *found) if found else None
    if crops:
        chunks = [_encode(encoder, crops[i : i + CHUNK]) for i in range(0, len(crops), CHUNK)]
        levels = [np.concatenate(level) for level in zip(*chunks, strict=True)]
        # The pixels of the crops, for an encoder that is part of the model.
        trained = encoders.find(encoder).trained
        output = {"images": levels[0]} if trained else {"maps": levels}
        rows = dataclasses.replace(rows, **output)
    _write_part(part, encoder, {} if rows is None else to_arrays(rows))


def _write_part(part: pathlib.Path, encoder: str, arrays: dict[str, np.ndarray]) -> None:
    with atomic_path(part) as temporary, open(temporary, "wb") as opened:
        np.savez(opened, encoder=np.array(encoder), **arrays)


def _row(sample: Sample, pose: PoseEstimate) -> Rows:
    """The detected keypoints of a sample with its true labels, without a row axis."""
    keypoints = _sure(pose.keypoints)
    view = CropCamera(
        crop=crop_around(keypoints[:, :2], keypoints[:, 2]),
        focal=np.array(sample.focal, np.float32),
        centre=np.full(2, sample.image.shape[0] / 2, np.float32),
    )
    angles = np.concatenate([sample.global_orient, sample.body_pose]).reshape(24, 3)
    row = Rows(
        view=view,
        rotmats=np.asarray(_to_matrices(angles)),
        betas=sample.betas,
        joints=sample.joints - sample.translation,
        keypoints=keypoints,
        keypoints3d=pose.keypoints3d,
        points2d=sample.keypoints[:, :2],
        weak_camera=view.weak(np.asarray(sample.translation, np.float32)),
    )
    return jax.tree.map(np.float32, row)


def _stored(evidence: Evidence) -> Evidence:
    """Evidence in the types of DetectorFeatures.stored_shapes."""
    shapes = encoders.find(DETECTOR).stored_shapes(1)["evidence"]
    return jax.tree.map(lambda x, shape: np.asarray(x, shape.dtype), evidence, shapes)


def _sure(keypoints: np.ndarray) -> np.ndarray:
    """Keypoints (..., 3), all zero below the least confidence."""
    return np.where(keypoints[..., 2:] >= MIN_CONFIDENCE, keypoints, 0.0).astype(np.float32)


def _detected(sample: Sample) -> list[tuple[Sample, PoseEstimate]]:
    """The sample with the estimate of its person, or [] if the person is not found.

    People are found as in inference. Of several people it is the one closest to the visible true
    keypoints.
    """
    people = [person.pose for person in detector.find_people(sample.image, max_people=3)[0]]
    visible = sample.keypoints[:, 2] > 0
    if not people or not visible.any():
        return []
    keypoints = _sure(np.stack([pose.keypoints for pose in people]))
    both = visible & (keypoints[..., 2] > 0)
    distance = np.linalg.norm(keypoints[..., :2] - sample.keypoints[None, :, :2], axis=-1)
    mean = (distance * both).sum(1) / np.maximum(both.sum(1), 1)
    error = np.where(both.sum(1) >= MIN_KEYPOINTS, mean, np.inf)
    best = int(np.argmin(error))
    close = error[best] < np.ptp(sample.keypoints[:, :2], axis=0).max() / 4
    return [(sample, people[best])] if close else []


def _in_known_regions(
    samples: tuple[Sample, ...], rng: np.random.Generator
) -> list[tuple[Sample, PoseEstimate]]:
    """Each sample with the estimate in the region of its true keypoints, moved at random.

    Samples of which nothing is detected are left out.
    """
    found = []
    for sample in samples:
        if (sample.keypoints[:, 2] > 0).sum() < MIN_KEYPOINTS:
            continue
        pose = detector.in_region(sample.image, known_region(sample.keypoints[:, :2], rng))
        enough = (_sure(pose.keypoints)[:, 2] > 0).sum() >= MIN_KEYPOINTS
        if pose.person >= IS_PERSON and enough:
            found.append((sample, pose))
    return found


def _encode(encoder: str, crops: list[np.ndarray]) -> list[np.ndarray]:
    """Maps of up to CHUNK crops, float16, or the crops as uint8 for an encoder of the model."""
    if encoders.find(encoder).trained:
        return [np.round(255 * np.stack(crops)).astype(np.uint8)]
    pixels = np.zeros((CHUNK, *crops[0].shape), np.float32)
    pixels[: len(crops)] = crops
    maps = jax.device_get(encoders.find(encoder).encode(jnp.asarray(pixels)))
    return [np.asarray(m, np.float16)[: len(crops)] for m in maps]


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        description="Compute detections and image features ahead of training."
    )
    parser.add_argument(
        "--images",
        type=path_argument,
        required=True,
        help="folder that holds train/ and val/ shards",
    )
    parser.add_argument("--out", type=path_argument, required=True)
    parser.add_argument("--split", choices=("train", "val"), required=True)
    parser.add_argument(
        "--encoder",
        default="blazepose_full",
        help="none: keypoints alone; detector: the detector's outputs; early: for the lifter; "
        "blazepose_full: maps of crops; vit_s .. vit_h: the pixels of crops",
    )
    parser.add_argument("--workers", type=int, default=2, help="processes")
    args = parser.parse_args()
    try:
        out = pathlib.Path(args.out)
        count = compute(pathlib.Path(args.images), out, args.split, args.encoder, args.workers)
        print(f"{count} samples in {out / args.split}")
    except InputError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()

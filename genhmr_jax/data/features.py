"""Detections and encoder outputs of rendered images, computed once ahead of training.

    python -m genhmr_jax.data.features --images runs/images --out runs/features --split train

Images of split val go through the whole detector, as in inference. For training there is no search
for people: the person's region is the true one with an error like that of the detector. This takes
a third of the time. With an encoder, the mirror images are detected too.

The folder of a split holds one .npy for each array. They are memory-mapped, so that a set may be
larger than memory. crc32.npz has a checksum of each row of each array, which is checked when the
row is read.
"""

import argparse
import concurrent.futures
import contextlib
import dataclasses
import json
import multiprocessing
import pathlib
from typing import NoReturn

import jax
import jax.numpy as jnp
import numpy as np
import smpl_jax
from tqdm import tqdm

from genhmr_jax.core import encoders
from genhmr_jax.data.packing import pack
from genhmr_jax.data.poses import sample_hash
from genhmr_jax.data.rows import CHECKS, Rows, from_arrays, is_of_encoder, row_checks, to_arrays
from genhmr_jax.data.rows import write_checks as write_row_checks
from genhmr_jax.data.synthetic.generate import Sample, mirrored
from genhmr_jax.data.synthetic.write import read_shard
from genhmr_jax.detect import blazepose, detector
from genhmr_jax.detect.blazepose import Evidence
from genhmr_jax.detect.detector import PoseEstimate
from genhmr_jax.geometry.camera import CropCamera, crop_around
from genhmr_jax.geometry.crop import crop_image
from genhmr_jax.geometry.keypoints import DETECTED, MIN_CONFIDENCE, MIN_KEYPOINTS
from genhmr_jax.io.atomic import atomic_path, sync
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.folders import find_files
from genhmr_jax.io.npz_files import read_own_npz
from genhmr_jax.io.paths import path_argument

_AGAIN = "make it again with python -m genhmr_jax.data.features"
CHUNK = 32  # crops that are encoded at once
DETECTOR = "detector"  # the encoder whose output is the detector's evidence
# Error of the detector's region against that of the true keypoints, measured on rendered people:
# shift in sides, logarithm of the side, angle in radians.
REGION_MEAN = np.array([0.0, 0.003, -0.025, 0.0])
REGION_DEVIATION = np.array([0.012, 0.015, 0.06, 0.055])
_to_matrices = jax.jit(smpl_jax.rotations.axis_angle_to_matrix)


class FeatureSet:
    """The rows of a split: keypoints as detected, and the output of an encoder.

    Args:
      encoder: the expected one; "none" reads no encoder's output, None reads what is there.

    Raises:
      InputError: there is no finished set, it is of another encoder, or it is damaged.
    """

    def __init__(self, folder: str | pathlib.Path, encoder: str | None = None):
        self.folder, remedy = pathlib.Path(folder), _AGAIN.replace(" again", "")
        folder = self.folder
        if not (folder / "done.json").is_file():
            raise InputError(folder, "holds no finished feature set", remedy)
        try:
            meta = json.loads((folder / "done.json").read_text())
            self.size, self.encoder = int(meta["samples"]), str(meta["encoder"])
            names = [str(name) for name in meta["arrays"]]
        except (ValueError, KeyError, TypeError) as error:
            self._damaged("done.json", error)
        if encoder not in (None, "none", self.encoder):
            problem = f"holds the output of {self.encoder}, not of {encoder}"
            raise InputError(folder, problem, f"{remedy} --encoder {encoder}")
        wanted = [name for name in names if encoder != "none" or not is_of_encoder(name)]
        self._checks = read_own_npz(folder / CHECKS, "file of checksums", _AGAIN, wanted)
        self.arrays = {}
        for name in wanted:
            try:
                self.arrays[name] = np.load(folder / f"{name}.npy", mmap_mode="r")
                if len(self.arrays[name]) != self.size or len(self._checks[name]) != self.size:
                    raise ValueError(f"it has not {self.size} rows")
            except Exception as error:  # NumPy parses the header as Python: nearly any type
                self._damaged(f"{name}.npy", error)

    def rows(self, index: np.ndarray) -> Rows:
        """The rows at these indices. Raises InputError for one that is not as it was written."""
        found = {name: np.asarray(array[index]) for name, array in self.arrays.items()}
        for name, values in found.items():
            wrong = np.asarray(index)[row_checks(values) != self._checks[name][index]]
            if wrong.size:
                self._damaged(f"{name}.npy", f"the checksum of row {wrong[0]} differs")
        return from_arrays(found)

    def _damaged(self, file: str, reason: object) -> NoReturn:
        raise InputError(self.folder / file, f"is damaged ({reason})", _AGAIN)

    def source(self, size: int, seed: int) -> "FeatureSource":
        """Training batches of `size` rows, drawn at random."""
        return FeatureSource(self, size, seed)

    def all_batches(self, size: int) -> list[Rows]:
        """Every row once, in batches of `size`.

        `weight` (size,) float32 is 1, and 0 where the last batch is padded.
        """
        return [
            dataclasses.replace(self.rows(part.image), weight=part.weight)
            for part in pack(np.ones(self.size, np.int64), size)  # one person an image
        ]


@dataclasses.dataclass(frozen=True)
class FeatureSource:
    """Rows drawn from a feature set, each with its global number; a data.pipeline.Source."""

    features: FeatureSet
    size: int
    seed: int

    def load(self, numbers: np.ndarray) -> Rows:
        """The rows with these global numbers (b,)."""
        drawn = (sample_hash(numbers, self.seed) * self.features.size).astype(np.int64)
        number = np.asarray(numbers).astype(np.uint32)
        return dataclasses.replace(self.features.rows(drawn), number=number)

    def shapes(self) -> Rows:
        """Shapes of one row."""
        shape = lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
        return jax.tree.map(shape, self.load(np.zeros(1, np.int64)))


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
    arrays = {} if rows is None else to_arrays(rows)
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


def join_parts(parts: list[pathlib.Path], folder: pathlib.Path, encoder: str) -> int:
    """Joins parts into one .npy for each array, part by part; returns the number of rows."""
    # 1. Check that all parts hold the same arrays, and count their rows.
    counts, shapes = [], {}
    for part in parts:
        data = _read_part(part)
        if (made := str(data.pop("encoder"))) != encoder:
            problem = f"was made with the encoder {made}, not {encoder}"
            raise InputError(part, problem, "choose another --out")
        counts.append(len(data["focal"]) if "focal" in data else 0)
        found = {name: (array.shape[1:], array.dtype) for name, array in data.items()}
        if counts[-1] and found != (shapes or found):
            raise InputError(
                part,
                "holds other arrays than the parts before it: another version made it",
                "delete the parts of one version",
            )
        shapes = found or shapes
    if not shapes:
        raise InputError(folder, "nobody is detected in any image", "check the images")

    # 2. Copy. An earlier, smaller set counts as unfinished until all arrays are written again.
    (folder / "done.json").unlink(missing_ok=True)
    ends, total = np.cumsum(counts), sum(counts)
    checks = {name: np.zeros(total, np.uint32) for name in shapes}
    with contextlib.ExitStack() as stack:
        # Not memory maps: on a full disk, a write to one ends the process without a message.
        files = {n: stack.enter_context(open(folder / f"{n}.npy", "wb")) for n in shapes}
        for name, (shape, dtype) in shapes.items():
            descr = np.lib.format.dtype_to_descr(dtype)
            head = {"descr": descr, "fortran_order": False, "shape": (total, *shape)}
            np.lib.format.write_array_header_1_0(files[name], head)
        for part, end, count in zip(parts, ends, counts, strict=True):
            if count:
                data = _read_part(part)
                for name, file in files.items():
                    values = np.ascontiguousarray(data[name])
                    file.write(values.data)
                    checks[name][end - count : end] = row_checks(values)
    write_row_checks(folder, checks)
    sync(folder)
    meta = {"samples": total, "encoder": encoder, "arrays": sorted(shapes)}
    with atomic_path(folder / "done.json") as temporary:
        temporary.write_text(json.dumps(meta))
    return total


def _read_part(part: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of a part. Raises InputError if it is damaged."""
    arrays = read_own_npz(part, "part of a stored set", "delete it, and run again")
    if "encoder" not in arrays:
        raise InputError(part, "keys missing: encoder", "delete it, and run again")
    return arrays


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
        x, y, log_side, angle = REGION_MEAN + REGION_DEVIATION * rng.standard_normal(4)
        region = blazepose.region_of(sample.keypoints[:, :2], DETECTED)
        middle = region.to_image(blazepose.SIZE * (0.5 + np.array([x, y])))
        moved = blazepose.Region(*middle, region.side * np.exp(log_side), region.angle + angle)
        pose = detector.in_region(sample.image, moved)
        enough = (_sure(pose.keypoints)[:, 2] > 0).sum() >= MIN_KEYPOINTS
        if pose.person >= detector.IS_PERSON and enough:
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
        help="none: keypoints alone; detector: the detector's outputs; blazepose_full: maps of "
        "crops; vit_s .. vit_h: the pixels of crops",
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

"""Rendered images as training samples: what the frozen parts (detector, image encoder) make of them, computed once ahead of training.

    python -m genhmr_jax.data.features --images runs/images --out runs/features --split train

Of the split val every image is detected as in use. For training nobody is searched: the detector looks at the person in a region as wrong
as its own second look has them, which takes a third of the time; with an encoder also at the mirror image.
A split's folder holds one .npy for each array, read memory-mapped: a set may be larger than memory.
"""

import argparse
import concurrent.futures
import dataclasses
import json
import multiprocessing
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import smpl_jax
from tqdm import tqdm

from genhmr_jax import detect
from genhmr_jax.core import encoders
from genhmr_jax.data.packing import PersonIndex, pack
from genhmr_jax.data.poses import sample_hash
from genhmr_jax.data.synthetic.generate import Sample, mirrored
from genhmr_jax.data.synthetic.write import read_shard
from genhmr_jax.detect import blazepose
from genhmr_jax.detect.detector import Look
from genhmr_jax.geometry import camera
from genhmr_jax.geometry.crop import crop_image
from genhmr_jax.geometry.keypoints import DETECTED, MIN_CONFIDENCE, MIN_KEYPOINTS
from genhmr_jax.io.atomic import atomic_path
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.folders import find_files
from genhmr_jax.io.paths import path_argument
from genhmr_jax.nets.vit import is_vit

CHUNK = 32
OF_ENCODERS = ("map_", "look_", "images")  # how arrays begin that an encoder made
# How the region of the detector's second look lies to that of the true keypoints, on rendered people: shift in sides, logarithm of the
# side, angle in radians.
REGION_MEAN, REGION_DEVIATION = np.array([0.0, 0.003, -0.025, 0.0]), np.array([0.012, 0.015, 0.06, 0.055])
_to_matrices = jax.jit(smpl_jax.rotations.axis_angle_to_matrix)
_crop_around, _to_weak = jax.jit(camera.crop_around), jax.jit(camera.translation_to_weak)


class FeatureSet:
    """The samples of a split, in the form that data/views.py gives (keypoints as detected), with what an encoder made of them.

    Args:
      encoder: the one that is expected: "none" reads nothing of any encoder; None reads what there is.

    Raises:
      InputError: no finished set is there, or one of another encoder.
    """

    def __init__(self, folder: str | pathlib.Path, encoder: str | None = None):
        folder, remedy = pathlib.Path(folder), "make it with python -m genhmr_jax.data.features"
        if not (folder / "done.json").is_file():
            raise InputError(folder, "holds no finished feature set", remedy)
        meta = json.loads((folder / "done.json").read_text())
        self.size, self.encoder = meta["samples"], meta["encoder"]
        if encoder not in (None, "none", self.encoder):
            raise InputError(folder, f"holds what {self.encoder} makes of images, not {encoder}", f"{remedy} --encoder {encoder}")
        wanted = [name for name in meta["arrays"] if encoder != "none" or not name.startswith(OF_ENCODERS)]
        self.arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in wanted}
        self.people = PersonIndex(np.ones(self.size, np.int64))  # each image was kept for one person

    def rows(self, index: np.ndarray) -> dict:
        """The samples at these indices."""
        sample = {name: np.asarray(array[index]) for name, array in self.arrays.items() if not name.startswith("map_")}
        maps = [np.asarray(self.arrays[name][index]) for name in sorted(self.arrays) if name.startswith("map_")]
        return sample | ({"maps": maps} if maps else {})

    def source(self, size: int, seed: int) -> "FeatureSource":
        """Training batches of `size` samples, drawn at random."""
        return FeatureSource(self, size, seed)

    def all_batches(self, size: int) -> list[dict]:
        """Every sample once, in batches of `size`, with "weight" (size,) float32: 1, and 0 where the last batch is padded."""
        return [self.rows(part.image) | {"weight": part.weight} for part in pack(self.people.counts, size)]


@dataclasses.dataclass(frozen=True)
class FeatureSource:
    """Samples drawn from a feature set, each with its global "number" (b,) uint32; a data.pipeline.Source."""

    features: FeatureSet
    size: int
    seed: int

    def load(self, numbers: np.ndarray) -> dict:
        """The samples with these global numbers (b,)."""
        image, _ = self.features.people.locate((sample_hash(numbers, self.seed) * len(self.features.people)).astype(np.int64))
        return self.features.rows(image) | {"number": np.asarray(numbers).astype(np.uint32)}

    def shapes(self) -> dict:
        """Of one sample."""
        one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), self.features.rows(np.zeros(1, np.int64)))
        return one | {"number": jax.ShapeDtypeStruct((), np.uint32)}


def compute(images: pathlib.Path, out: pathlib.Path, split: str, encoder: str, workers: int = 1) -> int:
    """Detects, crops and encodes every image of a split; images in which the detector sees nobody are left out. Returns how many stay.

    One shard of images after the other becomes a part of its own: a stopped run goes on where it was.

    Args:
      encoder: of models/image_encoder.py, "none" for keypoints alone, or "look".
      workers: processes.

    Raises:
      InputError: no images there, none with a person that is found, or parts made with another encoder.
    """
    folder = out / split
    parts = folder / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    files = find_files(images / split, "*.npz")
    if not files:
        raise InputError(images / split, "holds no shards of synthetic images", "make them with python -m genhmr_jax.data.synthetic.write")
    left = [file for file in files if not (parts / file.name).is_file()]
    if workers > 1 and left:
        # Fresh processes: threads of JAX do not survive a fork.
        with concurrent.futures.ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
            jobs = [pool.submit(_compute_part, file, parts / file.name, encoder, split == "train") for file in left]
            for job in tqdm(concurrent.futures.as_completed(jobs), total=len(jobs), unit="shard"):
                job.result()
    else:
        for file in tqdm(left, unit="shard"):
            _compute_part(file, parts / file.name, encoder, split == "train")
    return _join([parts / file.name for file in files], folder, encoder)


def _compute_part(file: pathlib.Path, part: pathlib.Path, encoder: str, training: bool) -> None:
    """One shard's rows, and its encoder's maps (or crops), in one .npz."""
    rows, crops = [], []
    for number, encoded in enumerate(read_shard(file)):
        sample = encoded.sample
        # Keypoints are mirrored in training (data/turn.py); what an encoder made of a picture cannot be.
        both = (sample,) if encoder == "none" else (sample, mirrored(sample))
        seen = _looked_at(both, np.random.default_rng([int(file.stem), number])) if training else _detected(sample)
        for sample, look in seen:
            rows.append(_row(sample, look))
            if encoder == encoders.LOOK:
                rows[-1] |= {f"look_{name}": value for name, value in look.evidence.items()}
            elif encoder != "none":
                crops.append(crop_image(sample.image, rows[-1]["crop"], encoders.CROP_SIZE))
    arrays = {name: np.stack([row[name] for row in rows]).astype(np.float32) for name in rows[0]} if rows else {}
    arrays |= {name: arrays[name].astype(np.float16) for name in encoders.STORED if name in arrays}  # of looks
    maps = [_encode(encoder, crops[i : i + CHUNK]) for i in range(0, len(crops), CHUNK)]
    for level in range(len(maps[0]) if maps else 0):  # an encoder that trains with the model gets the pixels
        arrays["images" if is_vit(encoder) else f"map_{level}"] = np.concatenate([m[level] for m in maps])
    with atomic_path(part) as temporary, open(temporary, "wb") as opened:
        np.savez(opened, encoder=np.array(encoder), **arrays)


def _row(sample: Sample, look: Look) -> dict[str, np.ndarray]:
    """Labels of a sample around what was detected of it, in the form that data/views.py gives."""
    size, keypoints = np.full(2, sample.image.shape[0], np.float32), _sure(look.keypoints)
    crop = np.asarray(_crop_around(keypoints[:, :2], keypoints[:, 2]))
    pose = np.concatenate([sample.global_orient, sample.body_pose]).reshape(24, 3)
    place = (np.asarray(value, np.float32) for value in (sample.translation, crop, size, sample.focal))
    return {
        "rotmats": np.asarray(_to_matrices(pose)),
        "betas": sample.betas,
        "joints": sample.joints - sample.translation,
        "keypoints": keypoints,
        "keypoints3d": look.keypoints3d,
        "points2d": sample.keypoints[:, :2],
        "crop": crop,
        "weak_camera": np.asarray(_to_weak(*place)),
        "focal": np.float32(sample.focal),
        "image_size": size,
    }


def _join(parts: list[pathlib.Path], folder: pathlib.Path, encoder: str) -> int:
    """Parts -> one .npy for each array, written piece by piece: a set may be larger than memory. Returns the number of samples."""
    counts, shapes = [], {}
    for part in parts:
        with np.load(part, allow_pickle=False) as data:
            if str(data["encoder"]) != encoder:
                raise InputError(part, f"was made with the encoder {data['encoder']}, not {encoder}", "choose another --out")
            counts.append(len(data["focal"]) if "focal" in data else 0)
            found = {name: ((array := data[name]).shape[1:], array.dtype) for name in data.files if name != "encoder"}
            if counts[-1] and found != (shapes or found):
                raise InputError(
                    part, "holds other arrays than the parts before it: another version made it", "delete the parts of one version"
                )
            shapes = found or shapes
    if not shapes:
        raise InputError(folder, "the detector sees nobody in any image", "look at the images")
    (folder / "done.json").unlink(missing_ok=True)  # an earlier, smaller set: not done until all arrays are written again
    ends, total = np.cumsum(counts), sum(counts)
    whole = {n: np.lib.format.open_memmap(folder / f"{n}.npy", "w+", t, (total, *shape)) for n, (shape, t) in shapes.items()}
    for part, end, count in zip(parts, ends, counts, strict=True):
        if count:
            with np.load(part, allow_pickle=False) as data:
                for name, array in whole.items():
                    array[end - count : end] = data[name]
    for array in whole.values():
        array.flush()
    (folder / "done.json").write_text(json.dumps({"samples": total, "encoder": encoder, "arrays": sorted(shapes)}))
    return total


def _sure(keypoints: np.ndarray) -> np.ndarray:
    """Keypoints (..., 3), all zero where the detector is not sure enough."""
    return np.where(keypoints[..., 2:] >= MIN_CONFIDENCE, keypoints, 0.0).astype(np.float32)


def _detected(sample: Sample) -> list[tuple[Sample, Look]]:
    """The sample with the detector's look at its person, the one nearest to the visible true keypoints; [] if there is none."""
    people = detect.looks(sample.image, max_people=3)
    seen = sample.keypoints[:, 2] > 0
    if not people or not seen.any():
        return []
    keypoints = _sure(np.stack([look.keypoints for look in people]))
    both = seen & (keypoints[..., 2] > 0)
    distance = np.linalg.norm(keypoints[..., :2] - sample.keypoints[None, :, :2], axis=-1)
    error = np.where(both.sum(1) >= MIN_KEYPOINTS, (distance * both).sum(1) / np.maximum(both.sum(1), 1), np.inf)
    best = int(np.argmin(error))
    near = error[best] < np.ptp(sample.keypoints[:, :2], axis=0).max() / 4
    return [(sample, people[best])] if near else []


def _looked_at(samples: tuple[Sample, ...], rng: np.random.Generator) -> list[tuple[Sample, Look]]:
    """Each sample with a look in the region of its true keypoints, moved at random; without those of whom nothing is seen."""
    seen = []
    for sample in samples:
        if (sample.keypoints[:, 2] > 0).sum() < MIN_KEYPOINTS:
            continue
        x, y, log_side, angle = REGION_MEAN + REGION_DEVIATION * rng.standard_normal(4)
        region = blazepose.region_of(sample.keypoints[:, :2], DETECTED)
        middle = region.to_image(blazepose.SIZE * (0.5 + np.array([x, y])))
        look = detect.look_at(sample.image, blazepose.Region(*middle, region.side * np.exp(log_side), region.angle + angle))
        if look.person >= detect.IS_PERSON and (_sure(look.keypoints)[:, 2] > 0).sum() >= MIN_KEYPOINTS:
            seen.append((sample, look))
    return seen


def _encode(encoder: str, crops: list[np.ndarray]) -> list[np.ndarray]:
    """Maps of some crops, float16; for an encoder that trains with the model the crops themselves, uint8."""
    if is_vit(encoder):
        return [np.round(255 * np.stack(crops)).astype(np.uint8)]
    pixels = np.zeros((CHUNK, *crops[0].shape), np.float32)
    pixels[: len(crops)] = crops
    return [np.asarray(m, np.float16)[: len(crops)] for m in jax.device_get(encoders.encode(encoder, jnp.asarray(pixels)))]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Compute detections and image features ahead of training.")
    parser.add_argument("--images", type=path_argument, required=True, help="folder that holds train/ and val/ shards")
    parser.add_argument("--out", type=path_argument, required=True)
    parser.add_argument("--split", choices=("train", "val"), required=True)
    about = "or none: keypoints alone; look: what the lifter learns from; vit_s .. vit_h: the crops themselves"
    parser.add_argument("--encoder", default="blazepose_full", help=about)
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

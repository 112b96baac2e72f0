"""Rendered images as training samples: what the frozen parts (detector, image encoder) make of them, computed once ahead of training.

    python -m genhmr_jax.train.features --images runs/images --out runs/features --split train

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

from genhmr_jax import camera, detect
from genhmr_jax.atomic import atomic_path
from genhmr_jax.body.keypoints import MIN_CONFIDENCE, MIN_KEYPOINTS
from genhmr_jax.data.packing import PersonIndex, pack
from genhmr_jax.data.poses import sample_hash
from genhmr_jax.data.synthetic.generate import Sample
from genhmr_jax.data.synthetic.write import read_shard
from genhmr_jax.data.transforms import crop_image
from genhmr_jax.errors import InputError
from genhmr_jax.models import image_encoder
from genhmr_jax.models.vit import is_vit

CHUNK = 32
_to_matrices = jax.jit(smpl_jax.rotations.axis_angle_to_matrix)
_crop_around, _to_weak = jax.jit(camera.crop_around), jax.jit(camera.translation_to_weak)


class FeatureSet:
    """The samples of a split, in the form that data/views.py gives (keypoints as detected), with "maps" (or without, if asked)."""

    def __init__(self, folder: str | pathlib.Path, maps: bool = True):
        folder = pathlib.Path(folder)
        if not (folder / "done.json").is_file():
            raise InputError(folder, "holds no finished feature set", "make it with python -m genhmr_jax.train.features")
        meta = json.loads((folder / "done.json").read_text())
        self.size, self.encoder = meta["samples"], meta["encoder"]
        wanted = [name for name in meta["arrays"] if maps or not name.startswith("map_")]
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
      encoder: of models/image_encoder.py, or "none" for keypoints alone.
      workers: processes.

    Raises:
      InputError: no images there, none with a person that is found, or parts made with another encoder.
    """
    folder = out / split
    parts = folder / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    files = sorted((images / split).glob("*.npz"))
    if not files:
        raise InputError(images / split, "holds no shards of synthetic images", "make them with python -m genhmr_jax.data.synthetic.write")
    left = [file for file in files if not (parts / file.name).is_file()]
    if workers > 1 and left:
        # Fresh processes: threads of JAX do not survive a fork.
        with concurrent.futures.ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
            jobs = [pool.submit(_compute_part, file, parts / file.name, encoder) for file in left]
            for job in tqdm(concurrent.futures.as_completed(jobs), total=len(jobs), unit="shard"):
                job.result()
    else:
        for file in tqdm(left, unit="shard"):
            _compute_part(file, parts / file.name, encoder)
    return _join([parts / file.name for file in files], folder, encoder)


def _compute_part(file: pathlib.Path, part: pathlib.Path, encoder: str) -> None:
    """One shard's rows, and its encoder's maps (or crops), in one .npz."""
    rows, crops = [], []
    for encoded in read_shard(file):
        sample = encoded.sample
        if (found := _detected(sample)) is not None:
            rows.append(_row(sample, *found))
            if encoder != "none":
                crops.append(crop_image(sample.image, rows[-1]["crop"], image_encoder.CROP_SIZE))
    arrays = {name: np.stack([row[name] for row in rows]).astype(np.float32) for name in rows[0]} if rows else {}
    maps = [_encode(encoder, crops[i : i + CHUNK]) for i in range(0, len(crops), CHUNK)]
    for level in range(len(maps[0]) if maps else 0):  # an encoder that trains with the model gets the pixels
        arrays["images" if is_vit(encoder) else f"map_{level}"] = np.concatenate([m[level] for m in maps])
    with atomic_path(part) as temporary, open(temporary, "wb") as opened:
        np.savez(opened, encoder=np.array(encoder), **arrays)


def _row(sample: Sample, keypoints: np.ndarray, keypoints3d: np.ndarray) -> dict[str, np.ndarray]:
    """Labels of a sample around what was detected of it, in the form that data/views.py gives."""
    size = np.full(2, sample.image.shape[0], np.float32)
    crop = np.asarray(_crop_around(keypoints[:, :2], keypoints[:, 2]))
    pose = np.concatenate([sample.global_orient, sample.body_pose]).reshape(24, 3)
    place = (np.asarray(value, np.float32) for value in (sample.translation, crop, size, sample.focal))
    return {
        "rotmats": np.asarray(_to_matrices(pose)),
        "betas": sample.betas,
        "joints": sample.joints - sample.translation,
        "keypoints": keypoints,
        "keypoints3d": keypoints3d,
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
            if counts[-1]:
                shapes = {name: (data[name].shape[1:], data[name].dtype) for name in data.files if name != "encoder"}
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


def _detected(sample: Sample) -> tuple[np.ndarray, np.ndarray] | None:
    """The detector's keypoints (K, 3), in 2D and in 3D, of the sample's person: those nearest to the visible true ones; or None."""
    people = detect.detect(sample.image, max_people=3)
    seen = sample.keypoints[:, 2] > 0
    if not len(people.boxes) or not seen.any():
        return None
    keypoints = np.where(people.keypoints[..., 2:] >= MIN_CONFIDENCE, people.keypoints, 0.0).astype(np.float32)
    both = seen & (keypoints[..., 2] > 0)
    distance = np.linalg.norm(keypoints[..., :2] - sample.keypoints[None, :, :2], axis=-1)
    error = np.where(both.sum(1) >= MIN_KEYPOINTS, (distance * both).sum(1) / np.maximum(both.sum(1), 1), np.inf)
    best = int(np.argmin(error))
    near = error[best] < np.ptp(sample.keypoints[:, :2], axis=0).max() / 4
    return (keypoints[best], people.keypoints3d[best]) if near else None


def _encode(encoder: str, crops: list[np.ndarray]) -> list[np.ndarray]:
    """Maps of some crops, float16; for an encoder that trains with the model the crops themselves, uint8."""
    if is_vit(encoder):
        return [np.round(255 * np.stack(crops)).astype(np.uint8)]
    pixels = np.zeros((CHUNK, *crops[0].shape), np.float32)
    pixels[: len(crops)] = crops
    return [np.asarray(m, np.float16)[: len(crops)] for m in jax.device_get(image_encoder.encode(encoder, jnp.asarray(pixels)))]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Compute detections and image features ahead of training.")
    parser.add_argument("--images", type=pathlib.Path, required=True, help="folder that holds train/ and val/ shards")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--split", choices=("train", "val"), required=True)
    parser.add_argument("--encoder", default="blazepose_full", help="or none: keypoints alone; vit_s .. vit_h: the crops themselves")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    args = parser.parse_args()
    try:
        count = compute(args.images, args.out, args.split, args.encoder, args.workers)
        print(f"{count} samples in {args.out / args.split}")
    except InputError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()

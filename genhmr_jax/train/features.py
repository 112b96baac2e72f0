"""Rendered images as training samples: what the frozen parts (detector, image encoder) make of them, computed once ahead of training.

    python -m genhmr_jax.train.features --images runs/images --out runs/features --split train

A split's folder holds one .npy for each array, read memory-mapped: a set may be larger than memory.
"""

import argparse
import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from genhmr_jax import camera, detect
from genhmr_jax.body.keypoints import MIN_CONFIDENCE, MIN_KEYPOINTS
from genhmr_jax.data.packing import PersonIndex, pack
from genhmr_jax.data.poses import sample_hash
from genhmr_jax.data.synthetic.write import read_shards
from genhmr_jax.data.transforms import crop_image
from genhmr_jax.errors import InputError
from genhmr_jax.models import image_encoder
from genhmr_jax.models.vit import is_vit

CHUNK = 32


class FeatureSet:
    """The samples of a split, in the form that data/views.py gives (keypoints as detected), with "maps"."""

    def __init__(self, folder: str | pathlib.Path):
        folder = pathlib.Path(folder)
        if not (folder / "done.json").is_file():
            raise InputError(folder, "holds no finished feature set", "make it with python -m genhmr_jax.train.features")
        meta = json.loads((folder / "done.json").read_text())
        self.size, self.encoder = meta["samples"], meta["encoder"]
        self.arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in meta["arrays"]}
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


def compute(images: pathlib.Path, out: pathlib.Path, split: str, encoder: str, limit: int | None = None) -> int:
    """Detects, crops and encodes every image of a split; images in which the detector sees nobody are left out. Returns how many stay."""
    import smpl_jax

    folder, rows, crops, maps = out / split, [], [], []
    folder.mkdir(parents=True, exist_ok=True)
    for number, sample in enumerate(tqdm(read_shards(images / split), unit="image")):
        if limit is not None and number >= limit:
            break
        found = _detected(sample)
        if found is None:
            continue
        size = np.full(2, sample.image.shape[0], np.float32)
        crop = np.asarray(camera.crop_around(jnp.asarray(found[:, :2]), jnp.asarray(found[:, 2])))
        pose = np.concatenate([sample.global_orient, sample.body_pose]).reshape(24, 3)
        weak = camera.translation_to_weak(*(jnp.asarray(v, jnp.float32) for v in (sample.translation, crop, size, sample.focal)))
        rows.append(
            {
                "rotmats": np.asarray(smpl_jax.rotations.axis_angle_to_matrix(jnp.asarray(pose))),
                "betas": sample.betas,
                "joints": sample.joints - sample.translation,
                "keypoints": found,
                "points2d": sample.keypoints[:, :2],
                "crop": crop,
                "weak_camera": np.asarray(weak),
                "focal": np.float32(sample.focal),
                "image_size": size,
            }
        )
        crops.append(crop_image(sample.image, crop, image_encoder.CROP_SIZE))
        if len(crops) == CHUNK:
            maps.append(_encode(encoder, crops))
            crops = []
    if crops:
        maps.append(_encode(encoder, crops))
    if not rows:
        raise InputError(images / split, "the detector sees nobody in any image", "look at the images")
    arrays = {name: np.stack([row[name] for row in rows]).astype(np.float32) for name in rows[0]}
    if is_vit(encoder):  # trained with the model: it is the pixels that are kept
        arrays["images"] = np.concatenate([m[0] for m in maps])
    else:
        arrays |= {f"map_{level}": np.concatenate([m[level] for m in maps]) for level in range(len(maps[0]))}
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    (folder / "done.json").write_text(json.dumps({"samples": len(rows), "encoder": encoder, "arrays": sorted(arrays)}))
    return len(rows)


def _detected(sample) -> np.ndarray | None:
    """The detector's keypoints (K, 3) of the sample's person: those nearest to the visible true ones; None if nobody near is found."""
    people = detect.detect(sample.image, max_people=3)
    seen = sample.keypoints[:, 2] > 0
    if not len(people.boxes) or not seen.any():
        return None
    keypoints = np.where(people.keypoints[..., 2:] >= MIN_CONFIDENCE, people.keypoints, 0.0).astype(np.float32)
    both = seen & (keypoints[..., 2] > 0)
    distance = np.linalg.norm(keypoints[..., :2] - sample.keypoints[None, :, :2], axis=-1)
    error = np.where(both.sum(1) >= MIN_KEYPOINTS, (distance * both).sum(1) / np.maximum(both.sum(1), 1), np.inf)
    best = int(np.argmin(error))
    return keypoints[best] if error[best] < np.ptp(sample.keypoints[:, :2], axis=0).max() / 4 else None


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
    parser.add_argument("--encoder", default="blazepose_full")
    parser.add_argument("--limit", type=int)
    args = parser.parse_args()
    try:
        count = compute(args.images, args.out, args.split, args.encoder, args.limit)
        print(f"{count} samples in {args.out / args.split}")
    except InputError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()

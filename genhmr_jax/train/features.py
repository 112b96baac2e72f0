"""Rendered images as training samples: what the frozen parts (detector, image encoder) make of them, computed once ahead of training.

    python -m genhmr_jax.train.features --images runs/images --out runs/features --split train

A split's folder holds one .npy for each array, read memory-mapped: a set may be larger than memory.
"""

import argparse
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from genhmr_jax import camera, detect
from genhmr_jax.body.keypoints import MIN_CONFIDENCE, MIN_KEYPOINTS
from genhmr_jax.data.poses import sample_hash
from genhmr_jax.data.synthetic.write import read_shards
from genhmr_jax.data.transforms import crop_image
from genhmr_jax.errors import InputError
from genhmr_jax.models import image_encoder

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

    def rows(self, index: np.ndarray) -> dict:
        """The samples at these indices."""
        sample = {name: np.asarray(array[index]) for name, array in self.arrays.items() if not name.startswith("map_")}
        maps = [np.asarray(self.arrays[name][index]) for name in sorted(self.arrays) if name.startswith("map_")]
        return sample | ({"maps": maps} if maps else {})

    def batch(self, step: int, size: int, seed: int) -> dict:
        """The batch of a training step: a pure function of step and seed."""
        numbers = np.arange(step * size, (step + 1) * size)
        return self.rows((sample_hash(numbers, seed) * self.size).astype(np.int64))

    def all_batches(self, size: int) -> list[dict]:
        """Every sample once, in batches of `size`; a last part that does not fill one is left out."""
        return [self.rows(np.arange(start, start + size)) for start in range(0, self.size - size + 1, size)]


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
    if encoder.startswith("vit_"):  # trained with the model: it is the pixels that are kept
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
    if encoder.startswith("vit_"):
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

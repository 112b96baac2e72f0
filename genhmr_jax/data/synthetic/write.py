"""Writes a data set of synthetic images: shards of JPEG bytes and labels.

    python -m genhmr_jax.data.synthetic.write --out runs/images --split val --count 200 --poses cmu_poses.npz [--backgrounds DIR]

Every sample is a function of (split, seed, number): shards that exist are skipped, so a stopped run goes on where it was.
"""

import argparse
import concurrent.futures
import io
import pathlib
from collections.abc import Iterator

import numpy as np
from PIL import Image
from tqdm import tqdm

from genhmr_jax.atomic import atomic_path
from genhmr_jax.body import load_body
from genhmr_jax.data import poses
from genhmr_jax.data.synthetic.backgrounds import Backgrounds
from genhmr_jax.data.synthetic.generate import Sample, SceneSpec
from genhmr_jax.data.synthetic.rendered import SPLITS, Encoded, Rendered
from genhmr_jax.errors import InputError

SHARD = 100
LABELS = ("global_orient", "body_pose", "betas", "translation", "focal", "joints", "joint_visibility", "keypoints")


def write_split(
    out: pathlib.Path,
    split: str,
    count: int,
    corpus_file: str,
    *,
    backgrounds: str | None = None,
    seed: int = 0,
    size: int = 320,
    workers: int = 2,
    body: str = "neutral",
) -> None:
    """Writes `count` samples of a split ("train" or "val") into out/split/*.npz, SHARD in each; what is there is not made again.

    A shard holds LABELS (units as in generate.Sample), each with the samples along its first axis; and image_bytes (JPEG) and mask_bytes
    (PNG), one after the other, with where each ends in image_end and mask_end.
    """
    scenes = Rendered(poses.load_corpus(corpus_file, split), split, seed, load_body(body), Backgrounds(backgrounds), SceneSpec(size=size))
    folder = out / split
    folder.mkdir(parents=True, exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor(workers) as pool, tqdm(total=count, unit="image") as progress:
        for start in range(0, count, SHARD):
            numbers, path = range(start, min(start + SHARD, count)), folder / f"{start // SHARD:05d}.npz"
            if not path.exists():
                rendered = list(pool.map(scenes.render, numbers))
                arrays = {name: np.stack([getattr(r.sample, name) for r in rendered]) for name in LABELS}
                for name, blobs in (("image", [r.image for r in rendered]), ("mask", [r.mask for r in rendered])):
                    arrays[f"{name}_bytes"] = np.frombuffer(b"".join(blobs), np.uint8)
                    arrays[f"{name}_end"] = np.cumsum([len(b) for b in blobs])
                with atomic_path(path) as temporary, open(temporary, "wb") as file:
                    np.savez(file, **arrays)
            progress.update(len(numbers))


def read_shards(folder: str | pathlib.Path) -> Iterator[Sample]:
    """The samples of a split's folder, in order. Raises InputError as `read_encoded` does."""
    return (encoded.sample for encoded in read_encoded(folder))


def read_encoded(folder: str | pathlib.Path) -> Iterator[Encoded]:
    """The same with the bytes of image and mask.

    Raises:
      InputError: no shards there, or a file that is none.
    """
    files = sorted(pathlib.Path(folder).glob("*.npz"))
    if not files:
        raise InputError(folder, "holds no shards of synthetic images", "make them with python -m genhmr_jax.data.synthetic.write")
    for file in files:
        try:
            with np.load(file, allow_pickle=False) as data:
                arrays = dict(data)
            blobs = {n: [b.tobytes() for b in np.split(arrays[f"{n}_bytes"], arrays[f"{n}_end"][:-1])] for n in ("image", "mask")}
            labels = {name: arrays[name] for name in LABELS}
        except (KeyError, ValueError, OSError) as error:
            raise InputError(file, f"is no shard of synthetic images ({error})", "delete it and write the split again") from error
        for i in range(len(labels["focal"])):
            picture = {n: np.asarray(Image.open(io.BytesIO(blobs[n][i]))) for n in blobs}
            sample = Sample(image=picture["image"], mask=picture["mask"] > 0, **{name: value[i] for name, value in labels.items()})
            yield Encoded(sample, blobs["image"][i], blobs["mask"][i])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Write a data set of synthetic images.")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--split", choices=SPLITS, required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--poses", required=True, help="pose corpus (npz)")
    parser.add_argument("--backgrounds", help="folder of photos; procedural rooms without")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--body", default="neutral", help="a body of the package, or your SMPL file")
    args = parser.parse_args()
    try:
        write_split(
            args.out,
            args.split,
            args.count,
            args.poses,
            backgrounds=args.backgrounds,
            seed=args.seed,
            size=args.size,
            workers=args.workers,
            body=args.body,
        )
    except InputError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()

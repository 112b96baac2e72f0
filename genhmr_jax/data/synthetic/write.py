"""Writes a data set of synthetic images: shards of JPEG bytes and labels.

    python -m genhmr_jax.data.synthetic.write --out runs/images --split val --count 200 --poses
    cmu_poses.npz [--backgrounds DIR]

Every sample is a function of (split, seed, number): shards that exist are skipped, so a stopped run
goes on where it was, and a set grows when it is asked to. What each shard was made of is written in
it: other settings need another folder.
"""

import argparse
import concurrent.futures
import hashlib
import io
import json
import pathlib
import zipfile
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image
from tqdm import tqdm

from genhmr_jax.data import poses
from genhmr_jax.data.synthetic.backgrounds import Backgrounds
from genhmr_jax.data.synthetic.generate import Sample, SceneSpec
from genhmr_jax.data.synthetic.rendered import SPLITS, Encoded, Rendered
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.io.atomic import atomic_path
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.folders import find_files
from genhmr_jax.io.paths import path_argument

SHARD = 100
LABELS = (
    "global_orient",
    "body_pose",
    "betas",
    "translation",
    "focal",
    "joints",
    "joint_visibility",
    "keypoints",
)


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
    """Writes `count` samples of a split ("train" or "val") into out/split/*.npz, SHARD in each;
    what is there is not made again.

    A shard holds LABELS (units as in generate.Sample), each with the samples along its first axis;
    image_bytes (JPEG) and mask_bytes (PNG), one after the other, with where each ends in image_end
    and mask_end; and settings, a JSON text of what decides the images.

    Raises:
      InputError: a shard that is there is damaged or was made with other settings.
    """
    scenes = Rendered(
        poses.load_corpus(corpus_file, split),
        split,
        seed,
        load_body(body),
        Backgrounds(backgrounds),
        SceneSpec(size=size),
    )
    folder = out / split
    folder.mkdir(parents=True, exist_ok=True)
    settings = _settings(scenes)
    with (
        concurrent.futures.ThreadPoolExecutor(workers) as pool,
        tqdm(total=count, unit="image") as progress,
    ):
        for start in range(0, count, SHARD):
            numbers, path = (
                range(start, min(start + SHARD, count)),
                folder / f"{start // SHARD:05d}.npz",
            )
            if not _is_made(path, len(numbers), settings):
                rendered = list(pool.map(scenes.render, numbers))
                arrays = {
                    name: np.stack([getattr(r.sample, name) for r in rendered]) for name in LABELS
                }
                for name, blobs in (
                    ("image", [r.image for r in rendered]),
                    ("mask", [r.mask for r in rendered]),
                ):
                    arrays[f"{name}_bytes"] = np.frombuffer(b"".join(blobs), np.uint8)
                    arrays[f"{name}_end"] = np.cumsum([len(b) for b in blobs])
                arrays["settings"] = np.array(settings)
                with atomic_path(path) as temporary, open(temporary, "wb") as file:
                    np.savez(file, **arrays)
            progress.update(len(numbers))


def _settings(scenes: Rendered) -> str:
    """JSON of what the images follow from: seed, size, and fingerprints of poses, body and
    backgrounds."""
    poses_hash, body_hash = (
        hashlib.sha256(np.ascontiguousarray(a).tobytes()).hexdigest()[:16]
        for a in (scenes.corpus.poses, np.asarray(scenes.body.template))
    )
    facts = {"seed": scenes.seed, "size": scenes.spec.size, "poses": poses_hash, "body": body_hash}
    return json.dumps(facts | {"backgrounds": scenes.backgrounds.fingerprint()})


def _is_made(path: pathlib.Path, count: int, settings: str) -> bool:
    """Whether a shard is there with at least `count` samples.

    Raises:
      InputError: it is damaged, or was made with other settings.
    """
    if not path.exists():
        return False
    stored = _load(path, ("settings", "focal"))
    if str(stored["settings"]) != settings:
        raise InputError(
            path,
            f"was made with other settings ({stored['settings']}, not {settings})",
            "choose another --out, or delete the old shards",
        )
    return len(stored["focal"]) >= count


def _load(file: pathlib.Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Arrays of a shard. Raises InputError: it is none, or an earlier version wrote it."""
    try:
        with np.load(file, allow_pickle=False) as data:
            arrays = {name: data[name] for name in names if name in data}
    except (ValueError, OSError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            file,
            f"is no shard of synthetic images ({error})",
            "delete it and write the split again",
        ) from error
    if missing := [name for name in names if name not in arrays]:
        raise InputError(
            file,
            f"lacks {', '.join(missing)}: another version wrote it",
            "delete it and write the split again",
        )
    return arrays


def read_shards(folder: str | pathlib.Path) -> Iterator[Sample]:
    """The samples of a split's folder, in order. Raises InputError as `read_encoded` does."""
    return (encoded.sample for encoded in read_encoded(folder))


def read_encoded(folder: str | pathlib.Path) -> Iterator[Encoded]:
    """The same with the bytes of image and mask.

    Raises:
      InputError: no shards there, or a file that is none, is damaged, or was written by another
        version.
    """
    files = find_files(pathlib.Path(folder), "*.npz")
    if not files:
        raise InputError(
            folder,
            "holds no shards of synthetic images",
            "make them with python -m genhmr_jax.data.synthetic.write",
        )
    for file in files:
        yield from read_shard(file)


def read_shard(file: pathlib.Path) -> Iterator[Encoded]:
    """The samples of one file. Raises InputError as `read_encoded` does."""
    arrays = _load(file, (*LABELS, "image_bytes", "image_end", "mask_bytes", "mask_end"))
    labels = {name: arrays[name] for name in LABELS}
    if (
        len({len(values) for values in (*labels.values(), arrays["image_end"], arrays["mask_end"])})
        != 1
    ):
        raise InputError(
            file, "does not hold as many images as labels", "delete it and write the split again"
        )
    blobs = {
        n: [b.tobytes() for b in np.split(arrays[f"{n}_bytes"], arrays[f"{n}_end"][:-1])]
        for n in ("image", "mask")
    }
    for i in range(len(labels["focal"])):
        try:
            picture = {n: np.asarray(Image.open(io.BytesIO(blobs[n][i]))) for n in blobs}
        except OSError as error:
            raise InputError(
                file, f"image {i} cannot be read ({error})", "delete it and write the split again"
            ) from error
        sample = Sample(
            image=picture["image"],
            mask=picture["mask"] > 0,
            **{name: value[i] for name, value in labels.items()},
        )
        yield Encoded(sample, blobs["image"][i], blobs["mask"][i])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Write a data set of synthetic images.")
    parser.add_argument("--out", type=path_argument, required=True)
    parser.add_argument("--split", choices=SPLITS, required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--poses", required=True, type=path_argument, help="pose corpus (npz)")
    parser.add_argument(
        "--backgrounds", type=path_argument, help="folder of photos; procedural rooms without"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--body",
        default="neutral",
        type=path_argument,
        help="a body of the package, or your SMPL file",
    )
    args = parser.parse_args()
    try:
        write_split(
            pathlib.Path(args.out),
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

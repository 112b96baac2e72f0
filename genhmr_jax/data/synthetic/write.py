"""Writes a dataset of synthetic images: shards of JPEG bytes and labels.

    python -m genhmr_jax.data.synthetic.write --out runs/images --split val --count 200 \\
        --poses cmu_poses.npz [--backgrounds DIR]

Every sample is a function of (split, seed, number). Training poses are drawn so that rare ones are
frequent (`--rare`, poses.favour_rare), and each sample has its own camera, so that a pose which is
drawn again is seen from another side. Shards that exist are skipped, so that a
stopped run continues where it was, and a larger --count extends a set. Each shard holds the
settings that it was made with: other settings need another folder.
"""

import argparse
import concurrent.futures
import hashlib
import io
import json
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image
from tqdm import tqdm

from genhmr_jax.data import poses
from genhmr_jax.data.synthetic.backgrounds import Backgrounds
from genhmr_jax.data.synthetic.families import APPEARANCES, TRAINING
from genhmr_jax.data.synthetic.generate import Sample, SceneSpec
from genhmr_jax.data.synthetic.rendered import SPLITS, Encoded, Rendered
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.io.atomic import atomic_path
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.folders import find_files
from genhmr_jax.io.npz_files import read_own_npz
from genhmr_jax.io.paths import path_argument

SHARD = 100
LABELS = (
    "global_orient", "body_pose", "betas", "translation", "focal", "joints", "joint_visibility",
    "keypoints",
)  # fmt: skip
_REMEDY = "delete it and write the split again"


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
    appearance: str = TRAINING,
    pose_seed: int | None = None,
    rare: float = poses.RARE,
) -> None:
    """Writes samples of a split ("train" or "val") into out/split/*.npz, SHARD in each.

    Args:
      appearance: a key of families.APPEARANCES.
      pose_seed: draws the poses; None: `seed`.
      rare: of the split "train", see poses.load_corpus.

    A shard holds LABELS (units as in generate.Sample), with the samples along the first axis;
    image_bytes (JPEG) and mask_bytes (PNG), concatenated, with the end of each in image_end and
    mask_end; and settings, a JSON text that determines the images. Shards that exist are kept.

    Raises:
      InputError: an existing shard is damaged or was made with other settings.
    """
    scenes = Rendered(
        poses.load_corpus(corpus_file, split, rare=rare),
        split,
        seed,
        load_body(body),
        Backgrounds(backgrounds),
        SceneSpec(size=size),
        appearance=appearance,
        pose_seed=pose_seed,
    )
    folder = out / split
    folder.mkdir(parents=True, exist_ok=True)
    settings = _settings(scenes)
    with (
        concurrent.futures.ThreadPoolExecutor(workers) as pool,
        tqdm(total=count, unit="image") as progress,
    ):
        for start in range(0, count, SHARD):
            numbers = range(start, min(start + SHARD, count))
            path = folder / f"{start // SHARD:05d}.npz"
            if not _is_made(path, len(numbers), settings):
                _write_shard(path, list(pool.map(scenes.render, numbers)), settings)
            progress.update(len(numbers))


def _write_shard(path: pathlib.Path, rendered: list[Encoded], settings: str) -> None:
    arrays = {name: np.stack([getattr(r.sample, name) for r in rendered]) for name in LABELS}
    for name in ("image", "mask"):
        blobs = [getattr(r, name) for r in rendered]
        arrays[f"{name}_bytes"] = np.frombuffer(b"".join(blobs), np.uint8)
        arrays[f"{name}_end"] = np.cumsum([len(b) for b in blobs])
    arrays["settings"] = np.array(settings)
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)


def _settings(scenes: Rendered) -> str:
    """JSON of what determines the images: seeds, size, appearance, and hashes of the rest."""
    sha = lambda a: hashlib.sha256(np.ascontiguousarray(a).tobytes()).hexdigest()[:16]
    settings = {
        "seed": scenes.seed,
        "pose_seed": scenes.pose_seed,
        "size": scenes.spec.size,
        "appearance": scenes.appearance,
        "poses": sha(scenes.corpus.poses),
        "weights": sha(np.round(1e9 * scenes.corpus.weights)),
        "body": sha(np.asarray(scenes.body.template)),
        "backgrounds": scenes.backgrounds.fingerprint(),
    }
    return json.dumps(settings)


def _is_made(path: pathlib.Path, count: int, settings: str) -> bool:
    """Whether a shard exists, with at least `count` samples.

    Raises:
      InputError: it is damaged, or was made with other settings.
    """
    if not path.exists():
        return False
    stored = _load(path, ("settings", "focal"))
    if str(stored["settings"]) != settings:
        problem = f"was made with other settings ({stored['settings']}, not {settings})"
        raise InputError(path, problem, "choose another --out, or delete the old shards")
    return len(stored["focal"]) >= count


def _load(file: pathlib.Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Arrays of a shard. Raises InputError: it is not a shard, or another version wrote it."""
    arrays = read_own_npz(file, "shard of synthetic images", _REMEDY, (), names)
    if missing := [name for name in names if name not in arrays]:
        problem = f"lacks {', '.join(missing)}: another version wrote it"
        raise InputError(file, problem, _REMEDY)
    return arrays


def read_shards(folder: str | pathlib.Path) -> Iterator[Sample]:
    """The samples of a split's folder, in order. Raises InputError as `read_encoded` does."""
    return (encoded.sample for encoded in read_encoded(folder))


def read_encoded(folder: str | pathlib.Path) -> Iterator[Encoded]:
    """The samples of a split's folder with the bytes of image and mask.

    Raises:
      InputError: there are no shards, or a file is not a shard, is damaged, or is of another
        version.
    """
    files = find_files(pathlib.Path(folder), "*.npz")
    if not files:
        remedy = "make them with python -m genhmr_jax.data.synthetic.write"
        raise InputError(folder, "holds no shards of synthetic images", remedy)
    for file in files:
        yield from read_shard(file)


def read_shard(file: pathlib.Path) -> Iterator[Encoded]:
    """The samples of one file. Raises InputError as `read_encoded` does."""
    arrays = _load(file, (*LABELS, "image_bytes", "image_end", "mask_bytes", "mask_end"))
    labels = {name: arrays[name] for name in LABELS}
    counted = (*labels.values(), arrays["image_end"], arrays["mask_end"])
    if len({len(values) for values in counted}) != 1:
        raise InputError(file, "does not hold as many images as labels", _REMEDY)
    blobs = {
        n: [b.tobytes() for b in np.split(arrays[f"{n}_bytes"], arrays[f"{n}_end"][:-1])]
        for n in ("image", "mask")
    }
    for i in range(len(labels["focal"])):
        try:
            picture = {n: np.asarray(Image.open(io.BytesIO(blobs[n][i]))) for n in blobs}
        except OSError as error:
            raise InputError(file, f"image {i} cannot be read ({error})", _REMEDY) from error
        of_sample = {name: value[i] for name, value in labels.items()}
        sample = Sample(image=picture["image"], mask=picture["mask"] > 0, **of_sample)
        yield Encoded(sample, blobs["image"][i], blobs["mask"][i])


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Write a dataset of synthetic images.")
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
    about = "a body of the package, or your SMPL file"
    parser.add_argument("--body", default="neutral", type=path_argument, help=about)
    looks = "families of people, clothes and scenes; v1 and v2 are those of the test sets"
    parser.add_argument("--appearance", choices=APPEARANCES, default=TRAINING, help=looks)
    rare = "share of training poses drawn by rarity, 0..1; 0: only by the weights of the corpus"
    parser.add_argument("--rare", type=float, default=poses.RARE, help=rare)
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
            appearance=args.appearance,
            rare=args.rare,
        )
    except InputError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()

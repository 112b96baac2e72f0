"""The free test sets: rendered people of validation subjects.

They are rendered on the user's machine, are the same everywhere, and have a hash. Version 2 shows
the poses of version 1 in other bodies, cameras and scenes, with an appearance that is not used for
training.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from genhmr_jax.data import poses
from genhmr_jax.data.synthetic.generate import Sample
from genhmr_jax.data.synthetic.write import read_shards, write_split
from genhmr_jax.evaluate.predictions import TestImage
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.io.atomic import atomic_path
from genhmr_jax.io.errors import InputError

COUNT = 200
SEED = 2026  # of the poses; not used for training data
SIZE = 320  # px
BOX_MARGIN = 1.1  # factor on the box of the true keypoints, which are inside the body
_SEEDED = ("global_orient", "body_pose", "betas", "focal")


@dataclasses.dataclass(frozen=True)
class Version:
    """A version of the set; results on different versions are not comparable.

    Attributes:
      number: of the version.
      seed: of bodies, cameras and scenes.
      appearance: a key of families.APPEARANCES.
    """

    number: int
    seed: int
    appearance: str


VERSIONS = {1: Version(1, SEED, "v1"), 2: Version(2, 5172, "v2")}


@dataclasses.dataclass(frozen=True)
class Split:
    """The test set.

    Attributes:
      samples: images with their labels.
      indices: of the poses among the validation poses of the corpus.
      version: of the set.
      facts: version, seed, count, size, hash and mean_pixel, which are stored with every result.
    """

    samples: list[Sample]
    indices: np.ndarray
    version: Version
    facts: dict[str, Any]


def as_test_image(
    sample: Sample, *, with_box: bool = False, with_keypoints: bool = False
) -> TestImage:
    """A sample as a test image.

    Args:
      sample: the sample.
      with_box: the detector gets the true box.
      with_keypoints: the model gets all true 2D keypoints, occluded ones too, in place of detected
        ones.
    """
    keypoints = np.append(sample.keypoints[:, :2], np.ones((len(sample.keypoints), 1)), axis=1)
    return TestImage(
        sample.image,
        keypoints=sample.keypoints,
        box=true_box(sample) if with_box else None,
        given=keypoints.astype(np.float32) if with_keypoints else None,
    )


def true_box(sample: Sample) -> Float[np.ndarray, "4"]:
    """The box of all true keypoints, px, enlarged by BOX_MARGIN and clipped to the image."""
    low, high = sample.keypoints[:, :2].min(0), sample.keypoints[:, :2].max(0)
    centre, half = (low + high) / 2, BOX_MARGIN * (high - low) / 2
    box = np.concatenate([centre - half, centre + half])
    return np.clip(box, 0, np.tile(sample.image.shape[1::-1], 2)).astype(np.float32)


def open_split(
    folder: str | pathlib.Path,
    corpus: str | pathlib.Path | None = None,
    count: int = COUNT,
    number: int = 1,
) -> Split:
    """Open the test set in a folder. Missing images are rendered; an interrupted rendering resumes.

    Args:
      folder: the data directory; each version and count of the set has its own folder in it.
      corpus: pose corpus (docs/training.md); not needed if the set is complete.
      count: number of images. The first N images are the same for every count.
      number: a key of VERSIONS.

    Raises:
      InputError: the set is missing and no corpus is given, or the set is damaged or was rendered
        from other poses.
    """
    # 1. If the whole set exists, take its first images.
    version = VERSIONS[number]
    home, whole = (pathlib.Path(folder) / f"synthetic-test-v{number}-{n}" for n in (count, COUNT))
    if count < COUNT and (whole / "split.json").exists():
        full = open_split(folder, corpus, COUNT, number)
        return _split(full.samples[:count], full.indices[:count], version)

    # 2. Compare the stored set with the corpus.
    card = home / "split.json"
    validation = poses.load_corpus(corpus, "val") if corpus else None
    made_of = hashlib.sha256(validation.poses.tobytes()).hexdigest()[:16] if corpus else None
    stored = _read_card(card) if card.exists() else None
    if stored is None and validation is None:
        remedy = "give the pose corpus from which it is rendered with --poses"
        raise InputError(home, "holds no synthetic test set", remedy)
    if stored is not None and made_of is not None and stored["corpus"] != made_of:
        remedy = "choose another --data-dir, or leave out --poses"
        raise InputError(home, "was rendered from other poses than those of --poses", remedy)

    # 3. Render missing images, and read all.
    if stored is None:
        _write(home, pathlib.Path(corpus), made_of, count, version)
        stored = _read_card(card)
    samples, indices = list(read_shards(home / "val")), np.array(stored["indices"], np.int64)
    complete = len(samples) == len(indices) == count
    if not complete or split_hash(samples, indices, number) != stored["hash"]:
        remedy = "delete this folder, so that it is rendered again"
        raise InputError(home, "is not the test set that split.json describes", remedy)
    return _split(samples, indices, version)


def _split(samples: list[Sample], indices: np.ndarray, version: Version) -> Split:
    mean_pixel = round(float(np.mean([sample.image.mean() for sample in samples])), 2)
    facts = {
        "version": version.number,
        "seed": version.seed,
        "count": len(samples),
        "size": SIZE,
        "hash": split_hash(samples, indices, version.number),
        "mean_pixel": mean_pixel,
    }
    return Split(samples, indices, version, facts)


def _write(
    home: pathlib.Path, corpus: pathlib.Path, made_of: str, count: int, version: Version
) -> None:
    """Render the images, then write the card.

    The backgrounds are procedural, so that they are the same on every machine.
    """
    started = home / "corpus.txt"
    if started.exists() and started.read_text() != made_of:
        remedy = "delete this folder, or choose another --data-dir"
        raise InputError(home, "was begun with other poses than those of --poses", remedy)
    home.mkdir(parents=True, exist_ok=True)
    with atomic_path(started) as temporary:
        temporary.write_text(made_of)
    scenes = {"seed": version.seed, "pose_seed": SEED, "appearance": version.appearance}
    write_split(home, "val", count, str(corpus), size=SIZE, **scenes)
    indices = poses.load_corpus(corpus, "val").draw(np.arange(count), SEED)
    facts = {
        "corpus": made_of,
        "hash": split_hash(list(read_shards(home / "val")), indices, version.number),
        "indices": indices.tolist(),
    }
    with atomic_path(home / "split.json") as temporary:
        temporary.write_text(json.dumps(facts) + "\n")


def _read_card(card: pathlib.Path) -> dict[str, Any]:
    try:
        stored = json.loads(card.read_text())
        return {
            "corpus": str(stored["corpus"]),
            "hash": str(stored["hash"]),
            "indices": [int(i) for i in stored["indices"]],
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        problem = f"does not describe a test set ({error})"
        remedy = "delete its folder, so that it is rendered again"
        raise InputError(card, problem, remedy) from error


def split_hash(
    samples: Sequence[Sample], indices: Sequence[int] | np.ndarray, number: int = 1
) -> str:
    """16 hexadecimal digits, equal for two sets of the same people in the same cameras.

    It is a SHA-256 over the version, the pose indices, the body, and the labels that follow from
    seeds alone (root, pose, shape, focal length), rounded to thousandths. Joints and pixels are not
    included: their last digits differ between machines, which rounding does not hide. `mean_pixel`,
    which is stored beside the hash, compares the images.
    """
    digest = hashlib.sha256(f"synthetic-test-v{number}".encode())
    digest.update(np.asarray(indices, "<i8").tobytes())
    digest.update(np.asarray(load_body().template, "<f4").tobytes())
    for name in _SEEDED:
        values = np.stack([np.asarray(getattr(sample, name), np.float64) for sample in samples])
        digest.update(np.round(1000 * values).astype("<i8").tobytes())
    return digest.hexdigest()[:16]

"""The free test set: rendered people of validation subjects, always the same, made on the user's machine, known by a hash."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from genhmr_jax.data import poses
from genhmr_jax.data.synthetic.generate import Sample
from genhmr_jax.data.synthetic.write import read_shards, write_split
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.io.atomic import atomic_path
from genhmr_jax.io.errors import InputError

VERSION = 1  # of the set: another one is another set, whose numbers must not be compared
COUNT = 200
SEED = 2026  # no training data is rendered with it
SIZE = 320  # px
_SEEDED = ("global_orient", "body_pose", "betas", "focal")


@dataclasses.dataclass(frozen=True)
class Split:
    """The test set.

    Attributes:
      samples: images with their labels.
      indices: of the poses among the validation poses of the corpus.
      facts: what is printed and stored with every result: version, seed, count, size, hash, mean_pixel.
    """

    samples: list[Sample]
    indices: np.ndarray
    facts: dict[str, Any]


def open_split(folder: str | pathlib.Path, corpus: str | pathlib.Path | None = None, count: int = COUNT) -> Split:
    """The test set in a folder; what is not there yet is rendered (a stopped rendering goes on).

    Args:
      folder: the data directory; each version and count of the set has its own folder in it.
      corpus: pose corpus (docs/training.md); not needed where the set is complete.
      count: how many images. The first N images are the same for every count.

    Raises:
      InputError: the set is not there and no corpus is given, or it is damaged, or it was made of other poses.
    """
    home, whole = (pathlib.Path(folder) / f"synthetic-test-v{VERSION}-{n}" for n in (count, COUNT))
    if count < COUNT and (whole / "split.json").exists():
        full = open_split(folder, corpus, COUNT)
        return _split(full.samples[:count], full.indices[:count])
    card = home / "split.json"
    validation = poses.load_corpus(corpus, "val") if corpus else None
    made_of = hashlib.sha256(validation.poses.tobytes()).hexdigest()[:16] if corpus else None
    stored = _read_card(card) if card.exists() else None
    if stored is None and validation is None:
        raise InputError(home, "holds no synthetic test set", "give a pose corpus with --poses, of which it is rendered")
    if stored is not None and made_of is not None and stored["corpus"] != made_of:
        raise InputError(home, "was made of other poses than --poses has", "choose another --data-dir, or leave out --poses")
    if stored is None:
        _write(home, card, pathlib.Path(corpus), made_of, count)
        stored = _read_card(card)
    samples, indices = list(read_shards(home / "val")), np.array(stored["indices"], np.int64)
    if len(samples) != count or len(indices) != count or split_hash(samples, indices) != stored["hash"]:
        raise InputError(home, "is not the test set that split.json describes", "delete this folder, so that it is rendered again")
    return _split(samples, indices)


def _split(samples: list[Sample], indices: np.ndarray) -> Split:
    mean_pixel = round(float(np.mean([sample.image.mean() for sample in samples])), 2)
    facts = {"version": VERSION, "seed": SEED, "count": len(samples), "size": SIZE, "hash": split_hash(samples, indices)}
    return Split(samples, indices, facts | {"mean_pixel": mean_pixel})


def _write(home: pathlib.Path, card: pathlib.Path, corpus: pathlib.Path, made_of: str, count: int) -> None:
    """Renders the images (before procedural rooms, which are the same everywhere) and then writes the card."""
    started = home / "corpus.txt"
    if started.exists() and started.read_text() != made_of:
        raise InputError(home, "was begun with other poses than --poses has", "delete this folder, or choose another --data-dir")
    home.mkdir(parents=True, exist_ok=True)
    with atomic_path(started) as temporary:
        temporary.write_text(made_of)
    write_split(home, "val", count, str(corpus), seed=SEED, size=SIZE)
    indices = poses.load_corpus(corpus, "val").draw(np.arange(count), SEED)
    facts = {"corpus": made_of, "hash": split_hash(list(read_shards(home / "val")), indices), "indices": indices.tolist()}
    with atomic_path(card) as temporary:
        temporary.write_text(json.dumps(facts) + "\n")


def _read_card(card: pathlib.Path) -> dict[str, Any]:
    try:
        stored = json.loads(card.read_text())
        return {"corpus": str(stored["corpus"]), "hash": str(stored["hash"]), "indices": [int(i) for i in stored["indices"]]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(card, f"does not describe a test set ({error})", "delete its folder, so that it is rendered again") from error


def split_hash(samples: Sequence[Sample], indices: Sequence[int] | np.ndarray) -> str:
    """16 hexadecimal digits: two people with the same hash compare on the same people in the same cameras.

    SHA-256 over the version, the pose indices, the body and the labels that follow from seeds alone (root, pose, shape, focal length),
    rounded to thousandths. Joints and pixels follow from them by arithmetic whose last digits differ between machines, and rounding
    does not hide that; `mean_pixel` beside the hash tells whether the pictures were drawn alike.
    """
    digest = hashlib.sha256(f"synthetic-test-v{VERSION}".encode())
    digest.update(np.asarray(indices, "<i8").tobytes())
    digest.update(np.asarray(load_body().template, "<f4").tobytes())
    for name in _SEEDED:
        values = np.stack([np.asarray(getattr(sample, name), np.float64) for sample in samples])
        digest.update(np.round(1000 * values).astype("<i8").tobytes())
    return digest.hexdigest()[:16]

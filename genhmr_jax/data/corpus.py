"""Writes the pose corpus of poses.load_corpus from built pose datasets, with published weights."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from genhmr_jax.data.builders import Built, built_dir, open_built
from genhmr_jax.data.sources import Source, find
from genhmr_jax.io.atomic import atomic_path
from genhmr_jax.io.errors import InputError

SPLITS = ("train", "val")
RATES = {"cmu_asf": 120.0, "cmu_bvh": 120.0, "aist": 60.0}
"""Frames a second of the datasets in which it is the same for all clips. Their frame numbers tell
the time of a pose."""


def parse_weights(text: str) -> dict[str, float | None]:
    """Parses "amass,moyo=0.3" into {"amass": None, "moyo": 0.3}.

    Raises:
      InputError: a name that is not a pose dataset or is repeated, or a weight not above 0.
    """
    weights: dict[str, float | None] = {}
    for part in text.split(","):
        name, given, number = part.strip().partition("=")
        if find(name).kind != "poses":
            problem = "is a dataset of people in images, not of poses"
            raise InputError(name, problem, "`genhmr data list` shows the kinds")
        if name in weights:
            raise InputError("--source", f"names {name} twice", "name each dataset once")
        try:
            weights[name] = float(number) if given else None
        except ValueError:
            weights[name] = float("nan")
        if weights[name] is not None and not 0 < weights[name] < float("inf"):
            problem = f"the weight of {name} is {number!r}"
            raise InputError("--source", problem, "weights are numbers above 0: amass=0.8")
    return weights


def write_corpus(data_dir: str | Path, weights: Mapping[str, float | None], out: str | Path) -> str:
    """Writes a pose corpus from the splits train and val of pose datasets.

    The npz has poses (N, 72) float32, split (N,) 0 train / 1 val, seq_id (N,), seq_name and
    seq_subject (by seq_id), and, if there are weights, weight (N,): the probability of each
    training pose, 0 for validation. If all datasets are in RATES, it has frame (N,) and
    mocap_framerate too, from which motions can be made (synthetic/motions.py).

    Args:
      data_dir: the folder of the built datasets.
      weights: of each dataset; None is the sum of the published weights of its sets.
      out: name of the npz.

    Returns:
      a summary of several lines.

    Raises:
      InputError: a dataset is not built, one of several has no weight, or `out` is not an .npz.
    """
    out = Path(out)
    if out.suffix != ".npz":
        raise InputError(out, "is not an .npz", "give a name that ends in .npz")
    unknown = [name for name, given in weights.items() if given is None and not find(name).weights]
    if len(weights) > 1 and unknown:
        problem = f"no paper gives weights for {', '.join(unknown)}"
        raise InputError("--source", problem, f"give one: {unknown[0]}=0.2")

    # 1. Read all datasets.
    poses, splits, probabilities, clips, times, lines = [], [], [], [], [], []
    for name, weight in weights.items():
        for number, split in enumerate(SPLITS):
            built = _open(data_dir, find(name), split)
            if built is None:
                lines.append(f"{name} {split}: not built")
                continue
            part, sequences, frames = _read(built)
            poses.append(part)
            times.append(frames / RATES.get(name, np.nan))
            clips += sequences
            splits.append(np.full(len(part), number, np.int8))
            if split == "train":
                probability, text = _probabilities(find(name), weight, sequences)
                lines.append(f"{name} train: {len(part)} poses{text}")
            else:
                probability = np.zeros(len(part))
                lines.append(f"{name} val: {len(part)} poses")
            probabilities.append(probability)

    # 2. Write them as one corpus.
    names, seq_id = np.unique(np.array(clips), return_inverse=True)
    arrays = {
        "poses": np.concatenate(poses),
        "split": np.concatenate(splits),
        "seq_id": seq_id.astype(np.int32),
        "seq_name": names,
        "seq_subject": np.array([name.rpartition("/")[0] or name for name in names]),
    }
    seconds = np.concatenate(times)
    if np.isfinite(seconds).all():
        rate = max(RATES[name] for name in weights)
        arrays["frame"] = np.round(seconds * rate).astype(np.int32)
        arrays["mocap_framerate"] = np.float32(rate)
    else:
        lines.append("the times of the poses are not known: the corpus has no motions")
    if len(weights) > 1 or any(weight or find(name).weights for name, weight in weights.items()):
        total = np.concatenate(probabilities)
        arrays["weight"] = (total / max(total.sum(), 1e-12)).astype(np.float32)
    with atomic_path(out) as temporary:
        np.savez(temporary, **arrays)
    return "\n".join([*lines, f"{len(seq_id)} poses of {len(names)} clips in {out}"])


def _open(data_dir: str | Path, source: Source, split: str) -> Built | None:
    """A built split, or None for a validation split that is not built."""
    exists = split in source.splits and built_dir(data_dir, source.name, split).is_dir()
    if split == "val" and not exists:
        return None
    return open_built(data_dir, source.name, split)


def _read(built: Built) -> tuple[np.ndarray, list[str], np.ndarray]:
    """The poses (N, 72) of a split, and the sequence and the frame number (N,) of each."""
    poses, sequences = np.empty((len(built), 72), np.float32), []
    frames = np.empty(len(built), np.int64)
    for i, record in enumerate(built):
        poses[i] = record["pose"]
        sequences.append(record["sequence"])
        frames[i] = record["frame"]
    return poses, sequences, frames


def _probabilities(
    source: Source, weight: float | None, sequences: list[str]
) -> tuple[np.ndarray, str]:
    """The probability of each training pose of a source, and a text for the summary.

    Sets have their published weights, divided equally among their poses. A set without a published
    weight has the smallest published one. Without published weights all poses are equally probable.
    """
    count = len(sequences)
    if not source.weights:
        text = f", weight {weight}" if weight else ""
        return np.full(count, (weight or 1.0) / count), text
    sets, index, count = np.unique(
        [name.split("/")[0] for name in sequences], return_inverse=True, return_counts=True
    )
    smallest = min(source.weights.values())
    share = np.array([source.weights.get(name, smallest) for name in sets])
    if weight is not None:
        share *= weight / share.sum()
    text = ", ".join(
        f"{name} {value:.3g}" + ("" if name in source.weights else " (no published weight)")
        for name, value in zip(sets, share, strict=True)
    )
    return (share / count)[index], f", weights: {text}"

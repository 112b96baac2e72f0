"""Writing the pose corpus that training reads (poses.load_corpus), from built pose datasets,
weighted as papers weigh them."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from genhmr_jax.data.builders import Built, built_dir, open_built
from genhmr_jax.data.sources import Source, find
from genhmr_jax.io.atomic import atomic_path
from genhmr_jax.io.errors import InputError

SPLITS = ("train", "val")


def parse_weights(text: str) -> dict[str, float | None]:
    """ "amass,moyo=0.3" -> {"amass": None, "moyo": 0.3}.

    Raises:
      InputError: a name that is no pose dataset, a name twice, or a weight that is not above 0.
    """
    weights: dict[str, float | None] = {}
    for part in text.split(","):
        name, given, number = part.strip().partition("=")
        if find(name).kind != "poses":
            raise InputError(
                name,
                "is a dataset of people in images, not of poses",
                "`genhmr data list` shows the kinds",
            )
        if name in weights:
            raise InputError("--source", f"names {name} twice", "name each dataset once")
        try:
            weights[name] = float(number) if given else None
        except ValueError:
            weights[name] = float("nan")
        if weights[name] is not None and not 0 < weights[name] < float("inf"):
            raise InputError(
                "--source",
                f"the weight of {name} is {number!r}",
                "weights are numbers above 0: amass=0.8",
            )
    return weights


def write_corpus(data_dir: str | Path, weights: Mapping[str, float | None], out: str | Path) -> str:
    """Writes `out` (.npz): poses (N, 72) float32, split (N,) 0 train / 1 val, seq_id (N,),
    sequences (clips by seq_id), and if a weight is known, weight (N,): the chance of each training
    pose, 0 for validation.

    Args:
      data_dir: where the pose datasets are built.
      weights: of each dataset; None is the sum of the published weights of its sets.

    Returns:
      What was written, in lines.

    Raises:
      InputError: a dataset is not built, several datasets of which one has no weight, or `out` is
        no .npz.
    """
    out = Path(out)
    if out.suffix != ".npz":
        raise InputError(out, "is no .npz", "give a name that ends in .npz")
    if len(weights) > 1:
        unknown = [
            name for name, weight in weights.items() if weight is None and not find(name).weights
        ]
        if unknown:
            raise InputError(
                "--source",
                f"no paper gives weights for {', '.join(unknown)}",
                f"give one: {unknown[0]}=0.2",
            )
    poses, splits, chances, clips, lines = [], [], [], [], []
    for name, weight in weights.items():
        for number, split in enumerate(SPLITS):
            built = _open(data_dir, find(name), split)
            if built is None:
                lines.append(f"{name} {split}: not built")
                continue
            part, sequences = _read(built)
            poses.append(part)
            clips += sequences
            splits.append(np.full(len(part), number, np.int8))
            if split == "train":
                chance, text = _chances(find(name), weight, sequences)
                lines.append(f"{name} train: {len(part)} poses{text}")
            else:
                chance = np.zeros(len(part))
                lines.append(f"{name} val: {len(part)} poses")
            chances.append(chance)
    names, seq_id = np.unique(np.array(clips), return_inverse=True)
    arrays = {
        "poses": np.concatenate(poses),
        "split": np.concatenate(splits),
        "seq_id": seq_id.astype(np.int32),
        "sequences": names,
    }
    if len(weights) > 1 or any(weight or find(name).weights for name, weight in weights.items()):
        total = np.concatenate(chances)
        arrays["weight"] = (total / max(total.sum(), 1e-12)).astype(np.float32)
    with atomic_path(out) as temporary:
        np.savez(temporary, **arrays)
    return "\n".join([*lines, f"{len(seq_id)} poses of {len(names)} clips in {out}"])


def _open(data_dir: str | Path, source: Source, split: str) -> Built | None:
    """A built split; None if only the validation split is not there."""
    if split == "val" and (
        split not in source.splits or not built_dir(data_dir, source.name, split).is_dir()
    ):
        return None
    return open_built(data_dir, source.name, split)


def _read(built: Built) -> tuple[np.ndarray, list[str]]:
    poses, sequences = np.empty((len(built), 72), np.float32), []
    for i, record in enumerate(built):
        poses[i] = record["pose"]
        sequences.append(record["sequence"])
    return poses, sequences


def _chances(source: Source, weight: float | None, sequences: list[str]) -> tuple[np.ndarray, str]:
    """The chance of each training pose of a source, and what to tell: sets by their published
    weights, the poses of a set all alike.

    A set without a published weight counts as the smallest that has one. Without published weights
    all poses are alike.
    """
    sets, index, count = np.unique(
        [name.split("/")[0] for name in sequences], return_inverse=True, return_counts=True
    )
    if not source.weights:
        return np.full(
            len(sequences), (weight or 1.0) / len(sequences)
        ), f", weight {weight}" if weight else ""
    smallest = min(source.weights.values())
    share = np.array([source.weights.get(name, smallest) for name in sets])
    if weight is not None:
        share *= weight / share.sum()
    text = ", ".join(
        f"{name} {value:.3g}" + ("" if name in source.weights else " (no published weight)")
        for name, value in zip(sets, share, strict=True)
    )
    return (share / count)[index], f", weights: {text}"

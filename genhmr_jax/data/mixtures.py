"""Weighted mixtures of datasets of people, by name or from a text."""

import dataclasses
import difflib
import pathlib
from collections.abc import Callable
from typing import Protocol

import numpy as np

from genhmr_jax.data.builders import open_built
from genhmr_jax.data.sources import SOURCES, PersonRecord
from genhmr_jax.io.errors import InputError

RENDERED = "rendered"  # the part of a mixture that is rendered during training
MIXTURES: dict[str, dict[str, float]] = {
    "hmr2": {
        "hmr2_h36m": 0.1, "hmr2_mpii": 0.1, "hmr2_coco": 0.1, "hmr2_coco_vitpose": 0.1,
        "hmr2_mpi_inf": 0.02, "hmr2_ava": 0.19, "hmr2_aic": 0.19, "hmr2_insta": 0.2,
    },
    "tokenhmr": {
        "hmr2_h36m": 0.1, "hmr2_mpii": 0.1, "hmr2_coco": 0.1, "hmr2_coco_vitpose": 0.1,
        "bedlam": 0.18, "hmr2_mpi_inf": 0.04, "hmr2_ava": 0.13, "hmr2_aic": 0.13,
        "hmr2_insta": 0.12,
    },
    "tokenhmr_bedlam": {"bedlam": 1.0},
}  # fmt: skip
"""Datasets and weights of HMR2 (4D-Humans), TokenHMR, and TokenHMR trained on BEDLAM alone."""


class Records(Protocol):
    """Person records by number: a list, or a built dataset."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> PersonRecord: ...


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A part of a mixture."""

    name: str
    records: Records
    weight: float = 1.0


def parse_mixture(text: str) -> dict[str, float]:
    """Dataset -> weight, of a key of MIXTURES or of "NAME=WEIGHT,NAME=WEIGHT".

    A NAME is a dataset of people, or "rendered"; a NAME alone has weight 1.

    Raises:
      InputError: an unknown name, or a weight that is not a positive number.
    """
    if text in MIXTURES:
        return dict(MIXTURES[text])
    known = sorted(
        [RENDERED, *(name for name, source in SOURCES.items() if source.kind == "people")]
    )
    mixture: dict[str, float] = {}
    for part in text.split(","):
        name, _, weight = part.strip().partition("=")
        if name not in known:
            near = difflib.get_close_matches(name, [*known, *MIXTURES], n=3) or [*MIXTURES, *known]
            problem = f"{name!r} is neither a mixture nor a dataset of people"
            raise InputError(f"mixture {text!r}", problem, f"did you mean {', '.join(near)}?")
        try:
            mixture[name] = float(weight or 1)
        except ValueError:
            mixture[name] = 0.0
        if not 0 < mixture[name] < np.inf:
            remedy = "give a positive number, as in bedlam=0.2"
            raise InputError(f"mixture {text!r}", f"{name} has the weight {weight!r}", remedy)
    return mixture


def open_mixture(
    data_dir: str | pathlib.Path,
    mixture: str,
    split: str = "train",
    rendered: Callable[[str], Records] | None = None,
) -> list[Dataset]:
    """The built datasets of a mixture (see `parse_mixture`), in the folder `data_dir`.

    Args:
      rendered: makes the records of "rendered" (data/synthetic/rendered.py) for a split, if the
        mixture has it.

    Raises:
      InputError: an unknown mixture, or a dataset that is not built.
    """

    def records(name: str) -> Records:
        if name == RENDERED:
            if rendered is None:
                problem = "people cannot be rendered here"
                raise InputError(f"mixture {mixture!r}", problem, "leave rendered out")
            return rendered(split)
        return open_built(data_dir, name, split)

    return [Dataset(name, records(name), weight) for name, weight in parse_mixture(mixture).items()]

"""Ablation sweeps: what a file of configs/sweeps/ returns. `genhmr sweep` (command.py) plans, runs
and collects them.

A sweep is plain data: points, each with overrides of the config of stage 1 (`tokenizer`), of stage
2 (`genhmr`) and of the evaluation's settings (`evaluate`, see
genhmr_jax/evaluate/__init__.py:Settings). What points have in common is computed once.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

Overrides = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Point:
    """One row of the table: a name, where it stands on the x axis (a number, or its name), and what
    it overrides."""

    name: str
    x: float | str
    tokenizer: Overrides = dataclasses.field(default_factory=dict)
    genhmr: Overrides = dataclasses.field(default_factory=dict)
    evaluate: Overrides = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """Rendered images that a sweep makes for itself when --set data.images=DIR names none: how
    many, and of which encoder."""

    train: int
    val: int
    encoder: str


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Points and what they share.

    Attributes:
      axis: what differs between the points, as the label of the x axis.
      points: at least two, with different names.
      log_axis: draw the x axis logarithmically.
      tokenizer_config, genhmr_config: config files with their arguments, in the folder above the
        sweep's own, or else in ./configs.
      tokenizer, genhmr, evaluate: overrides for all points; --set comes after them, a point's own
        last.
      images: a set to make when --set data.images=DIR names none; for tiny sweeps.
    """

    axis: str
    points: Sequence[Point]
    log_axis: bool = False
    tokenizer_config: str = "tokenizer/body_parts.py"
    genhmr_config: str = "genhmr/keypoints.py"
    tokenizer: Overrides = dataclasses.field(default_factory=dict)
    genhmr: Overrides = dataclasses.field(default_factory=dict)
    evaluate: Overrides = dataclasses.field(default_factory=dict)
    images: ImageSet | None = None


def tiny(axis: str, points: Sequence[Point], **others: Any) -> Sweep:
    """A sweep over the tiny configs: all of it runs on a CPU in minutes, and says nothing about
    people. `others` replaces fields."""
    steps = {"steps": 4, "evaluate_every": 4, "checkpoint_every": 4, "log_every": 4}
    fields: dict[str, Any] = {
        "tokenizer_config": "tokenizer/tiny.py",
        "genhmr_config": "genhmr/tiny.py",
        "tokenizer": steps,
        "genhmr": steps,
        "evaluate": {"views": 16, "batch_size": 16, "refine_steps": 2, "iterations": 2},
    }
    return Sweep(axis, points, **fields | others)

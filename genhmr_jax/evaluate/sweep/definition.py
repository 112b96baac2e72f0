"""The definition of an ablation sweep, which a file of configs/sweeps/ returns.

A sweep is plain data: points with overrides of the config of stage 1 (`tokenizer`), of the config
of stage 2 (`genhmr`), and of the settings of the evaluation (`evaluate`, see evaluate/settings.py).
Computations that points share are done once. command.py plans, runs and collects a sweep.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

Overrides = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Point:
    """One row of the table.

    Attributes:
      name: unique in the sweep.
      x: its location on the x axis: a number, or its name.
      tokenizer, genhmr, evaluate: its overrides.
    """

    name: str
    x: float | str
    tokenizer: Overrides = dataclasses.field(default_factory=dict)
    genhmr: Overrides = dataclasses.field(default_factory=dict)
    evaluate: Overrides = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """Images that a sweep renders if there is no --set data.images=DIR.

    Attributes:
      train, val: numbers of images.
      encoder: the encoder of their features.
    """

    train: int
    val: int
    encoder: str


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Points, and the configs and overrides that they share.

    Attributes:
      axis: the property that differs between the points; the label of the x axis.
      points: at least two, with different names.
      log_axis: draw the x axis logarithmically.
      tokenizer_config, genhmr_config: config files with their arguments, in the folder above the
        sweep's own, or else in ./configs.
      tokenizer, genhmr, evaluate: overrides for all points. --set overrides them, and a point's
        own overrides come last.
      images: images to render if there is no --set data.images=DIR; for tiny sweeps.
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
    """A sweep over the tiny configs, to try things out: it runs on a CPU in minutes.

    Its results have no meaning. `others` replaces fields.
    """
    steps = {"steps": 4, "evaluate_every": 4, "checkpoint_every": 4, "log_every": 4}
    fields: dict[str, Any] = {
        "tokenizer_config": "tokenizer/tiny.py",
        "genhmr_config": "genhmr/tiny.py",
        "tokenizer": steps,
        "genhmr": steps,
        "evaluate": {"views": 16, "batch_size": 16, "refine_steps": 2, "iterations": 2},
    }
    return Sweep(axis, points, **fields | others)

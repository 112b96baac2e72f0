"""The definition of an ablation sweep, which a file of configs/sweeps/ returns.

A sweep is plain data: points with overrides of the configs of two trainings, of which the second
is over the first, and of the settings of the evaluation ("evaluate", see evaluate/settings.py).
Computations that points share are done once. command.py plans, runs and collects a sweep.
"""

import dataclasses
import types
from collections.abc import Mapping, Sequence
from typing import Any

Overrides = Mapping[str, Mapping[str, Any]]
"""{kind: {field: value}}; a kind is one of `Sweep.kinds`."""

EVALUATE = "evaluate"
GENHMR = types.MappingProxyType(
    {"tokenizer": "tokenizer/body_parts.py", "genhmr": "genhmr/keypoints.py"}
)


@dataclasses.dataclass(frozen=True)
class Point:
    """One row of the table.

    Attributes:
      name: unique in the sweep.
      x: its location on the x axis: a number, or its name.
      overrides: its own.
    """

    name: str
    x: float | str
    overrides: Overrides = dataclasses.field(default_factory=dict)


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
      configs: {kind: config file with its argument} of the first stage and of the second. The kind
        is the `stage` of the config. That of the first stage is also the field of the second one's
        config that holds the model folder of the first. The files are in the folder above the
        sweep's own, or else in ./configs.
      overrides: for all points. --set overrides them, and a point's own come last.
      images: images to render if there is no --set data.images=DIR; for tiny sweeps.
    """

    axis: str
    points: Sequence[Point]
    log_axis: bool = False
    configs: Mapping[str, str] = dataclasses.field(default_factory=lambda: GENHMR)
    overrides: Overrides = dataclasses.field(default_factory=dict)
    images: ImageSet | None = None

    @property
    def stages(self) -> tuple[str, str]:
        """The kinds of the two trainings, in their order."""
        first, second = self.configs
        return first, second

    @property
    def kinds(self) -> tuple[str, str, str]:
        """What can be overridden: the two stages and the evaluation."""
        return (*self.stages, EVALUATE)


def merged(*parts: Overrides) -> dict[str, dict[str, Any]]:
    """Overrides of several origins; those of later ones win."""
    found: dict[str, dict[str, Any]] = {}
    for part in parts:
        for kind, values in part.items():
            found[kind] = {**found.get(kind, {}), **values}
    return found


def tiny(
    axis: str,
    points: Sequence[Point],
    stages: Sequence[str] = tuple(GENHMR),
    overrides: Overrides = types.MappingProxyType({}),
    **others: Any,
) -> Sweep:
    """A sweep over the tiny configs, to try things out: it runs on a CPU in minutes.

    Its results have no meaning.

    Args:
      axis, points: of the sweep.
      stages: the kinds of its trainings, which have a config STAGE/tiny.py.
      overrides: beside those that make the sweep short.
      others: other fields of the sweep.
    """
    steps = {"steps": 4, "evaluate_every": 4, "checkpoint_every": 4, "log_every": 4}
    short = dict.fromkeys(stages, steps)
    few = {EVALUATE: {"views": 16, "batch_size": 16, "refine_steps": 2, "iterations": 2}}
    configs = {stage: f"{stage}/tiny.py" for stage in stages}
    return Sweep(axis, points, configs=configs, overrides=merged(short, few, overrides), **others)

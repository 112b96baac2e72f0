"""The stage of the lifter of hands, on rendered hands (detect/hand_lifter_net.py)."""

import pathlib
from typing import Any

import jax.numpy as jnp
import ml_collections
from jaxtyping import Array

from genhmr_jax.data.hands import lifter_rows
from genhmr_jax.data.hands.lifter_rows import HandLifterRows, HandLifterSet
from genhmr_jax.detect import hand_lifter_net
from genhmr_jax.detect.hand_landmarks import SIZE
from genhmr_jax.systems.lifter.lifting import LiftingTask, Points


class HandLifterTask(LiftingTask[HandLifterRows]):
    """See LiftingTask. The root is the wrist."""

    kind, form, detector = "hand_lifter", hand_lifter_net.HAND, "landmarks"

    def rows_of(self, folder: pathlib.Path) -> HandLifterSet:
        return HandLifterSet(folder)

    def batch_of(self, size: int) -> HandLifterRows:
        return lifter_rows.shapes(size)

    def truth(self, frozen: Any, rows: HandLifterRows) -> Points:
        return rows.points2d, rows.points3d

    def detected(self, rows: HandLifterRows) -> Points:
        return rows.landmarks[..., :2] / SIZE - 0.5, rows.world - rows.world[:, :1]

    def lifted(
        self, head: Any, trunk: dict[str, Array], rows: HandLifterRows, keys: Array | None
    ) -> tuple:
        inputs = rows.landmarks, rows.world, rows.early.astype(jnp.float32)
        return hand_lifter_net.lift(self.spec, head, trunk, *inputs, keys)


def make_task(config: ml_collections.ConfigDict) -> HandLifterTask:
    """The task of a config."""
    return HandLifterTask(config)


def abstract_task(
    config: ml_collections.ConfigDict, *_: ml_collections.ConfigDict
) -> HandLifterTask:
    """The same: the lifter is trained over no other model."""
    return HandLifterTask(config)

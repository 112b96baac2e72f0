"""Use of the shipped lifter of hands (hand_lifter_net.py)."""

import dataclasses
import functools
import importlib.resources
import pathlib
import types
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Float
from smpl_jax.keypoints import HAND21

from genhmr_jax.detect import hand_landmarks, trunks
from genhmr_jax.detect.hand_landmarks import BATCHES, EARLY_SHAPE, HandEstimate, rows_of_program
from genhmr_jax.detect.lifter import LifterSpec, shipped_params
from genhmr_jax.io.model_folder import load_meta
from genhmr_jax.io.program_store import remembered_shapes, stored

FOLDER = pathlib.Path(str(importlib.resources.files("genhmr_jax") / "assets" / "hand_lifter"))
"""A model folder of the stage "hand_lifter" (configs/hand_lifter/rendered_hands.py)."""
TRUNK = trunks.Trunk(hand_landmarks.NETWORK, hand_landmarks.EARLY, hand_landmarks.FEATURES)
"""14x14x64 -> 7x7x672."""


@dataclasses.dataclass(frozen=True)
class LiftedHand:
    """The lifter's estimate of a hand, in the order of HAND21.

    Attributes:
      points: px of the image.
      points3d: metres from the wrist, in the axes of the image: x right, y down, z away from the
        camera.
      spread: the expected absolute error of a coordinate in 2D, in sides of the region.
      features: the map of the trunk, in the axes of the region or of its mirror image.
    """

    points: Float[np.ndarray, "21 2"]
    points3d: Float[np.ndarray, "21 3"]
    spread: Float[np.ndarray, "21"]
    features: Float[np.ndarray, "7 7 672"]


def lifted(hands: Sequence[HandEstimate]) -> list[LiftedHand]:
    """The lifter's estimates. Each hand is a right one, in its region or in the mirror image."""
    found: list[LiftedHand] = []
    while len(found) < len(hands):
        batch = rows_of_program(len(hands) - len(found))
        chosen = hands[len(found) : len(found) + batch]
        rows = [[hand.landmarks, hand.world, hand.early] for hand in chosen]
        rows += rows[-1:] * (batch - len(rows))
        inputs = [np.stack(column).astype(np.float32) for column in zip(*rows, strict=True)]
        outputs = [np.asarray(values) for values in _lift(_params(), *inputs, _spec())]
        found += [_hand(hand, *row) for hand, *row in zip(chosen, *outputs, strict=False)]
    return found


def mean_of_two(first: LiftedHand, second: LiftedHand) -> LiftedHand:
    """The mean of two looks at a hand, weighted by their variances; the map is the first one's."""
    share = first.spread**2 / (first.spread**2 + second.spread**2)
    mean = lambda a, b: a + share.reshape(-1, *[1] * (a.ndim - 1)) * (b - a)
    names = ("points", "points3d", "spread")
    both = {name: mean(getattr(first, name), getattr(second, name)) for name in names}
    return dataclasses.replace(first, **both)


def preload() -> None:
    """Read the stored programs of `lifted`."""
    for batch in BATCHES:
        shapes = (len(HAND21), 3), (len(HAND21), 3), EARLY_SHAPE
        _lift.preload(
            _params(), *(np.zeros((batch, *shape), np.float32) for shape in shapes), _spec()
        )


def _hand(
    hand: HandEstimate,
    points2d: Float[np.ndarray, "21 2"],
    points3d: Float[np.ndarray, "21 3"],
    spread: Float[np.ndarray, "21"],
    features: Float[np.ndarray, "7 7 672"],
) -> LiftedHand:
    """The estimate in the axes of the image."""
    points2d, points3d = points2d.astype(np.float64), points3d.astype(np.float64)
    if hand.mirrored:
        points2d, points3d = points2d * [-1, 1], points3d * [-1, 1, 1]
    points = hand.region.to_image(points2d + 0.5, 1)
    points3d = np.concatenate([points3d[:, :2] @ hand.region.axes().T, points3d[:, 2:]], -1)
    return LiftedHand(points, points3d, spread, features)


@functools.cache
def _spec() -> LifterSpec:
    """The sizes of the shipped lifter."""
    return LifterSpec(**load_meta(FOLDER)["spec"])


@functools.cache
def _params() -> Any:
    """The shipped parameters: those of the head, and the weights of the trunk."""
    compute = lambda: _network().head_graph(_network().HAND, _spec())[1]
    return shipped_params(FOLDER, remembered_shapes("hand_lifter", _spec(), compute), TRUNK)


@stored("spec")
def _lift(
    params: Any,
    landmarks: Float[Array, "B 21 3"],
    world: Float[Array, "B 21 3"],
    early: Float[Array, "B 14 14 64"],
    spec: LifterSpec,
) -> tuple[Array, Array, Array, Array]:
    """Keypoints in 2D and 3D, their expected errors in 2D, and the map of the trunk."""
    return _network().lift(spec, params["head"], params["trunk"], landmarks, world, early)


def _network() -> types.ModuleType:
    """The module of the network: with stored programs it is not imported, nor is flax."""
    from genhmr_jax.detect import hand_lifter_net

    return hand_lifter_net

"""The inputs of a system for the people of one or several photos."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from genhmr_jax.core.choices import CONTEXTS
from genhmr_jax.core.silhouette_term import Silhouette
from genhmr_jax.geometry.camera import CropCamera


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Inputs:
    """Inputs of B people. A field that is None is missing for all of them.

    Attributes:
      view: the photo's camera and the people's crops.
      keypoints: (B, K, 3) px and confidence; 0 where not detected.
      keypoints3d: (B, K, 3) metres from mid-hip, x right, y down, z away from the camera; all zero
        where not known.
      maps: feature maps (B, H, W, C) of a frozen encoder, finest first.
      images: (B, 256, 256, 3) crops in 0..1, for an encoder that is part of the system.
      image_weight: (B,) 0 where the image of a row must be ignored.
      silhouette: of the people's masks, for the refinement.
      certainty: (B,) 0..1, how much keypoints and silhouette count in the refinement, see
        core/fit_objective.py.
      drop_path: (B, depth, 2) factors of stochastic depth, in training
        (nets.vit.drop_path_factors).
    """

    view: CropCamera
    keypoints: Float[Array, "B K 3"] | None = None
    keypoints3d: Float[Array, "B K 3"] | None = None
    maps: list[Float[Array, "B H W C"]] | None = None
    images: Float[Array, "B 256 256 3"] | None = None
    image_weight: Float[Array, "B"] | None = None
    silhouette: Silhouette | None = None
    certainty: Float[Array, "B"] | None = None
    drop_path: Float[Array, "B depth 2"] | None = None

    @property
    def rows(self) -> int:
        """B."""
        return self.view.crop.shape[0]


def conditioned(inputs: Inputs, context: str) -> Inputs:
    """Hide the inputs that are not in a context.

    Args:
      inputs: all inputs.
      context: what to condition on, one of CONTEXTS.

    Raises:
      ValueError: unknown context.
    """
    if context not in CONTEXTS:
        raise ValueError(f"unknown context {context!r}: choose among {', '.join(CONTEXTS)}")
    if context == "image":
        hidden = {
            name: None if (value := getattr(inputs, name)) is None else jnp.zeros_like(value)
            for name in ("keypoints", "keypoints3d")
        }
        return dataclasses.replace(inputs, **hidden)
    if context == "keypoints":
        return dataclasses.replace(inputs, maps=None, images=None)
    return inputs


def joined(parts: Sequence[Any]) -> Any:
    """Join the rows of inputs, or of other trees of arrays, on the host.

    All must be of one system.
    """
    return jax.tree.map(lambda *rows: np.concatenate(rows), *parts)


def joined_rows(parts: Sequence[Any]) -> Any:
    """As `joined`, inside of a jitted function."""
    return jax.tree.map(lambda *rows: jnp.concatenate(rows), *parts)


def repeated(inputs: Inputs, times: int) -> Inputs:
    """Repeat each row `times` times; the copies of a row are adjacent."""
    return jax.tree.map(lambda x: jnp.repeat(x, times, 0), inputs)


Decode = Callable[[Float[Array, "B L D"]], Float[Array, "B J 3 3"]]
"""From embeddings to joint rotations."""


def turned(decode: Decode, turn: Float[Array, "B 3 3"]) -> Decode:
    """A decoder of upright inputs (`upright`), with the root rotation in the photo's axes.

    Args:
      decode: to rotations in the upright axes.
      turn: from these axes to those of the photo's camera.
    """

    def posed(embeddings: Float[Array, "B L D"]) -> Float[Array, "B J 3 3"]:
        rotmats = decode(embeddings)
        return rotmats.at[:, 0].set(turn @ rotmats[:, 0])

    return posed


def upright(inputs: Inputs) -> tuple[Float[Array, "B 3 3"], Inputs]:
    """Convert inputs to a camera that is turned about its axis, so that the person is upright.

    Returns:
      the rotations from the axes of that camera to those of the photo's camera, and the inputs,
      whose crop is the detector's region.
    """
    turn, view = inputs.view.upright()
    own = dataclasses.replace(inputs, view=view)
    if inputs.keypoints is not None:
        middle = view.centre[:, None]
        points = (inputs.keypoints[..., :2] - middle) @ turn[:, :2, :2] + middle
        keypoints = jnp.concatenate([points, inputs.keypoints[..., 2:]], -1)
        own = dataclasses.replace(own, keypoints=keypoints)
    if inputs.keypoints3d is not None:
        own = dataclasses.replace(own, keypoints3d=inputs.keypoints3d @ turn)
    return turn, own

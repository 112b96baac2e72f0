"""What differs between the tokenizers of bodies and of hands: the model and the augmentation."""

from collections.abc import Callable
from typing import NamedTuple

import ml_collections
import smpl_jax
from jaxtyping import Array, Float

from genhmr_jax.data import views
from genhmr_jax.data.hands import views as hand_views
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.hand import hand_keypoint_model, load_hand
from genhmr_jax.geometry.keypoints import keypoint_model


class Skeleton(NamedTuple):
    """The model that poses are compared on, and the augmentation of a pose under a key."""

    model: smpl_jax.SmplModel
    augment: Callable[[Float[Array, "W"], Array], Float[Array, "J 3 3"]]


def find(skeleton: str, data: ml_collections.ConfigDict) -> Skeleton:
    """The skeleton of this name, one of core.sizes.SKELETONS.

    Args:
      data: of the stage: `body` is the name or the file of a body or of a hand, `view` has
        overrides of data.views.ViewSpec, or of data.hands.views.HandViewSpec.
    """
    values = data.view.to_dict()
    if skeleton == "hand":
        of_hands = hand_views.HandViewSpec(**values)
        augment = lambda pose, key: hand_views.augment_hand(pose, key, of_hands)
        return Skeleton(hand_keypoint_model(load_hand(data.body)), augment)
    of_bodies = views.ViewSpec(**values)
    augment = lambda pose, key: views.augment_pose(pose, key, of_bodies)
    return Skeleton(keypoint_model(load_body(data.body)), augment)

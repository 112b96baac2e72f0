"""How people and scenes look, by the name of a set of families.

"v1" is the appearance of the first public test set, whose images depend on every random draw of it.
"training" is that of training images. "v2" is that of the second public test set: its skins, heads,
clothes, lights, backgrounds and cameras are of families that training images never have.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from genhmr_jax.data.synthetic.appearance import Outfit, Wardrobe, dress
from genhmr_jax.data.synthetic.backgrounds import room
from genhmr_jax.data.synthetic.camera import noise
from genhmr_jax.data.synthetic.clothes import dress_for_training
from genhmr_jax.data.synthetic.light import light_body
from genhmr_jax.data.synthetic.unseen_people import dress_unseen
from genhmr_jax.data.synthetic.unseen_scenes import light_unseen, noise_unseen, scenery


@dataclasses.dataclass(frozen=True)
class Appearance:
    """The families of a set.

    Attributes:
      dress: a random outfit.
      light: (V, 3) irradiance on normals (V, 3), see light.light_body.
      scenery: a procedural background, (size, size, 3) in 0..1.
      noise: what the camera makes of a picture (S, S, 3) in 0..1; uint8.
      quality: range of the quality of JPEG files, the second value excluded.
    """

    dress: Callable[[Wardrobe, np.random.Generator], Outfit]
    light: Callable[..., np.ndarray] = light_body
    scenery: Callable[[np.random.Generator, int], np.ndarray] = room
    noise: Callable[[np.ndarray, np.random.Generator], np.ndarray] = noise
    quality: tuple[int, int] = (70, 96)


APPEARANCES = {
    "v1": Appearance(dress),
    "training": Appearance(dress_for_training),
    "v2": Appearance(dress_unseen, light_unseen, scenery, noise_unseen, (30, 71)),
}
TRAINING = "training"
"""The default of everything that renders training images."""

"""Image encoders by name: square crops (B, 256, 256, 3) in 0..1 -> list of maps (B, h, w, C), finest first.

`blazepose_full` (also heavy, lite): the frozen inner maps of a network trained for pose, like the paper's pose-pretrained ViT.
It has no parameters of ours: its maps can be computed ahead of training. `vit_s` .. `vit_h` and `dinov2_s` .. `dinov2_l` (models/vit.py)
carry their parameters in the model; paper scale. `look` is not run at all: its two maps are what the detector's own looks left
(looks.Looks), in the axes of the region that BlazePose chose, in which the person stands upright.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from genhmr_jax.detect.blazepose_features import CHANNELS, GRID
from genhmr_jax.geometry import published_crop
from genhmr_jax.geometry.crop import crop_image
from genhmr_jax.nets.vit import is_vit

CROP_SIZE = 256
LOOK = "look"
INNER = ("inner", "mirrored")
"""The maps among a look's evidence: large, and kept in float16."""
STORED = ("maps", "images", *(f"look_{name}" for name in INNER))
"""Names of what is kept of an image itself; without them a sample shows none."""
CROPS = ("own", "hmr2")
"""How a picture is cut: by data/transforms.py, or as HMR2.0 and TokenHMR do (baselines/crop.py)."""


def crop_images(
    image: np.ndarray, crops: np.ndarray, padded: int, how: str = "own", blur: bool = True
) -> jax.Array:
    """The crops of one image as float32 (padded, 256, 256, 3) in 0..1.

    Args:
      image: uint8 (H, W, 3).
      crops: (P, 3) = cx, cy, side in px.
      padded: rows to return; those beyond P are black.
      how: one of CROPS.
      blur: of "hmr2", see baselines/crop.py; "own" has one rule for all sizes.
    """
    cut = crop_image if how == "own" else functools.partial(published_crop.crop_image, blur=blur)
    pixels = np.zeros((padded, CROP_SIZE, CROP_SIZE, 3), np.float32)
    for row, crop in enumerate(crops):
        pixels[row] = cut(image, crop, CROP_SIZE)
    return jnp.asarray(pixels)


def encode(encoder: str, pixels: jax.Array) -> list[jax.Array]:
    """The maps of a frozen encoder for crops (B, 256, 256, 3) in 0..1. Raises ValueError for an unknown name.

    Those of LOOK are of looks at these very crops, in which the person should stand upright.
    """
    if encoder == LOOK:
        plain, mirrored = (encode("blazepose_full", p)[-1] for p in (pixels, pixels[:, :, ::-1]))
        return maps_of_looks(jnp.stack([plain, mirrored], 1))
    if not encoder.startswith("blazepose"):
        raise ValueError(f"{encoder!r} is no frozen encoder: choose look, blazepose_full, blazepose_heavy or blazepose_lite")
    from genhmr_jax.detect import blazepose

    return blazepose.feature_maps(pixels, encoder.removeprefix("blazepose_"))


def stored_shapes(encoder: str, rows: int) -> dict[str, Any]:
    """What is kept of `rows` crops for training: a frozen encoder's "maps" (float16), or "images" (uint8) for one that is trained.

    Of LOOK it is the evidence of the detector's own look, see blazepose.Landmarks.
    """
    if encoder == LOOK:
        shapes = {"landmarks": (39, 5), "world": (39, 3), "heat": (39, 6), "region": (4,)}
        shapes |= dict.fromkeys(INNER, (GRID, GRID, CHANNELS))
        kind = lambda name: jnp.float16 if name in INNER else jnp.float32  # noqa: E731
        return {f"look_{name}": jax.ShapeDtypeStruct((rows, *shape), kind(name)) for name, shape in shapes.items()}
    if is_vit(encoder):
        return {"images": jax.ShapeDtypeStruct((rows, CROP_SIZE, CROP_SIZE, 3), jnp.uint8)}
    pixels = jax.ShapeDtypeStruct((rows, CROP_SIZE, CROP_SIZE, 3), jnp.float32)
    maps = jax.eval_shape(lambda p: encode(encoder, p), pixels)
    return {"maps": [jax.ShapeDtypeStruct(m.shape, jnp.float16) for m in maps]}


def maps_of_looks(inner: Float[Array, "B 2 8 8 288"]) -> list[Float[Array, "B 8 8 288"]]:
    """The two maps of `looks.Looks.inner` as a network sees them: the second mirrored back, so that places agree."""
    inner = inner.astype(jnp.float32)
    return [inner[:, 0], inner[:, 1, :, ::-1]]


def from_stored(sample: dict[str, Any]) -> dict[str, Any]:
    """A sample with its kept maps or images as the network takes them: maps in float32, images in 0..1; of looks maps and region."""
    if "look_region" in sample:
        kept = {name: value for name, value in sample.items() if not name.startswith("look_")} | {"region": sample["look_region"]}
        if "look_inner" not in sample:
            return kept
        return kept | {"maps": maps_of_looks(jnp.stack([sample[f"look_{name}"] for name in INNER], 1))}
    if "images" in sample:
        return sample | {"images": sample["images"].astype(jnp.float32) / 255.0}
    return sample | {"maps": [m.astype(jnp.float32) for m in sample["maps"]]} if "maps" in sample else sample

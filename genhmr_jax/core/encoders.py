"""Image encoders by name: from the picture of a person to feature maps.

* `blazepose_full` (also heavy, lite): the inner maps of a frozen pose network for a crop of the
  photo. Like the paper's ViT, it was trained to estimate poses. It adds no parameters to the
  system, and maps can be computed before training.
* `detector`: the two maps that BlazePose computed when it detected the person
  (Detections.features), in the axes of its own region, in which the person is upright. No further
  network runs on a photo.
* `vit_s` .. `vit_h`, `dinov2_s` .. `dinov2_l` (nets/vit.py): part of the system, with parameters in
  its checkpoint. These have the size of the paper's encoder.

A new encoder is a class with the methods of `Encoder`, added by `register`.
"""

import dataclasses
import functools
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from genhmr_jax.detect import blazepose
from genhmr_jax.detect.blazepose import Evidence
from genhmr_jax.detect.detections import CHANNELS, GRID, Detections
from genhmr_jax.geometry import published_crop
from genhmr_jax.geometry.crop import CROP_SIZE, crop_image

CROPS = ("own", "hmr2")
"""Ways to crop: geometry/crop.py, or that of HMR2.0 and TokenHMR (geometry/published_crop.py)."""


class Encoder(Protocol):
    """An image encoder.

    Attributes:
      trained: whether it is part of the system. The inputs of the system are then the pixels of the
        crop.
      upright: whether its maps are in the axes of the detector's region, in which people are
        upright, and not in those of the crop.
      channels: of its maps, the finest map first.
      extent: half width and half height of the maps, in half sides of the crop (or of the region).
    """

    trained: bool
    upright: bool
    channels: tuple[int, ...]
    extent: tuple[float, float]

    def of_photo(
        self, image: np.ndarray, people: Detections, crops: np.ndarray, rows: int
    ) -> dict[str, Any]:
        """Compute the encoder's fields of core.inputs.Inputs for the people of a photo.

        Args:
          image: uint8 (H, W, 3).
          people: P people of the photo.
          crops: (P, 3) cx, cy, side in px of each person.
          rows: number of rows to return, at least P.
        """

    def encode(self, pixels: Float[Array, "B 256 256 3"]) -> list[Float[Array, "B h w C"]]:
        """Compute the maps of crops in 0..1.

        Raises:
          TypeError: the encoder is part of the system.
        """

    def stored_shapes(self, rows: int) -> dict[str, Any]:
        """The shapes of the fields of data.rows.Rows that store its output for training."""


@dataclasses.dataclass(frozen=True)
class FrozenBlazePose:
    """The inner maps of a BlazePose at 32 x 32, 16 x 16 and 8 x 8."""

    variant: str
    trained = upright = False
    extent = (1.0, 1.0)

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of its maps."""
        return tuple(m.shape[-1] for m in self.stored_shapes(1)["maps"])

    def of_photo(
        self, image: np.ndarray, people: Detections, crops: np.ndarray, rows: int
    ) -> dict[str, Any]:
        """The maps of each crop."""
        return {"maps": self.encode(jnp.asarray(crop_images(image, crops, rows)))}

    def encode(self, pixels: Float[Array, "B 256 256 3"]) -> list[Float[Array, "B h w C"]]:
        """The maps."""
        return blazepose.feature_maps(pixels, self.variant)

    def stored_shapes(self, rows: int) -> dict[str, Any]:
        """The maps, in float16."""
        pixels = jax.ShapeDtypeStruct((rows, CROP_SIZE, CROP_SIZE, 3), jnp.float32)
        maps = jax.eval_shape(self.encode, pixels)
        return {"maps": [jax.ShapeDtypeStruct(m.shape, jnp.float16) for m in maps]}


@dataclasses.dataclass(frozen=True)
class DetectorFeatures:
    """The maps that the detector has computed for each person."""

    trained, upright = False, True
    channels = (CHANNELS, CHANNELS)
    extent = (1.0, 1.0)

    def of_photo(
        self, image: np.ndarray, people: Detections, crops: np.ndarray, rows: int
    ) -> dict[str, Any]:
        """The maps; the image weight is 0 for a person whom BlazePose did not detect."""
        people = people.padded(rows)
        weight = people.has_features.astype(np.float32)
        return {"maps": maps_of_features(people.features), "image_weight": weight}

    def encode(self, pixels: Float[Array, "B 256 256 3"]) -> list[Float[Array, "B h w C"]]:
        """The maps of the crops themselves, in which the person should be upright."""
        plain, mirrored = (blazepose.feature_maps(p)[-1] for p in (pixels, pixels[:, :, ::-1]))
        return maps_of_features(jnp.stack([plain, mirrored], 1))

    def stored_shapes(self, rows: int) -> dict[str, Any]:
        """The detector's Evidence, with the inner maps in float16."""
        shape = lambda kind, *sizes: jax.ShapeDtypeStruct((rows, *sizes), kind)
        inner = shape(jnp.float16, GRID, GRID, CHANNELS)
        evidence = Evidence(
            landmarks=shape(jnp.float32, blazepose.LANDMARKS, 5),
            world=shape(jnp.float32, blazepose.LANDMARKS, 3),
            heat=shape(jnp.float32, blazepose.LANDMARKS, 6),
            region=shape(jnp.float32, 4),
            inner=inner,
            mirrored=inner,
        )
        return {"evidence": evidence}


@dataclasses.dataclass(frozen=True)
class TrainedVit:
    """A ViT whose parameters are part of the system."""

    name: str
    crop: str = "own"
    trained, upright = True, False

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of its one map."""
        from genhmr_jax.nets.vit import VitSpec

        return (VitSpec.named(self.name).width,)

    @property
    def extent(self) -> tuple[float, float]:
        """It gets the middle of the crop."""
        from genhmr_jax.nets.vit import VitSpec

        height, width = VitSpec.named(self.name).image
        return width / CROP_SIZE, height / CROP_SIZE

    def of_photo(
        self, image: np.ndarray, people: Detections, crops: np.ndarray, rows: int
    ) -> dict[str, Any]:
        """The pixels of each crop."""
        return {"images": crop_images(image, crops, rows, self.crop)}

    def encode(self, pixels: Float[Array, "B 256 256 3"]) -> list[Float[Array, "B h w C"]]:
        """Raise TypeError: the system runs this encoder."""
        raise TypeError(f"{self.name} is part of a system")

    def stored_shapes(self, rows: int) -> dict[str, Any]:
        """The pixels of each crop."""
        return {"images": jax.ShapeDtypeStruct((rows, CROP_SIZE, CROP_SIZE, 3), jnp.uint8)}


_ENCODERS: dict[str, Encoder] = {
    **{f"blazepose_{variant}": FrozenBlazePose(variant) for variant in blazepose.FEATURE_NODES},
    "detector": DetectorFeatures(),
}


def register(name: str, encoder: Encoder) -> None:
    """Add an encoder, for `find`."""
    _ENCODERS[name] = encoder


def find(name: str) -> Encoder:
    """The encoder of this name.

    Raises:
      ValueError: an unknown name; the message lists the names.
    """
    if name not in _ENCODERS:
        from genhmr_jax.nets.vit import VitSpec, is_vit

        if is_vit(name):
            VitSpec.named(name)
            return TrainedVit(name)
        names = f"{', '.join(_ENCODERS)}, vit_s .. vit_h, dinov2_s .. dinov2_l"
        raise ValueError(f"unknown image encoder {name!r}: choose among {names}")
    return _ENCODERS[name]


def crop_images(
    image: np.ndarray, crops: np.ndarray, rows: int, how: str = "own", blur: bool = True
) -> Float[np.ndarray, "R 256 256 3"]:
    """The crops of one image as float32 in 0..1; rows beyond the crops are black.

    Args:
      image: uint8 (H, W, 3).
      crops: (P, 3) = cx, cy, side in px.
      rows: number of rows to return.
      how: one of CROPS.
      blur: for "hmr2", see geometry/published_crop.py.
    """
    cut = crop_image if how == "own" else functools.partial(published_crop.crop_image, blur=blur)
    pixels = np.zeros((rows, CROP_SIZE, CROP_SIZE, 3), np.float32)
    for row, crop in enumerate(crops):
        pixels[row] = cut(image, crop, CROP_SIZE)
    return pixels


def maps_of_features(features: Float[Any, "B 2 8 8 288"]) -> list[Float[Any, "B 8 8 288"]]:
    """The two maps of Detections.features as the input of a network.

    The map of the mirror image is mirrored back, so that locations agree.
    """
    features = features.astype(np.float32)
    return [features[:, 0], features[:, 1, :, ::-1]]

"""The networks of HMR2.0, TokenHMR and MQ-HMR: from a crop to one body, without sampling."""

import dataclasses
import functools
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Float
from smpl_jax.rotations import ROT6D_LAYOUTS

from genhmr_jax.core import encoders
from genhmr_jax.core.encoders import CROPS
from genhmr_jax.nets.rows import by_rows
from genhmr_jax.nets.vit import Vit, VitSpec, normalise
from genhmr_jax.systems.regressors.heads import Body, Hmr2Head, TokenHmrHead
from genhmr_jax.systems.regressors.multi_query import MultiQueryHead, MultiQuerySpec
from genhmr_jax.systems.regressors.query_decoder import QueryDecoderSpec

KINDS = ("hmr2", "tokenhmr", "mqhmr")
DECODERS = {"hmr2": QueryDecoderSpec, "tokenhmr": QueryDecoderSpec, "mqhmr": MultiQuerySpec}


@dataclasses.dataclass(frozen=True)
class RegressorSpec:
    """The architecture and sizes of a regressor.

    Attributes:
      kind: one of KINDS.
      encoder: "vit_s" .. "vit_h", "dinov2_s" .. "dinov2_l"; the published models have vit_h. Of
        MQ-HMR also a frozen one of core/encoders.py.
      encoder_depth: number of its first layers to use; 0: all layers.
      decoder: sizes of the decoder of the query, whose context is the encoder's width, or of
        MQ-HMR's queries; None: those of DECODERS.
      layout: of HMR2's 6D rotations, see smpl_jax.rotations: the published HMR2.0 has "columns".
      crop: the way in which pictures were cropped in training, one of core.encoders.CROPS: "hmr2"
        for published weights, "own" for those that were trained here.
    """

    kind: str = "hmr2"
    encoder: str = "vit_h"
    encoder_depth: int = 0
    decoder: QueryDecoderSpec | MultiQuerySpec | None = None
    layout: str = "columns"
    crop: str = "own"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"a regressor is of kind {', '.join(KINDS)}, not {self.kind!r}")
        if not isinstance(self.decoder, DECODERS[self.kind] | None):
            raise ValueError(f"the decoder of {self.kind} is a {DECODERS[self.kind].__name__}")
        if self.decoder is None:
            object.__setattr__(self, "decoder", DECODERS[self.kind]())
        if self.crop not in CROPS:
            raise ValueError(f"a crop is {' or '.join(CROPS)}, not {self.crop!r}")
        if self.layout not in ROT6D_LAYOUTS:
            choices = " or ".join(ROT6D_LAYOUTS)
            raise ValueError(f"layout {self.layout!r}: choose {choices}")
        if (named := self._named) and not 0 <= self.encoder_depth <= named.depth:
            has = f"{self.encoder} has {named.depth} layers"
            raise ValueError(f"encoder_depth is {self.encoder_depth}: {has}")
        if self.kind == "mqhmr":
            return
        width = VitSpec.named(self.encoder).width
        if self.decoder.context != width:
            object.__setattr__(self, "decoder", dataclasses.replace(self.decoder, context=width))

    @property
    def vit(self) -> VitSpec | None:
        """Sizes of an encoder that is part of the network; None: its maps are inputs."""
        named = self._named
        return named and dataclasses.replace(named, depth=self.encoder_depth or named.depth)

    @property
    def _named(self) -> VitSpec | None:
        """The whole encoder of that name. Raises ValueError: there is none."""
        return VitSpec.named(self.encoder) if encoders.find(self.encoder).trained else None

    @property
    def depth(self) -> int:
        """Layers of that encoder; 0 without one."""
        return self.vit.depth if self.vit else 0

    @property
    def upright(self) -> bool:
        """Whether the maps, and so the answers, are in the axes of the detector's region."""
        return encoders.find(self.encoder).upright

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "RegressorSpec":
        """The inverse of `dataclasses.asdict`, for a config.json.

        Raises:
          KeyError, TypeError, ValueError: an entry is missing, unknown or wrong. There is no
            default for the crop: a wrong one only shows as an error of millimetres.
        """
        if values["kind"] not in KINDS:
            raise ValueError(f"a regressor is of kind {', '.join(KINDS)}, not {values['kind']!r}")
        decoder = DECODERS[values["kind"]](**values["decoder"])
        return RegressorSpec(**values | {"decoder": decoder, "crop": values["crop"]})


class Regressor(nnx.Module):
    """Crops (B, 256, 256, 3) in 0..1, or maps of a frozen encoder -> `Body`."""

    def __init__(self, spec: RegressorSpec, *, rngs: nnx.Rngs):
        if spec.vit:
            self.encoder = Vit(spec.vit, rngs=rngs)
        if spec.kind == "mqhmr":
            channels = encoders.find(spec.encoder).channels
            self.head = MultiQueryHead(spec.decoder, channels, rngs=rngs)
        elif spec.kind == "tokenhmr":
            self.head = TokenHmrHead(spec.decoder, rngs=rngs)
        else:
            self.head = Hmr2Head(spec.decoder, spec.layout, rngs=rngs)

    def __call__(
        self,
        images: Float[Array, "B 256 256 3"] | None,
        drop_path: Float[Array, "B depth 2"] | None = None,
        remat: str = "none",
        frozen_layers: int = 0,
        *,
        maps: list[Float[Array, "B H W _"]] | None = None,
    ) -> Body:
        """The bodies. `drop_path`, `remat` and `frozen_layers` are those of `Vit`, in training."""
        maps = self.maps(images, drop_path, remat, frozen_layers) if maps is None else maps
        if isinstance(self.head, MultiQueryHead):
            return self.head(maps, remat)
        (features,) = maps
        return self.head(by_rows(features.reshape(features.shape[0], -1, features.shape[-1])))

    def maps(
        self,
        images: Float[Array, "B 256 256 3"],
        drop_path: Float[Array, "B depth 2"] | None = None,
        remat: str = "none",
        frozen_layers: int = 0,
    ) -> list[Float[Array, "B H W C"]]:
        """The encoder's map of crops."""
        pixels = normalise(images, self.encoder.spec)
        return self.encoder(pixels, drop_path, remat, frozen_layers)


@functools.lru_cache(maxsize=16)
@functools.lru_cache(maxsize=16)
def graph(spec: RegressorSpec) -> tuple[nnx.GraphDef, Any]:
    """The graph, and the shapes of the parameters as nested dictionaries; no array is made."""
    structure, state = nnx.split(nnx.eval_shape(lambda: Regressor(spec, rngs=nnx.Rngs(0))))
    return structure, nnx.to_pure_dict(state)


def init(spec: RegressorSpec, key: jax.Array) -> Any:
    """New parameters."""
    return nnx.to_pure_dict(nnx.split(Regressor(spec, rngs=nnx.Rngs(key)))[1])

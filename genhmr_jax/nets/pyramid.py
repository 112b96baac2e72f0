"""Feature pyramids: from encoder maps to maps of one width for the deformable attention.

Maps are cast to the type of the parameters on entry.
"""

from collections.abc import Sequence

import jax
from flax import nnx
from jaxtyping import Array, Float

from genhmr_jax.nets.rows import by_rows


class ProjectLevels(nnx.Module):
    """A 1x1 convolution and LayerNorms for each map of an encoder with maps at several scales."""

    def __init__(self, channels: Sequence[int], width: int, *, rngs: nnx.Rngs):
        def level(c: int) -> nnx.Dict:
            layers = {
                "norm_in": nnx.LayerNorm(c, rngs=rngs),
                "proj": nnx.Linear(c, width, rngs=rngs),
                "norm": nnx.LayerNorm(width, rngs=rngs),
            }
            return nnx.Dict(layers)

        self.levels = nnx.Dict({f"level_{i}": level(c) for i, c in enumerate(channels)})

    def __call__(self, maps: list[Float[Array, "B H W _"]]) -> list[Float[Array, "B H W C"]]:
        """Project the maps.

        Raises:
          ValueError: the number of maps differs from the number of levels.
        """
        if len(maps) != len(self.levels):
            raise ValueError(
                f"{len(maps)} feature maps, but this pyramid has {len(self.levels)} levels"
            )
        levels = [self.levels[f"level_{i}"] for i in range(len(maps))]
        return [
            v["norm"](v["proj"](v["norm_in"](m.astype(v["proj"].kernel[...].dtype))))
            for v, m in zip(levels, maps, strict=True)
        ]


class SimplePyramid(nnx.Module):
    """A pyramid of a ViT's single map at scales of 4, 2, 1 and 0.5 (ViTDet, Li et al. 2022, §3).

    Larger maps come from transposed convolutions, the smaller one from pooling. Each scale can be
    given once, in any order; the results are ordered from the finest to the coarsest.
    """

    SCALES = (4.0, 2.0, 1.0, 0.5)

    def __init__(
        self,
        channels: int,
        width: int,
        scales: Sequence[float] = (4.0, 2.0, 1.0),
        *,
        rngs: nnx.Rngs,
    ):
        unknown = [s for s in scales if s not in self.SCALES]
        if unknown:
            raise ValueError(f"pyramid scales {unknown}: choose among {self.SCALES}")
        if not scales or len(set(scales)) < len(scales):
            choices = f"choose one or more among {self.SCALES}, each once"
            raise ValueError(f"pyramid scales {tuple(scales)}: {choices}")
        self.scales = tuple(sorted(scales, reverse=True))
        up = lambda i, o: nnx.ConvTranspose(i, o, (2, 2), strides=(2, 2), rngs=rngs)
        half, quarter = max(channels // 2, 1), max(channels // 4, 1)
        levels = {}
        for i, scale in enumerate(self.scales):
            last = {4.0: quarter, 2.0: half}.get(scale, channels)
            level = {
                "proj": nnx.Conv(last, width, (1, 1), rngs=rngs),
                "norm": nnx.LayerNorm(width, rngs=rngs),
            }
            level["conv"] = nnx.Conv(width, width, (3, 3), padding="SAME", rngs=rngs)
            if scale == 4.0:
                level |= {
                    "up_a": up(channels, half),
                    "up_norm": nnx.LayerNorm(half, rngs=rngs),
                    "up_b": up(half, quarter),
                }
            elif scale == 2.0:
                level |= {"up_a": up(channels, half)}
            levels[f"level_{i}"] = nnx.Dict(level)
        self.levels = nnx.Dict(levels)

    def __call__(self, maps: list[Float[Array, "B H W _"]]) -> list[Float[Array, "B h w C"]]:
        out = []
        for i, scale in enumerate(self.scales):
            level = self.levels[f"level_{i}"]
            x = maps[-1].astype(level["proj"].kernel[...].dtype)
            if scale == 4.0:
                x = level["up_norm"](by_rows(level["up_a"](x)))
                x = level["up_b"](by_rows(jax.nn.gelu(x, approximate=False)))
            elif scale == 2.0:
                x = level["up_a"](x)
            elif scale == 0.5:
                x = nnx.max_pool(x, (2, 2), strides=(2, 2))
            for layer in ("proj", "conv", "norm"):
                x = level[layer](by_rows(x))
            out.append(by_rows(x))
        return out

"""The architecture of NeurIK."""

import dataclasses
from typing import Any

from genhmr_jax.nets.sizes import check_heads, check_sizes


@dataclasses.dataclass(frozen=True)
class NeurIkSpec:
    """Sizes of the network.

    Attributes:
      marker_width: features of a marker in the spatial network.
      marker_blocks: graph convolutions over the markers of a frame.
      width, layers, heads, mlp_ratio: of the transformer over time.
      causal: a frame depends on itself and those before it only.
      window: frames that are solved together.
      least_rate, most_rate: frames a second for which it is trained.
    """

    marker_width: int = 32
    marker_blocks: int = 2
    width: int = 160
    layers: int = 4
    heads: int = 5
    mlp_ratio: int = 2
    causal: bool = False
    window: int = 32
    least_rate: float = 20.0
    most_rate: float = 60.0

    def __post_init__(self) -> None:
        if self.window < 2:
            raise ValueError(f"window {self.window}: two frames or more")
        check_sizes(self, "marker_width", "width", "heads", "mlp_ratio")
        check_sizes(self, "marker_blocks", "layers", least=0)
        check_heads(self.width, 2 * self.heads)  # pairs of channels are turned by time
        if not 0 < self.least_rate <= self.most_rate:
            raise ValueError(f"rates {self.least_rate} to {self.most_rate}")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "NeurIkSpec":
        """The spec of a config's or a model folder's values.

        Raises:
          TypeError: an unknown name. ValueError: sizes that do not fit.
        """
        return cls(**values)

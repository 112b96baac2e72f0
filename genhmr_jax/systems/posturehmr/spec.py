"""The architecture and sizes of PostureHMR (CVPR 2024), apart from the networks."""

import dataclasses
from typing import Any

from genhmr_jax.core import encoders
from genhmr_jax.geometry.keypoints import DETECTED
from genhmr_jax.nets.sizes import check_heads, check_sizes

PROCESSES = ("kinematic", "linear", "noise")
CONDITIONS = ("mesh2d", "global")
KEYS = ("vertices", "markers")
JOINTS2D = 17
"""Keypoints among the points of the 2D mesh stage: COCO's."""


@dataclasses.dataclass(frozen=True)
class Mesh2dSpec:
    """The stage that estimates the 2D mesh.

    Attributes:
      vertices: C of the coarse mesh.
      markers: number of its vertices that are points of this stage, beside the JOINTS2D.
      num_keypoints: K of the detected keypoints.
      encoder: a name in core/encoders.py, of an encoder whose maps are inputs.
      encoder_channels: channels of its maps, finest first; () makes a stage without image.
      cell_width: channels to which each cell of a map is reduced.
      cells: height and width of each map.
      width, depth: of the network.
      point_width: features of a point, from which its location and its confidence follow.
      adaptive: whether the matrix from points to vertices depends on the confidences, as in
        VirtualMarker (Ma et al. 2023), or is one matrix, as the paper says.
    """

    vertices: int = 431
    markers: int = 64
    num_keypoints: int = 23
    encoder: str = "detector"
    encoder_channels: tuple[int, ...] = (288, 288)
    cell_width: int = 8
    cells: int = 8
    width: int = 320
    depth: int = 2
    point_width: int = 16
    adaptive: bool = False

    def __post_init__(self) -> None:
        check_sizes(self, "vertices", "width", "point_width")
        check_sizes(self, "depth", "markers", least=0)
        if self.num_keypoints != len(DETECTED):
            raise ValueError(f"num_keypoints is {self.num_keypoints}: {len(DETECTED)} are needed")
        if self.markers > self.vertices:
            raise ValueError(f"{self.markers} markers of {self.vertices} vertices")
        if not self.encoder_channels:
            return
        check_sizes(self, "cell_width", "cells")
        found = encoders.find(self.encoder)
        if found.trained:
            raise ValueError(f"encoder {self.encoder!r}: choose one whose maps are inputs")
        if found.channels != self.encoder_channels:
            maps = f"maps of {found.channels} channels, not {self.encoder_channels}"
            raise ValueError(f"encoder {self.encoder!r} has {maps}")

    @property
    def used_encoder(self) -> str | None:
        """The encoder's name; None without image."""
        return self.encoder if self.encoder_channels else None

    @property
    def points(self) -> int:
        """P: keypoints and markers."""
        return JOINTS2D + self.markers

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "Mesh2dSpec":
        """The inverse of `dataclasses.asdict`, also after a conversion to JSON and back."""
        return Mesh2dSpec(**values | {"encoder_channels": tuple(values["encoder_channels"])})


@dataclasses.dataclass(frozen=True)
class PostureSpec:
    """A model of both stages.

    Attributes:
      mesh2d: the 2D mesh stage.
      width, layers, heads, mlp_ratio: of the decoder. The paper's embedding has 128 channels, its
        transformer 512; the numbers of layers and heads are not published.
      steps: T, from the template to the person.
      process: the states between them. "kinematic": poses of the body, by forward kinematics (the
        paper). "linear": vertices on straight lines (the paper's ablation). "noise": as "linear",
        but from Gaussian noise in place of the template.
      condition: what the decoder is given of the picture: the 2D mesh (the paper), or one global
        feature of the 2D mesh stage (the paper's baseline).
      keys: what the attention of a vertex reads: all "vertices" (the paper), or the "markers" of
        the 2D mesh stage, with which the attention takes a tenth of its time on a CPU.
      whole_width, whole_depth, whole_rank: of an MLP over all markers at once, whose velocity is
        added to that of the layers (ours, model.py:Whole); 0 wide: without it, as in the paper.
    """

    mesh2d: Mesh2dSpec = Mesh2dSpec()
    width: int = 128
    layers: int = 3
    heads: int = 4
    mlp_ratio: int = 2
    steps: int = 10
    process: str = "kinematic"
    condition: str = "mesh2d"
    keys: str = "vertices"
    whole_width: int = 0
    whole_depth: int = 2
    whole_rank: int = 96

    def __post_init__(self) -> None:
        if self.process not in PROCESSES:
            raise ValueError(f"process {self.process!r}: choose among {', '.join(PROCESSES)}")
        if self.condition not in CONDITIONS:
            raise ValueError(f"condition {self.condition!r}: choose among {', '.join(CONDITIONS)}")
        if self.keys not in KEYS:
            raise ValueError(f"keys {self.keys!r}: choose among {', '.join(KEYS)}")
        check_sizes(self, "width", "heads", "mlp_ratio", "steps")
        if self.whole_width:
            check_sizes(self, "whole_rank")
        check_sizes(self, "layers", "whole_width", "whole_depth", least=0)
        check_heads(self.width, self.heads)
        if self.width % 2:
            raise ValueError(f"width {self.width} must be even")

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "PostureSpec":
        """The inverse of `dataclasses.asdict`, also after a conversion to JSON and back."""
        return PostureSpec(**values | {"mesh2d": Mesh2dSpec.from_dict(values["mesh2d"])})

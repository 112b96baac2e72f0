"""The networks of NeurIK: over the markers of a frame, and over the frames of a window."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from genhmr_jax.geometry.anatomy import GROUPS
from genhmr_jax.geometry.markers import MARKERS
from genhmr_jax.nets.graph import GraphResidualBlock
from genhmr_jax.nets.rows import by_rows
from genhmr_jax.nets.temporal import TemporalTransformer
from genhmr_jax.systems.biopose.frames import ERRORS, MOTION, OUTPUTS, Answer, Frames, adjacency
from genhmr_jax.systems.biopose.kinematics import INNER
from genhmr_jax.systems.biopose.spec import NeurIkSpec

SCALE_RANGE = 0.4
"""Scales are 1 - SCALE_RANGE to 1 + SCALE_RANGE."""
_FIRST_SPREAD = np.log(0.05)  # radians and metres
_ADJACENCY = adjacency()


class NeurIk(nnx.Module):
    """Markers of a window -> outputs of each frame, and scales of the person.

    The spatial network embeds each marker with weights that all markers share and a vector of its
    own, mixes markers of neighbouring bodies by graph convolutions, and projects all of them to the
    features of a frame. The networks compute in the type of their parameters; answers are float32.
    """

    def __init__(self, spec: NeurIkSpec, *, rngs: nnx.Rngs):
        wide, width = spec.marker_width, spec.width
        own = nnx.initializers.normal(0.1)(rngs.params(), (len(MARKERS), wide))
        self.own = nnx.Param(own)
        self.embed_marker = nnx.Linear(6, wide, rngs=rngs)
        block = lambda: GraphResidualBlock(wide, rngs=rngs)
        self.marker_blocks = nnx.Dict(
            {f"block_{i:02d}": block() for i in range(spec.marker_blocks)}
        )
        self.gather = nnx.Linear(len(MARKERS) * wide, width, rngs=rngs)
        self.inp = nnx.Linear(2 * INNER + MOTION, width, rngs=rngs)
        sizes = spec.width, spec.layers, spec.heads, spec.mlp_ratio, spec.causal
        self.over_time = TemporalTransformer(*sizes, rngs=rngs)
        zero = nnx.initializers.zeros
        self.up = nnx.Linear(width, 2 * width, rngs=rngs)
        self.out = nnx.Linear(2 * width, OUTPUTS, kernel_init=zero, rngs=rngs)
        self.spread = nnx.Linear(2 * width, ERRORS, kernel_init=zero, rngs=rngs)
        self.scales = nnx.Linear(width, len(GROUPS), kernel_init=zero, rngs=rngs)

    def __call__(self, frames: Frames) -> Answer:
        """Outputs of each frame, and scales of each window."""
        batch, count = frames.times.shape
        # 1. Space: all frames by themselves.
        kind = self.embed_marker.kernel[...].dtype
        markers = frames.markers.reshape(batch * count, len(MARKERS), 6).astype(kind)
        x = self.embed_marker(markers) + self.own[...]
        for _, block in sorted(self.marker_blocks.items()):
            x = block(x, jnp.asarray(_ADJACENCY))
        x = self.gather(jax.nn.gelu(x).reshape(batch, count, -1))
        angles = frames.start.angles
        numbers = jnp.concatenate([jnp.sin(angles), jnp.cos(angles), frames.motion], -1)
        x = by_rows(x + self.inp(numbers.astype(kind)))
        # 2. Time.
        x = self.over_time(x, frames.times, frames.valid)
        # 3. Heads. A scale is that of the person, so it follows from the mean over time.
        hidden = jax.nn.gelu(self.up(x))
        exact = lambda y: y.astype(jnp.float32)
        weight = frames.valid[..., None].astype(x.dtype)
        mean = jnp.sum(weight * x, 1) / jnp.maximum(jnp.sum(weight, 1), 1)
        scales = 1 + SCALE_RANGE * jnp.tanh(exact(self.scales(mean)))
        spread = exact(self.spread(hidden)) + np.float32(_FIRST_SPREAD)
        return Answer(exact(self.out(hidden)), spread, scales)


@functools.cache
def graph(spec: NeurIkSpec) -> tuple[nnx.GraphDef, Any]:
    """The graph of the network, and the shapes of its parameters."""
    structure, state = nnx.split(nnx.eval_shape(lambda: NeurIk(spec, rngs=nnx.Rngs(0))))
    return structure, nnx.to_pure_dict(state)


def network(spec: NeurIkSpec, params: Any) -> NeurIk:
    """The network with its parameters."""
    return nnx.merge(graph(spec)[0], params)

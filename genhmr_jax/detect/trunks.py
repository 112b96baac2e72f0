"""Trunks of lifters: second copies of the last stage of a pose network, with trained weights.

A trunk goes from an early map of the network to its last map. The network keeps its own weights, so
that its landmarks and scores stay what they were trained to be on photos. The trunk is trained
together with the lifter's head, on rendered people or hands.
"""

import dataclasses
import functools

import jax
from jaxtyping import Array, Float

from genhmr_jax.detect import graph_runner


@dataclasses.dataclass(frozen=True)
class Trunk:
    """The stage of a network that is copied.

    Attributes:
      network: its name, see graph_runner.load.
      early, inner: nodes of the map from which it starts, and of the one that it computes.
    """

    network: str
    early: str
    inner: str

    @functools.cached_property
    def _nodes(self) -> tuple[graph_runner.Node, ...]:
        """The nodes from the early map to the last one."""
        return tuple(graph_runner.load(self.network)[0].needed([self.inner], [self.early]))

    def own_weights(self) -> dict[str, Array]:
        """The weights of the network itself."""
        weights = graph_runner.load(self.network)[1]
        return {node.name: weights[node.name] for node in self._nodes if node.op == "Weight"}

    def trained_names(self) -> list[str]:
        """The names of the weights of which the trunk has its own.

        The kernels of depthwise convolutions are not trained: they are a small share of the
        numbers (7 % of BlazePose's), and their derivatives would take a third of the time on a CPU.
        """
        kernels = {node.inputs[1] for node in self._nodes if "Depthwise" in node.op}
        return sorted(self.own_weights().keys() - kernels)

    def change_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """The shapes of the `changes` of `changed`."""
        weights = self.own_weights()
        shape = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype)
        return {name: shape(weights[name]) for name in self.trained_names()}

    def map(
        self, weights: dict[str, Array], early: Float[Array, "B H W C"]
    ) -> Float[Array, "B h w c"]:
        """The last map, computed with weights of `changed`."""
        network, _ = graph_runner.load(self.network)
        return graph_runner.run(network, weights, {self.early: early}, [self.inner])[self.inner]


def changed(weights: dict[str, Array], changes: dict[str, Array]) -> dict[str, Array]:
    """The weights of a trunk.

    Args:
      weights: of `Trunk.own_weights`.
      changes: of each of `Trunk.trained_names`, in root mean squares of that array. So the
        optimiser's steps and its weight decay are relative to the network's weights.
    """
    own = {name: weights[name] for name in changes}
    return weights | {name: x + (x * x).mean() ** 0.5 * changes[name] for name, x in own.items()}

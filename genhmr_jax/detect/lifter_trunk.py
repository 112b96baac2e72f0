"""The trunk of the lifter: a second copy of BlazePose's stage at 8x8 cells, with trained weights.

It goes from blazepose.EARLY to blazepose.INNER. BlazePose keeps its own weights, so that its
landmarks, heatmaps, mask and maps stay what they were trained to be on photos. The trunk is trained
together with the lifter's head, on rendered people.
"""

import functools

import jax
from jaxtyping import Array, Float

from genhmr_jax.detect import graph_runner
from genhmr_jax.detect.blazepose import EARLY, INNER, NETWORK


@functools.cache
def _trunk_nodes() -> tuple[graph_runner.Node, ...]:
    """BlazePose's nodes from EARLY to INNER."""
    return tuple(graph_runner.load(NETWORK)[0].needed([INNER], [EARLY]))


def blazepose_weights() -> dict[str, Array]:
    """BlazePose's own weights from EARLY to INNER."""
    weights = graph_runner.load(NETWORK)[1]
    return {node.name: weights[node.name] for node in _trunk_nodes() if node.op == "Weight"}


def trained_names() -> list[str]:
    """The names of the weights of which the trunk has its own.

    The kernels of depthwise convolutions are not trained: they are 7 % of the numbers, and their
    derivatives would take a third of the time on a CPU.
    """
    kernels = {node.inputs[1] for node in _trunk_nodes() if "Depthwise" in node.op}
    return sorted(blazepose_weights().keys() - kernels)


def change_shapes() -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of the `changes` of `trunk_weights`."""
    weights = blazepose_weights()
    shape = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype)
    return {name: shape(weights[name]) for name in trained_names()}


def trunk_weights(weights: dict[str, Array], changes: dict[str, Array]) -> dict[str, Array]:
    """The trunk's weights.

    Args:
      weights: `blazepose_weights`.
      changes: of each of `trained_names`, in root mean squares of that array. So the optimiser's
        steps and its weight decay are relative to BlazePose's weights.
    """
    own = {name: weights[name] for name in changes}
    return weights | {name: x + (x * x).mean() ** 0.5 * changes[name] for name, x in own.items()}


def trunk_map(
    weights: dict[str, Array], early: Float[Array, "B 16 16 88"]
) -> Float[Array, "B 8 8 288"]:
    """The trunk's map.

    Args:
      weights: of `trunk_weights`.
      early: see blazepose.Landmarks.
    """
    network, _ = graph_runner.load(NETWORK)
    return graph_runner.run(network, weights, {EARLY: early}, [INNER])[INNER]

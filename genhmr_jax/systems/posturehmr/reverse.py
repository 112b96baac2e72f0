"""The reverse process: T steps of the decoder from the template to the person."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from genhmr_jax.core.system import Params
from genhmr_jax.systems.posturehmr.mesh2d import Mesh2d, Mesh2dEstimate
from genhmr_jax.systems.posturehmr.model import Decoder, Surface
from genhmr_jax.systems.posturehmr.spec import Mesh2dSpec, PostureSpec

Velocity = Callable[..., Float[Array, "B V 3"]]
"""A Decoder, or another function of its arguments."""


def mesh2d_network(spec: Mesh2dSpec) -> tuple[nnx.GraphDef, Params]:
    """The first stage: its graph, and the shapes of its parameters."""
    graph, state = nnx.split(nnx.eval_shape(lambda: Mesh2d(spec, rngs=nnx.Rngs(0))))
    return graph, nnx.to_pure_dict(state)


def decoder_network(spec: PostureSpec) -> tuple[nnx.GraphDef, Params]:
    """The second stage: its graph, and the shapes of its parameters."""
    graph, state = nnx.split(nnx.eval_shape(lambda: Decoder(spec, rngs=nnx.Rngs(0))))
    return graph, nnx.to_pure_dict(state)


def mesh2d(spec: Mesh2dSpec, params: Params) -> Mesh2d:
    """The first stage with its parameters."""
    return nnx.merge(mesh2d_network(spec)[0], params)


def decoder(spec: PostureSpec, params: Params) -> Decoder:
    """The second stage with its parameters."""
    return nnx.merge(decoder_network(spec)[0], params)


def run(
    decoder: Velocity,
    first: Float[Array, "B V 3"],
    condition: Mesh2dEstimate,
    box: Float[Array, "B 3"],
    surface: Surface,
    steps: int | Int[Array, ""],
) -> Float[Array, "B V 3"]:
    """The last mesh, metres, relative to the pelvis.

    Args:
      decoder: the network.
      first: state T, of posture.start.
      condition: of the first stage.
      box: of CropCamera.box_information.
      surface: of the coarse mesh.
      steps: T; may be traced.
    """
    step = _step(decoder, condition, box, surface, steps)
    return jax.lax.fori_loop(0, steps, step, first)


def trace(
    decoder: Velocity,
    first: Float[Array, "B V 3"],
    condition: Mesh2dEstimate,
    box: Float[Array, "B 3"],
    surface: Surface,
    steps: int,
) -> Float[Array, "T+1 B V 3"]:
    """All meshes of `run`, the first one before them; `steps` is not traced."""
    step = _step(decoder, condition, box, surface, steps)

    def both(mesh: Float[Array, "B V 3"], number: Int[Array, ""]) -> tuple[Array, Array]:
        mesh = step(number, mesh)
        return mesh, mesh

    _, meshes = jax.lax.scan(both, first, jnp.arange(steps))
    return jnp.concatenate([first[None], meshes])


def _step(
    decoder: Velocity,
    condition: Mesh2dEstimate,
    box: Float[Array, "B 3"],
    surface: Surface,
    steps: int | Int[Array, ""],
) -> Callable[[Int[Array, ""], Float[Array, "B V 3"]], Float[Array, "B V 3"]]:
    """A step: its number from 0, and the mesh before it -> the mesh after it."""
    size = 1.0 / jnp.asarray(steps, jnp.float32)

    def step(number: Int[Array, ""], mesh: Float[Array, "B V 3"]) -> Float[Array, "B V 3"]:
        share = jnp.full(mesh.shape[0], number * size)
        return mesh + size * decoder(mesh, share, condition, box, surface)

    return step

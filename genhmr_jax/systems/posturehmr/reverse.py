"""The reverse process: T steps of the decoder from the template to the person."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from genhmr_jax.core.inputs import Inputs
from genhmr_jax.systems.posturehmr.mesh2d import Mesh2d, Mesh2dEstimate
from genhmr_jax.systems.posturehmr.model import Decoder
from genhmr_jax.systems.posturehmr.spec import Mesh2dSpec, PostureSpec


def mesh2d_network(spec: Mesh2dSpec) -> nnx.GraphDef:
    """The graph of the first stage."""
    return nnx.split(nnx.eval_shape(lambda: Mesh2d(spec, rngs=nnx.Rngs(0))))[0]


def decoder_network(spec: PostureSpec) -> nnx.GraphDef:
    """The graph of the second stage."""
    return nnx.split(nnx.eval_shape(lambda: Decoder(spec, rngs=nnx.Rngs(0))))[0]


def estimate_mesh2d(spec: Mesh2dSpec, params: dict, inputs: Inputs) -> Mesh2dEstimate:
    """The 2D meshes of inputs in the upright axes."""
    return nnx.merge(mesh2d_network(spec), params)(inputs)


def run(
    decoder: Decoder,
    first: Float[Array, "B V 3"],
    condition: Mesh2dEstimate,
    box: Float[Array, "B 3"],
    adjacency: Float[Array, "V V"],
    steps: int | Int[Array, ""],
) -> Float[Array, "B V 3"]:
    """The last mesh, metres, relative to the pelvis.

    Args:
      decoder: the network.
      first: state T, of posture.start.
      condition: of the first stage.
      box: of CropCamera.box_information.
      adjacency: of the coarse mesh.
      steps: T; may be traced.
    """
    size = 1.0 / jnp.asarray(steps, jnp.float32)

    def step(number: Int[Array, ""], mesh: Float[Array, "B V 3"]) -> Float[Array, "B V 3"]:
        share = jnp.full(mesh.shape[0], number * size)
        return mesh + size * decoder(mesh, share, condition, box, adjacency)

    return jax.lax.fori_loop(0, steps, step, first)


def trace(
    decoder: Decoder,
    first: Float[Array, "B V 3"],
    condition: Mesh2dEstimate,
    box: Float[Array, "B 3"],
    adjacency: Float[Array, "V V"],
    steps: int,
) -> Float[Array, "T+1 B V 3"]:
    """All meshes of `run`, the template first; `steps` is not traced."""

    def step(mesh: Float[Array, "B V 3"], number: Int[Array, ""]) -> tuple[Array, Array]:
        share = jnp.full(mesh.shape[0], number / steps)
        mesh = mesh + decoder(mesh, share, condition, box, adjacency) / steps
        return mesh, mesh

    _, meshes = jax.lax.scan(step, first, jnp.arange(steps))
    return jnp.concatenate([first[None], meshes])

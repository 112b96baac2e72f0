"""The inference step on a mesh, by shapes alone: encode, sample, decode, pose the body, refine (what `recover` does with the crops)."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import smpl_jax
from jax.sharding import Mesh

from genhmr_jax.core import encoders
from genhmr_jax.core.refinement import RefineSpec, refine
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.keypoints import DETECTED, keypoint_model
from genhmr_jax.systems.genhmr.system import Networks, sample_bodies
from genhmr_jax.train import mesh as meshes

ITERATIONS = 5


@dataclasses.dataclass(frozen=True)
class Inference:
    """step: (params, body, keypoint_body, inputs) -> arrays; shapes: those four, with shardings."""

    step: Any
    shapes: tuple[Any, ...]

    def lower(self) -> jax.stages.Lowered:
        """The step, lowered for the devices of the mesh, which need not exist."""
        return self.step.lower(*self.shapes)


def build(task: Any, config: ml_collections.ConfigDict, mesh: Mesh, rows: int) -> Inference:
    """The inference step for `rows` crops over data x fsdp. Parameters are bfloat16, as the exported model's, split by training's rules.

    Args:
      task: the stage-2 task.

    Raises:
      InputError: rows that do not divide over the mesh.
    """
    meshes.check_batch("image_batch_size" if config.image_batch_size else "batch_size", rows, mesh)
    networks = Networks.of(task.spec)
    with_place = lambda tree, place: jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree)  # noqa: E731
    whole, split = meshes.replicated(mesh), meshes.batch_sharding(mesh)
    rules = (*((pattern, tuple(axes)) for pattern, axes in config.sharding_rules), *meshes.RULES)
    places = meshes.param_shardings(networks.shapes["genhmr"], mesh, rules, config.mesh.fsdp_min_size)
    params = {
        "genhmr": jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, jnp.bfloat16, sharding=s), networks.shapes["genhmr"], places),
        "tokenizer": with_place(networks.shapes["tokenizer"], whole),
        "codebook": with_place(networks.shapes["codebook"], whole),
    }
    body = load_body(config.data.body)
    bodies = tuple(with_place(b, whole) for b in (body, keypoint_model(body)))
    step = jax.jit(_step(networks, mesh), out_shardings=split)
    return Inference(step, (params, *bodies, with_place(_inputs(task, rows), split)))


def _inputs(task: Any, rows: int) -> dict[str, Any]:
    shapes = {"keypoints": (rows, len(DETECTED), 3), "crop": (rows, 3), "image_size": (rows, 2), "focal": (rows,)}
    inputs: dict[str, Any] = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    inputs["number"] = jax.ShapeDtypeStruct((rows,), jnp.uint32)
    if task.spec.encoder_channels:
        inputs |= encoders.stored_shapes(task.spec.encoder, rows)
    return inputs


def _step(networks: Networks, mesh: Mesh) -> Any:
    def step(params: Any, body: Any, keypoint_body: Any, inputs: dict[str, Any]) -> dict[str, jax.Array]:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            keys = jax.vmap(lambda n: jax.random.fold_in(jax.random.key(0), n))(inputs["number"])
            inputs = encoders.from_stored({k: v for k, v in inputs.items() if k != "number"})
            encoded = networks.encode(params, inputs)
            samples, embeddings = sample_bodies(networks, params, encoded, keys, iterations=ITERATIONS)
            view = {name: inputs[name] for name in ("crop", "image_size", "focal")}
            decode = networks.decoder(params, inputs)
            start = (embeddings, encoded.betas, encoded.weak_camera)
            refined = refine(decode, keypoint_body, *start, inputs["keypoints"], view, RefineSpec())
            rotmats = decode(refined.embeddings)
            output = smpl_jax.forward(body, refined.betas, rotmats)
        found = {"vertices": output.vertices, "joints": output.joints, "rotmats": rotmats, "betas": refined.betas}
        return found | {"weak_camera": refined.weak_camera, "tokens": samples.tokens}

    return step

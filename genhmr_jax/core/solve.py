"""From inputs to bodies, for any system: encode, sample, refine, pick the best hypothesis.

This is one jitted program.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import smpl_jax
from jaxtyping import Array, Float, Int
from smpl_jax import rotations

from genhmr_jax.core.inputs import Decode, Inputs, conditioned, repeated
from genhmr_jax.core.refinement import Refined, RefineSpec, refine
from genhmr_jax.core.system import Latents, Params, System, TracedSystem
from genhmr_jax.geometry.camera import CropCamera
from genhmr_jax.geometry.keypoints import project_body, project_keypoints
from genhmr_jax.io.program_store import stored, stored_output

CONFIDENCE_DRAWS = 2**16
"""Folded into a key for the draws of the confidence; sampling folds in smaller numbers (steps)."""


@stored_output
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Hypotheses:
    """H sampled bodies of each of B people, the best first (see `SolveOptions`).

    vertex_std: (B, V) mm, of the vertices about their mean. The other fields: see `Solved`.
    """

    vertex_std: Float[Array, "B V"]
    global_orient: Float[Array, "B H 3"]
    body_pose: Float[Array, "B H 69"]
    betas: Float[Array, "B H 10"]
    translation: Float[Array, "B H 3"]
    joints: Float[Array, "B H J 3"]
    confidence: Float[Array, "B H J"]


@stored_output
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Solved:
    """The bodies of B people; recover.people.People documents the fields under the same names."""

    global_orient: Float[Array, "B 3"]
    body_pose: Float[Array, "B 69"]
    betas: Float[Array, "B 10"]
    weak_camera: Float[Array, "B 3"]
    translation: Float[Array, "B 3"]
    vertices: Float[Array, "B V 3"]
    joints: Float[Array, "B J 3"]
    joints2d: Float[Array, "B J 2"]
    joint_confidence: Float[Array, "B J"]
    projected_keypoints: Float[Array, "B K 2"]
    sampled_keypoints: Float[Array, "B K 2"]
    tokens: Int[Array, "B T"]
    refine_loss: Float[Array, "B S"]
    hypotheses: Hypotheses | None


@dataclasses.dataclass(frozen=True)
class SolveOptions:
    """Options of `solve`.

    Attributes:
      iterations: of sampling, at least 1.
      temperature: of sampling; 0 takes the most probable tokens.
      hypotheses: samples for each person. The best one is the answer: that with the smallest error
        as the system expects it, or with the lowest refined loss if the system has no expectation.
      refine: settings of the refinement.
      context: what the system is conditioned on, one of core.choices.CONTEXTS.
    """

    iterations: int = 1
    temperature: float = 0.0
    hypotheses: int = 1
    refine: RefineSpec = RefineSpec()
    context: str = "all"


def solve(
    system: System,
    params: Params,
    body: smpl_jax.SmplModel,
    surface: smpl_jax.SmplModel,
    inputs: Inputs,
    keys: Array,
    options: SolveOptions,
) -> Solved:
    """Recover the bodies of B people.

    Args:
      system: the system.
      params: its parameters.
      body: the body whose mesh is returned.
      surface: the same body reduced by geometry.keypoints.surface_model, for the refinement.
      inputs: of System.prepare; those of several photos may be joined.
      keys: (B,) typed, one for each row, so that a row does not depend on the other rows.
      options: one program serves every number of iterations and every temperature.
    """
    return _solve(system, params, body, surface, inputs, keys, *how(options))


def preload(
    system: System,
    params: Params,
    body: smpl_jax.SmplModel,
    surface: smpl_jax.SmplModel,
    inputs: Inputs,
    keys: Array,
    options: SolveOptions,
    make: bool = False,
) -> None:
    """Read the stored program of `solve` for such arguments; with `make`, compile a missing one."""
    _solve.preload(system, params, body, surface, inputs, keys, *how(options), make=make)


def how(options: SolveOptions) -> tuple[np.int32, np.float32, int, RefineSpec, str]:
    """The options as the last arguments of jitted functions, such as `answers`."""
    traced = np.int32(options.iterations), np.float32(options.temperature)
    return *traced, options.hypotheses, options.refine, options.context


class Answers(NamedTuple):
    """The answers for H hypotheses of each of B people, R = B H rows, before and after refinement.

    Attributes:
      pose: from embeddings to joint rotations.
      view: of each row.
      latents: as sampled.
      sampled_keypoints: (R, K, 2) projections of the sampled body, px.
      refined: after the 2D refinement.
      confidence: (R, J) of the sampled poses; the refinement is deterministic.
    """

    pose: Decode
    view: CropCamera
    latents: Latents
    sampled_keypoints: Float[Array, "R K 2"]
    refined: Refined
    confidence: Float[Array, "R J"]


def answers(
    system: System,
    params: Params,
    surface: smpl_jax.SmplModel,
    inputs: Inputs,
    keys: Array,
    iterations: Array,
    temperature: Array,
    hypotheses: int,
    spec: RefineSpec,
    context: str,
) -> Answers:
    """Encode, sample and refine; the arguments are those of `solve`."""
    k = hypotheses
    # 1. Encode. The refinement uses all keypoints and masks, whatever the context of the system.
    own = dataclasses.replace(conditioned(inputs, context), silhouette=None)
    encoded = system.encode(params, own)

    # 2. Sample. From here on every hypothesis is a separate row.
    evidence = inputs.view, inputs.keypoints, inputs.silhouette, inputs.certainty
    view, keypoints, silhouette, certainty = repeated(evidence, k)
    keys = jax.vmap(lambda key: jax.random.split(key, k))(keys).reshape(-1)
    settings = {"iterations": iterations, "temperature": temperature, "hypotheses": k}
    latents = system.sample(params, surface, repeated(encoded, k), keys, **settings)
    pose = system.pose(params, view)
    sampled = pose(latents.embeddings)
    sampled_keypoints = project_body(surface, sampled, latents.betas, latents.weak_camera, view)[0]

    # 3. Refine.
    start = (latents.embeddings, latents.betas, latents.weak_camera)
    what = (keypoints, view, silhouette, spec, system.pose_parts, certainty)
    refined = refine(pose, surface, *start, *what)

    # 4. Confidence of the sampled pose.
    draws = jax.vmap(lambda key: jax.random.fold_in(key, CONFIDENCE_DRAWS))(keys)
    confidence = system.confidence(params, latents, surface, sampled, draws)
    return Answers(pose, view, latents, sampled_keypoints, refined, confidence)


@stored("system", "hypotheses", "spec", "context")
def _solve(
    system: System,
    params: Params,
    body: smpl_jax.SmplModel,
    surface: smpl_jax.SmplModel,
    inputs: Inputs,
    keys: Array,
    iterations: Array,
    temperature: Array,
    hypotheses: int,
    spec: RefineSpec,
    context: str,
) -> Solved:
    batch, k = inputs.rows, hypotheses
    rest = iterations, temperature, k, spec, context
    found = answers(system, params, surface, inputs, keys, *rest)
    pose, view, latents, refined = found.pose, found.view, found.latents, found.refined
    # 1. The best hypothesis of each person.
    rank = jnp.min(refined.loss, 0) if latents.expected_error is None else latents.expected_error
    rank = rank.reshape(batch, k)
    best = jnp.argmin(rank, 1)

    # 2. Bodies of all hypotheses, and the best ones.
    rotmats = pose(refined.embeddings)
    everything = _posed(body, rotmats, refined.betas, refined.weak_camera, view) | {
        "joint_confidence": found.confidence,
        "sampled_keypoints": found.sampled_keypoints,
        "tokens": latents.tokens,
        "refine_loss": refined.loss.T,
    }

    def pick(x: jax.Array) -> jax.Array:
        """The best hypothesis of each person."""
        index = best.reshape(-1, *[1] * x.ndim)
        return jnp.take_along_axis(x.reshape(batch, k, *x.shape[1:]), index, 1)[:, 0]

    several = _hypotheses(everything, rank, k) if k > 1 else None
    return Solved(**{name: pick(value) for name, value in everything.items()}, hypotheses=several)


class Traced(NamedTuple):
    """The bodies of B people after each of T steps of sampling, in the photo's camera.

    Attributes:
      vertices: (B, T, V, 3) metres.
      poses: (B, T, J, 3) axis-angle, radians.
      joints: (B, T, J, 3) metres.
    """

    vertices: Float[Array, "B T V 3"]
    poses: Float[Array, "B T J 3"]
    joints: Float[Array, "B T J 3"]


@functools.partial(jax.jit, static_argnames=("system", "iterations", "context"))
def trace(
    system: TracedSystem,
    params: Params,
    body: smpl_jax.SmplModel,
    surface: smpl_jax.SmplModel,
    inputs: Inputs,
    keys: Array,
    iterations: int,
    context: str,
) -> Traced:
    """The bodies after each step of sampling, before the refinement; see `solve`."""
    own = dataclasses.replace(conditioned(inputs, context), silhouette=None)
    encoded = system.encode(params, own)
    latents = system.trace(params, surface, encoded, keys, iterations=iterations)
    pose = system.pose(params, inputs.view)

    def traced(of_step: Latents) -> Traced:
        rotmats = pose(of_step.embeddings)
        parts = of_step.betas, of_step.weak_camera, inputs.view
        found = _posed(body, rotmats, *parts)
        poses = rotations.matrix_to_axis_angle(rotmats)
        return Traced(found["vertices"], poses, found["joints"])

    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), jax.lax.map(traced, latents))


def _posed(
    body: smpl_jax.SmplModel, rotmats: Array, betas: Array, weak: Array, view: CropCamera
) -> dict[str, jax.Array]:
    """Pose bodies in the photo's camera: parameters, mesh, joints and projections for Solved."""
    output = smpl_jax.forward(body, betas, rotmats)
    translation = view.translation(weak)
    joints = output.joints + translation[:, None]
    axis_angle = rotations.matrix_to_axis_angle(rotmats)
    return {
        "global_orient": axis_angle[:, 0],
        "body_pose": axis_angle[:, 1:].reshape(len(axis_angle), -1),
        "betas": betas,
        "weak_camera": weak,
        "translation": translation,
        "vertices": output.vertices + translation[:, None],
        "joints": joints,
        "joints2d": view.project(joints),
        "projected_keypoints": project_keypoints(body, output, weak, view),
    }


def _hypotheses(everything: dict[str, jax.Array], rank: Float[Array, "B H"], k: int) -> Hypotheses:
    """All hypotheses, the smallest rank first."""
    batch, order = rank.shape[0], jnp.argsort(rank, 1)

    def ranked(x: jax.Array) -> jax.Array:
        index = order.reshape(batch, k, *[1] * (x.ndim - 1))
        return jnp.take_along_axis(x.reshape(batch, k, *x.shape[1:]), index, 1)

    from_pelvis = everything["vertices"] - everything["joints"][:, :1]
    variance = jnp.var(from_pelvis.reshape(batch, k, *from_pelvis.shape[1:]), 1)
    return Hypotheses(
        vertex_std=1000.0 * jnp.sqrt(jnp.sum(variance, -1)),
        global_orient=ranked(everything["global_orient"]),
        body_pose=ranked(everything["body_pose"]),
        betas=ranked(everything["betas"]),
        translation=ranked(everything["translation"]),
        joints=ranked(everything["joints"]),
        confidence=ranked(everything["joint_confidence"]),
    )

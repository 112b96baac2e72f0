"""Validation of stage 2: errors on held-out views and images, by decode rule and iterations."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import smpl_jax

from genhmr_jax.core.inputs import conditioned
from genhmr_jax.core.losses import known_mean
from genhmr_jax.core.system import Params
from genhmr_jax.data import views
from genhmr_jax.data.image_rows import ImageRows
from genhmr_jax.data.poses import PoseCorpus, PoseRows
from genhmr_jax.data.rows import Rows
from genhmr_jax.systems.genhmr.objective import keypoint_gap, system_params
from genhmr_jax.systems.genhmr.samples import SampleMaker
from genhmr_jax.systems.genhmr.system import GenHmrSystem
from genhmr_jax.train.once import jit_once
from genhmr_jax.train.random_streams import stream
from genhmr_jax.train.task import Place
from genhmr_jax.train.validation import means, pose_errors

SETTINGS = {
    False: (("expected", 1), ("expected", 5), ("final", 5), ("hard", 1), ("hard", 5)),
    True: (("final", 1), ("final", 3), ("final", 5), ("hard", 5)),
}
"""Decode rules (GenHmrSystem.sample) and iterations, without and with feedback."""

ROWS_2D = "rows2d"


@dataclasses.dataclass(frozen=True)
class Group:
    """Rows to measure on, and the context of the system (core.choices.CONTEXTS)."""

    batches: list[Rows]
    context: str = "all"


def evaluate(
    system: GenHmrSystem, params: Params, frozen: Any, groups: dict[str, Group], place: Place
) -> dict[str, float]:
    """MPJPE and PA-MPJPE in mm of each group, for each of SETTINGS.

    "keypoints2d" is the mean distance of projected keypoints from labelled ones, in % of the crop's
    side. An error for which no row has a label is left out.
    """
    measured: dict[str, float] = {}
    for group, of_group in groups.items():
        for rule, iterations in SETTINGS[system.spec.feedback]:
            how = {"context": of_group.context, "rule": rule}
            turns = jnp.asarray(iterations)
            sums = [
                place.host(_measure(system, params, frozen, rows, turns, **how))
                for rows in of_group.batches
            ]
            parts = [{name: s.pop(name) for name in ("keypoints2d", ROWS_2D)} for s in sums]
            found = means(sums) | means(parts, ROWS_2D)
            prefix = f"{group}_{rule}{iterations}"
            measured |= {f"{prefix}_{name}": value for name, value in found.items()}
    return measured


@functools.partial(jax.jit, static_argnames=("system", "context", "rule"))
def _measure(
    system: GenHmrSystem,
    params: Params,
    frozen: Any,
    rows: Rows,
    iterations: jax.Array,
    *,
    context: str,
    rule: str,
) -> dict[str, jax.Array]:
    """Sums of the errors of a batch."""
    everything = system_params(params, frozen)
    inputs = conditioned(rows.inputs(), context)
    encoded = system.encode(everything, inputs)
    keys = jax.random.split(jax.random.key(0), inputs.rows)
    how = {"iterations": iterations, "rule": rule}
    latents = system.sample(everything, frozen["body"], encoded, keys, **how)
    rotmats = system.pose(everything, inputs.view)(latents.embeddings)
    output = smpl_jax.forward(frozen["body"], latents.betas, rotmats)
    gap = jnp.linalg.norm(keypoint_gap(frozen["body"], output, latents.weak_camera, rows), axis=-1)
    weight2d = rows.weight if rows.weight2d is None else rows.weight2d
    percent = 50 * known_mean(gap, rows.confidence_of_points2d())
    return pose_errors(output.joints, rows.joints, rows.weight) | {
        "keypoints2d": jnp.sum(weight2d * percent),
        ROWS_2D: jnp.sum(weight2d),
    }


def validation_views(
    maker: SampleMaker, corpus: PoseCorpus, body: smpl_jax.SmplModel, place: Place
) -> Group:
    """Simulated views of `config.evaluate_poses` poses, spread evenly over the corpus."""
    config, base = maker.config, stream(maker.config.seed, "validation_views")
    size = config.batch_size

    def simulate(body: smpl_jax.SmplModel, poses: PoseRows) -> Rows:
        rows = views.make_views(body, poses.pose, poses.number, base, maker.view)
        return dataclasses.replace(rows, weight=jnp.ones(rows.size))

    count = math.ceil(config.evaluate_poses / size)
    chosen = np.linspace(0, len(corpus.poses) - 1, count * size).astype(int)
    batches = [PoseRows(corpus.poses[c], c.astype(np.uint32)) for c in np.split(chosen, count)]
    run = jit_once(simulate)
    return Group([run(body, place(batch)) for batch in batches])


def validation_images(maker: SampleMaker, images: ImageRows, place: Place) -> dict[str, Group]:
    """The validation images with each context of the system; {} without images."""
    encode = jax.jit(maker.encoded)
    batches = [encode(rows) for rows in images.validation(place)]
    if not batches:
        return {}
    spec = maker.system.spec
    groups = {"val_image": Group(batches)}
    if not spec.num_keypoints:
        return groups
    if spec.encoder_channels:
        groups["val_image_only"] = Group(batches, "image")
        groups["val_keypoints_only"] = Group(batches, "keypoints")
    return groups

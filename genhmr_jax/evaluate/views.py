"""The errors of a model before and after refinement, on rows without a detector.

    python -m genhmr_jax.evaluate.views --checkpoint runs/keypoints/model \\
        --poses cmu_poses.npz --out views.json --refine-steps=10
    python -m genhmr_jax.evaluate.views --checkpoint runs/keypoints_and_blazepose_maps/model \\
        --images runs/features --out images.json

--poses: simulated views (data/views.py) of validation poses, which are keypoints with the errors of
a detector, without an image. --images: the validation split of a feature set (data/features.py),
with all inputs of the model, with the image only, and with the keypoints only.

The model is of a system whose crops are around keypoints: GenHMR, PostureHMR. Sweeps
(evaluate/sweep) run this command at each of their points. All other evaluations start from images
and go through predictions.py. Here rows exist already, and the prior can be changed, as can decode
rule and schedule of GenHMR.
"""

import argparse
import dataclasses
import functools
import json
import pathlib
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import smpl_jax
from jaxtyping import Array, Float

from genhmr_jax.core.inputs import conditioned
from genhmr_jax.core.refinement import RefineSpec, refine
from genhmr_jax.core.system import Params, StoredSystem, System
from genhmr_jax.data import poses, views
from genhmr_jax.data.feature_set import FeatureSet
from genhmr_jax.data.rows import Rows
from genhmr_jax.evaluate.measuring import joint_errors
from genhmr_jax.evaluate.settings import AUTO, ONLY_GENHMR, Settings
from genhmr_jax.geometry.keypoints import keypoint_model
from genhmr_jax.io import compilation_cache
from genhmr_jax.io.atomic import atomic_path
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.paths import path_argument
from genhmr_jax.recover import photo
from genhmr_jax.systems.genhmr.system import GenHmrSystem
from genhmr_jax.train.random_streams import stream

PAPER_ITERATIONS = 5  # of GenHMR, whose system has other defaults


def simulated(
    corpus: poses.PoseCorpus, body: smpl_jax.SmplModel, count: int, batch_size: int, seed: int
) -> list[Rows]:
    """Simulate `count` views of poses that are spread evenly over the corpus.

    Args:
      corpus: the validation split.
      body: a keypoint model.
      count: number of views.
      batch_size: views in a batch.
      seed: of the views.

    Returns:
      batches of equal size; `weight` is 0 for rows that fill up the last batch.
    """
    chosen = np.linspace(0, len(corpus.poses) - 1, count).astype(int)
    size = min(batch_size, count)
    chosen = np.pad(chosen, (0, -count % size), mode="edge")
    numbers = np.arange(len(chosen), dtype=np.uint32)
    base = stream(seed, "validation_views")
    simulate = jax.jit(
        lambda pose, number: views.make_views(body, pose, number, base, views.ViewSpec())
    )
    parts = [slice(i, i + size) for i in range(0, len(chosen), size)]
    return [
        dataclasses.replace(
            simulate(corpus.poses[chosen[part]], numbers[part]),
            weight=(numbers[part] < count).astype(np.float32),
        )
        for part in parts
    ]


@functools.partial(jax.jit, static_argnames=("system", "context", "only_genhmr"))
def sampled(
    system: System,
    params: Params,
    body: smpl_jax.SmplModel,
    rows: Rows,
    key: Array,
    iterations: Array,
    temperature: Array,
    *,
    context: str,
    only_genhmr: tuple[tuple[str, Any], ...],
) -> tuple[Float[Array, "B L D"], Float[Array, "B 10"], Float[Array, "B 3"]]:
    """Sample: embeddings, betas and weak cameras. `only_genhmr` are arguments of GenHMR alone."""
    encoded = system.encode(params, conditioned(rows.inputs(), context))
    keys = jax.random.split(key, rows.size)
    how = {"iterations": iterations, "temperature": temperature, **dict(only_genhmr)}
    latents = system.sample(params, body, encoded, keys, **how)
    return latents.embeddings, latents.betas, latents.weak_camera


@functools.partial(jax.jit, static_argnames=("system", "spec"))
def refined(
    system: System,
    params: Params,
    body: smpl_jax.SmplModel,
    rows: Rows,
    start: tuple[Array, Array, Array],
    spec: RefineSpec,
) -> tuple[Float[Array, "B L D"], Float[Array, "B 10"]]:
    """Refine: embeddings and betas. The refinement uses the keypoints in every context."""
    view = rows.inputs().view
    how = {"spec": spec, "parts": system.pose_parts}
    found = refine(system.pose(params, view), body, *start, rows.keypoints, view, **how)
    return found.embeddings, found.betas


@functools.partial(jax.jit, static_argnames="system")
def joints_of(
    system: System,
    params: Params,
    body: smpl_jax.SmplModel,
    rows: Rows,
    embeddings: Float[Array, "B L D"],
    betas: Float[Array, "B 10"],
) -> Float[Array, "B 24 3"]:
    """Joints in metres from the model origin."""
    return smpl_jax.posed_joints(body, betas, system.pose(params, rows.inputs().view)(embeddings))


def measure(
    model: photo.Recoverer, batches: list[Rows], context: str, settings: Settings
) -> dict[str, dict[str, float]]:
    """Measure a model before and after refinement.

    Args:
      model: the model.
      batches: rows with labels.
      context: what the model is conditioned on, one of core.choices.CONTEXTS.
      settings: of sampling and refinement, with a number of iterations.

    Returns:
      {"sampled": figures, "refined": figures}: "pa_mpjpe_mm" and "mpjpe_mm" over the 24 joints,
      "pa_mpjpe_standard_error_mm", and "seconds_per_view" without compilation. The time of
      "refined" includes that of sampling.
    """
    system, params, body = model.system, model.params, keypoint_model(model.body)
    spec = RefineSpec(steps=settings.refine_steps, prior_pose=settings.prior_pose)
    only_genhmr = ()
    if isinstance(system, GenHmrSystem):
        rule = None if settings.rule == AUTO else settings.rule
        only_genhmr = ("rule", rule), ("schedule", settings.schedule)
    numbers = jnp.asarray(settings.iterations), jnp.asarray(settings.temperature, jnp.float32)
    how = {"context": context, "only_genhmr": only_genhmr}
    draws = stream(settings.seed, "sampling")
    errors: dict[str, list[np.ndarray]] = {"sampled": [], "refined": []}  # (2, B): PA-MPJPE, MPJPE
    seconds = dict.fromkeys(errors, 0.0)
    # 1. Each batch. The first one is measured twice: its first time includes compilation.
    for number, rows in enumerate([batches[0], *batches]):
        began = time.perf_counter()
        key = jax.random.fold_in(draws, number)
        start = jax.block_until_ready(sampled(system, params, body, rows, key, *numbers, **how))
        between = time.perf_counter()
        end = start[:2]
        if spec.steps:
            end = jax.block_until_ready(refined(system, params, body, rows, start, spec))
        done = time.perf_counter()
        if number == 0:
            continue
        seconds["sampled"] += between - began
        seconds["refined"] += done - began
        keep = np.asarray(rows.weight) > 0
        for stage, answer in (("sampled", start[:2]), ("refined", end)):
            found = joint_errors(joints_of(system, params, body, rows, *answer), rows.joints)
            both = np.stack([found["pa_mpjpe"], found["mpjpe"]]).mean(-1)
            errors[stage].append(both[:, keep])

    # 2. Means.
    measured = {}
    for stage, parts in errors.items():
        pa, plain = np.concatenate(parts, 1)
        measured[stage] = {
            "pa_mpjpe_mm": float(pa.mean()),
            "mpjpe_mm": float(plain.mean()),
            "pa_mpjpe_standard_error_mm": float(pa.std() / np.sqrt(len(pa))),
            "seconds_per_view": seconds[stage] / sum(rows.size for rows in batches),
        }
    return measured


def contexts_of(system: System, encoder: str | None) -> dict[str, str]:
    """What a system is measured with: {label in the results: one of core.choices.CONTEXTS}.

    Args:
      system: of the model.
      encoder: whose output the rows have, or None.
    """
    if encoder is None:
        return {"keypoints": "all"}
    if "keypoints" not in system.contexts:
        return {"image": "all"}
    labels = {"image+keypoints": "all", "image": "image", "keypoints": "keypoints"}
    return {label: context for label, context in labels.items() if context in system.contexts}


def load(
    checkpoint: str, body: str, kind: str | None, settings: Settings
) -> tuple[photo.Recoverer, Settings]:
    """Load a model of a StoredSystem, and set its default of the iterations.

    Raises:
      InputError: the model is missing, of another kind, crops by boxes, or does not have a setting
        that is changed.
    """
    model, where = photo.load(checkpoint or None, body, kind), checkpoint or "the packaged model"
    system = model.system
    if not isinstance(system, StoredSystem):
        problem = f"is a {system.kind} model, whose crops are not around keypoints"
        raise InputError(where, problem, "measure it with `genhmr eval`")
    is_genhmr = isinstance(system, GenHmrSystem)
    unknown = [name for name in settings.changed() if name in ONLY_GENHMR]
    if unknown and not is_genhmr:
        problem = f"is a {system.kind} model, which has no {' and no '.join(unknown)}"
        flags = " and ".join(f"--{name}" for name in unknown)
        raise InputError(where, problem, f"leave out {flags}")
    default = PAPER_ITERATIONS if is_genhmr else system.default_iterations(1)
    return model, dataclasses.replace(settings, iterations=settings.iterations or default)


def evaluate(
    checkpoint: str,
    settings: Settings,
    *,
    corpus: str = "",
    images: str = "",
    body: str = "neutral",
    kind: str | None = None,
) -> dict[str, Any]:
    """Evaluate a model on simulated views or on a feature set.

    Args:
      checkpoint: model folder; "" is the packaged model.
      settings: the settings.
      corpus: pose corpus of the simulated views.
      images: folder of the feature set, in place of the corpus.
      body: body of the labels and of the model.
      kind: required kind of the model; None: any.

    Returns:
      the content of the JSON file: {"settings", "views" (their number), "contexts": {context:
      result of `measure`}}.

    Raises:
      InputError: of `load`; the corpus or feature set is missing, or has no inputs for the model.
    """
    model, settings = load(checkpoint, body, kind, settings)
    encoder = model.system.encoder
    if images:
        features = FeatureSet(pathlib.Path(images) / "val", encoder or "none")
        batches = features.all_batches(min(settings.batch_size, features.size))
        count, contexts = features.size, contexts_of(model.system, encoder)
    elif encoder is None or "keypoints" in model.system.contexts:
        own = poses.load_corpus(corpus, "val")
        how = (settings.views, settings.batch_size, settings.seed)
        batches = simulated(own, keypoint_model(model.body), *how)
        count, contexts = settings.views, contexts_of(model.system, None)
    else:
        problem = "takes only images, and simulated views have none"
        raise InputError(checkpoint, problem, "give --images=DIR (genhmr_jax/data/features.py)")
    measured = {
        label: measure(model, batches, context, settings) for label, context in contexts.items()
    }
    return {"settings": dataclasses.asdict(settings), "views": count, "contexts": measured}


def main(argv: list[str] | None = None) -> int:
    """Run the command. Returns 0, or 1 after one line on stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m genhmr_jax.evaluate.views",
        description="Evaluate a model before and after refinement.",
    )
    trained = "model folder (default: the packaged model)"
    parser.add_argument("--checkpoint", default="", type=path_argument, metavar="DIR", help=trained)
    kind = "required kind of the model: genhmr, posturehmr (default: any)"
    parser.add_argument("--model", metavar="KIND", help=kind)
    source = parser.add_mutually_exclusive_group(required=True)
    corpus = "pose corpus: simulated views of its validation split"
    source.add_argument("--poses", default="", type=path_argument, metavar="NPZ", help=corpus)
    features = "image features: their validation split"
    source.add_argument("--images", default="", type=path_argument, metavar="DIR", help=features)
    body = "body of the labels and of the model (default: %(default)s)"
    parser.add_argument("--body", default="neutral", type=path_argument, help=body)
    parser.add_argument("--out", type=path_argument, metavar="JSON", help="file to write")
    Settings.add_flags(parser)
    args = parser.parse_args(argv)
    compilation_cache.enable()
    try:
        sources = {"corpus": args.poses, "images": args.images, "body": args.body}
        found = evaluate(args.checkpoint, Settings.from_args(args), **sources, kind=args.model)
        if args.out:
            with atomic_path(args.out) as temporary:
                temporary.write_text(json.dumps(found, indent=1) + "\n")
    except InputError as error:
        print(f"genhmr_jax.evaluate.views: {error}", file=sys.stderr)
        return 1
    for context, stages in found["contexts"].items():
        for stage, v in stages.items():
            quality = f"PA-MPJPE {v['pa_mpjpe_mm']:.2f} mm, MPJPE {v['mpjpe_mm']:.2f} mm"
            print(f"{context}, {stage}: {quality}, {1000 * v['seconds_per_view']:.1f} ms a view")
    return 0


if __name__ == "__main__":
    sys.exit(main())

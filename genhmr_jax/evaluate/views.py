"""How good a stage-2 model is, sampled and refined, in one JSON file.

    python -m genhmr_jax.evaluate.views --checkpoint runs/genhmr/model --poses cmu_poses.npz --out views.json --refine-steps=50
    python -m genhmr_jax.evaluate.views --checkpoint runs/genhmr_images/model --images runs/features --out images.json

--poses: simulated views (data/views.py) of validation poses: keypoints with a detector's errors, no image. --images: the validation
split of an image set (train/features.py), once with all the model can see and, where it can do without, with image or keypoints alone.
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

from genhmr_jax.core import encoders
from genhmr_jax.core.refinement import RefineSpec, refine
from genhmr_jax.data import poses, views
from genhmr_jax.evaluate.settings import Settings
from genhmr_jax.geometry.keypoints import keypoint_model
from genhmr_jax.geometry.metrics import mpjpe, pa_mpjpe
from genhmr_jax.io import compilation_cache
from genhmr_jax.io.atomic import atomic_path
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.paths import path_argument
from genhmr_jax.recover import photo
from genhmr_jax.systems.genhmr.system import Networks, sample_bodies, shown
from genhmr_jax.train.random_streams import stream

View = dict[str, Any]


def simulated(corpus: poses.PoseCorpus, body: smpl_jax.SmplModel, count: int, batch_size: int, seed: int) -> list[View]:
    """`count` views of poses spread evenly over the corpus, in batches; "weight" (B,) is 0 in the rows that fill up the last batch.

    Args:
      corpus: the validation split.
      body: a keypoint model.
    """
    chosen = np.linspace(0, len(corpus.poses) - 1, count).astype(int)
    size = min(batch_size, count)
    padding = -count % size
    chosen, weight = np.pad(chosen, (0, padding), mode="edge"), np.pad(np.ones(count, np.float32), (0, padding))
    numbers = np.arange(len(chosen), dtype=np.uint32)
    base = stream(seed, "validation_views")
    simulate = jax.jit(lambda pose, number: views.make_views(body, pose, number, base, views.ViewSpec()))
    parts = range(0, len(chosen), size)
    return [simulate(corpus.poses[chosen[i : i + size]], numbers[i : i + size]) | {"weight": weight[i : i + size]} for i in parts]


def contexts_of_images(features: Any, spec: Any, batch_size: int) -> dict[str, list[View]]:
    """Batches of the images of a features.FeatureSet by what is shown of them: "image+keypoints", "image", "keypoints", or what the
    model can take of these."""
    batches = features.all_batches(batch_size)
    if not spec.num_keypoints:
        return {"image": batches}
    keypoints = [shown(v, "keypoints") for v in batches]
    if not spec.encoder_channels:
        return {"keypoints": keypoints}
    blind = [shown(v, "image") | {"target": v["keypoints"]} for v in batches]
    return {"image+keypoints": batches, "image": blind, "keypoints": keypoints}


@functools.partial(jax.jit, static_argnames=("networks", "rule", "schedule"))
def sampled(
    networks: Networks,
    params: Any,
    view: View,
    iterations: Any,
    temperature: Any,
    key: Array,
    *,
    rule: str,
    schedule: str = "cosine",
) -> tuple[Float[Array, "B L D"], Float[Array, "B 10"], Float[Array, "B 3"]]:
    """Embeddings, betas and weak cameras that a model samples for views."""
    encoded = networks.encode(params, encoders.from_stored(view))
    keys = jax.random.split(key, len(view["crop"]))
    how = {"iterations": iterations, "temperature": temperature, "rule": rule, "schedule": schedule}
    _, embeddings = sample_bodies(networks, params, encoded, keys, **how)
    return embeddings, encoded.betas, encoded.weak_camera


@functools.partial(jax.jit, static_argnames="networks")
def joints_of(networks: Networks, params: Any, body: Any, view: View, embeddings: Array, betas: Array) -> Float[Array, "B 24 3"]:
    """Joints in metres, relative to the model origin, of token embeddings."""
    return smpl_jax.posed_joints(body, betas, networks.decoder(params, encoders.from_stored(view))(embeddings))


@functools.partial(jax.jit, static_argnames=("networks", "spec"))
def refined(
    networks: Networks, params: Any, body: Any, view: View, start: tuple[Array, Array, Array], spec: RefineSpec
) -> tuple[Float[Array, "B L D"], Float[Array, "B 10"]]:
    """Embeddings and betas after the 2D refinement towards the detected keypoints."""
    keypoints = view.get("target", view["keypoints"])
    found = refine(networks.decoder(params, encoders.from_stored(view)), body, *start, keypoints, view, spec)
    return found.embeddings, found.betas


def measure(model: photo.Recoverer, batches: list[View], settings: Settings) -> dict[str, dict[str, float]]:
    """{"sampled": {...}, "refined": {...}}: pa_mpjpe_mm and mpjpe_mm over 24 joints, the standard error of the first, seconds a view.

    The seconds are those of compiled programs, on one view after another of a batch; "refined" counts sampling and refinement.
    """
    networks, params, body = model.networks, model.params, keypoint_model(model.body)
    spec = RefineSpec(steps=settings.refine_steps, prior_pose=settings.prior_pose)
    iterations, temperature = jnp.asarray(settings.iterations), jnp.asarray(settings.temperature, jnp.float32)
    draws = stream(settings.seed, "sampling")
    rows: dict[str, list[np.ndarray]] = {"sampled": [], "refined": []}
    seconds = {"sampled": 0.0, "refined": 0.0}
    for number, view in enumerate([batches[0], *batches]):  # the first batch twice: compilation does not count
        began = time.perf_counter()
        start = sampled(
            networks,
            params,
            view,
            iterations,
            temperature,
            jax.random.fold_in(draws, number),
            rule=settings.rule,
            schedule=settings.schedule,
        )
        jax.block_until_ready(start)
        between = time.perf_counter()
        end = jax.block_until_ready(refined(networks, params, body, view, start, spec) if spec.steps else start[:2])
        done = time.perf_counter()
        if number == 0:
            continue
        seconds["sampled"] += between - began
        seconds["refined"] += done - began
        keep = np.asarray(view["weight"]) > 0
        for name, (embeddings, betas) in (("sampled", start[:2]), ("refined", end)):
            rows[name].append(errors(joints_of(networks, params, body, view, embeddings, betas), view)[:, keep])
    measured = {}
    for name, parts in rows.items():
        pa, plain = np.concatenate(parts, 1).astype(np.float64)
        measured[name] = {
            "pa_mpjpe_mm": float(pa.mean()),
            "mpjpe_mm": float(plain.mean()),
            "pa_mpjpe_standard_error_mm": float(pa.std() / np.sqrt(len(pa))),
            "seconds_per_view": seconds[name] / sum(len(v["weight"]) for v in batches),
        }
    return measured


def errors(joints: Float[Array, "B 24 3"], view: View) -> Float[np.ndarray, "2 B"]:
    """PA-MPJPE and MPJPE in mm of each row."""
    return 1000 * np.stack([pa_mpjpe(joints, view["joints"]), mpjpe(joints, view["joints"])])


def evaluate(checkpoint: str, settings: Settings, *, corpus: str = "", images: str = "", body: str = "neutral") -> dict[str, Any]:
    """What the JSON file holds: the settings, the number of views, and `measure` for each context.

    Raises:
      InputError: no such model, corpus or image set, or one that shows nothing the model can see.
    """
    model = photo.load(checkpoint or None, body)
    spec = model.networks.spec
    if images:
        from genhmr_jax.data.features import FeatureSet

        features = FeatureSet(pathlib.Path(images) / "val")
        if spec.encoder_channels and features.encoder != spec.encoder:
            remedy = f"make them with --encoder {spec.encoder}"
            raise InputError(images, f"holds features of {features.encoder}, but the model reads {spec.encoder}", remedy)
        batches = contexts_of_images(features, spec, min(settings.batch_size, features.size))
        count = features.size
    else:
        if not spec.num_keypoints:
            raise InputError(checkpoint, "sees images only, and simulated views have none", "give --images=DIR (train/features.py)")
        simulate = simulated(
            poses.load_corpus(corpus, "val"), keypoint_model(model.body), settings.views, settings.batch_size, settings.seed
        )
        batches, count = {"keypoints": simulate}, settings.views
    measured = {context: measure(model, views, settings) for context, views in batches.items()}
    return {"settings": dataclasses.asdict(settings), "views": count, "contexts": measured}


def main(argv: list[str] | None = None) -> int:
    """Command line. Returns 0, or 1 after one line on stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m genhmr_jax.evaluate.views", description="Evaluate a stage-2 model, sampled and refined."
    )
    parser.add_argument(
        "--checkpoint", default="", type=path_argument, metavar="DIR", help="model folder (default: the model that comes with the package)"
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--poses", default="", type=path_argument, metavar="NPZ", help="pose corpus: simulated views of its validation split"
    )
    source.add_argument("--images", default="", type=path_argument, metavar="DIR", help="image features: their validation split")
    parser.add_argument("--body", default="neutral", type=path_argument, help="body of the labels and of the model (default: %(default)s)")
    parser.add_argument("--out", type=path_argument, metavar="JSON", help="file to write")
    Settings.add_flags(parser)
    args = parser.parse_args(argv)
    compilation_cache.enable()
    try:
        found = evaluate(args.checkpoint, Settings.from_args(args), corpus=args.poses, images=args.images, body=args.body)
        if args.out:
            with atomic_path(args.out) as temporary:
                temporary.write_text(json.dumps(found, indent=1) + "\n")
    except InputError as error:
        print(f"genhmr_jax.evaluate.views: {error}", file=sys.stderr)
        return 1
    for context, values in found["contexts"].items():
        for name, v in values.items():
            quality = f"PA-MPJPE {v['pa_mpjpe_mm']:.2f} mm, MPJPE {v['mpjpe_mm']:.2f} mm"
            print(f"{context}, {name}: {quality}, {1000 * v['seconds_per_view']:.1f} ms a view")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`genhmr eval`. The flags need no heavy import: --help is instant."""

import argparse
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

from genhmr_jax.evaluate.datasets import BENCHMARKS, DATASETS
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.paths import path_flag

_ONLY_FOR = {
    "protocol": tuple(DATASETS), "true_focal": tuple(DATASETS), "body_dir": (*DATASETS, "photos"), "limit": (*DATASETS, "synthetic"),
    "poses": ("synthetic",), "robustness": ("synthetic",), "uncertainty": ("synthetic",), "pictures": BENCHMARKS,
    "true_keypoints": ("synthetic",),
}  # fmt: skip
"""Flags that not every test set has; said when they are given elsewhere, never ignored."""
ITERATIONS = (1, 3, 5, 10)
MODELS = ("genhmr", "hmr2", "tokenhmr")
CONTEXTS = ("all", "image", "keypoints")  # predict.CONTEXTS, without its imports


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the command."""
    add = parser.add_argument
    add("--dataset", required=True, choices=(*DATASETS, *BENCHMARKS), help="the test set")
    add(
        "--data-dir",
        required=True,
        type=path_flag,
        metavar="DIR",
        help="where the official releases lie, or what `genhmr data build` made of them; photos: the photos; synthetic: where the test set "
        "is kept, made there if it is missing",
    )
    trained = "a trained model, or mean-pose, the baseline (default: the model of the package)"
    add("--checkpoint", type=path_flag, metavar="DIR", help=trained)
    add("--model", choices=MODELS, help="what the checkpoint must be (default: whatever it is)")
    add("--protocol", action="append", default=[], metavar="NAME", help="may be repeated (default: the published ones of the dataset)")
    your_files = (
        "your SMPL_{NEUTRAL,MALE,FEMALE}.pkl or .npz, SMPL_to_J19.pkl, J_regressor_h36m.npy"
    )
    add("--body-dir", type=path_flag, metavar="DIR", help=your_files)
    add("--iterations", type=counts, metavar="N,N", help="sampling iterations to evaluate (default: 1,3,5,10; photos: 1)")
    add("--refine-steps", type=int, metavar="N", help="2D refinement steps; 0 evaluates sampling alone (default: the model's)")
    add("--context", choices=CONTEXTS, default="all", help="show the model the image or the 2D keypoints alone (default: all)")
    add("--true-focal", action="store_true", help="take the focal length from the labels in place of guessing it from the image size")
    add("--batch-size", type=int, default=32, metavar="N", help="people at a time; changes the speed alone (default: 32)")
    add("--limit", type=int, metavar="N", help="only the first N people")
    add("--skip-bad", action="store_true", help="leave bad records out and list them, in place of stopping at the first")
    corpus = "synthetic: the pose corpus that the test set is made of, where it is not made yet"
    add("--poses", type=path_flag, metavar="NPZ", help=corpus)
    add("--robustness", action="store_true", help="synthetic: also under occlusion, truncation, low resolution, odd light, poses, shapes")
    add("--uncertainty", action="store_true", help="synthetic: also whether the confidence predicts the error")
    add("--true-keypoints", action="store_true", help="synthetic: with the true 2D keypoints in place of the detector's")
    plots = "folder for plots and the worst people (synthetic) or overlays (photos)"
    add("--pictures", type=path_flag, metavar="DIR", help=plots)
    figures = "file for all figures (default: eval_DATASET.json)"
    add("--out", type=path_flag, metavar="JSON", help=figures)


def counts(text: str) -> tuple[int, ...]:
    """An argparse type: whole numbers of 1 or more with commas between."""
    try:
        values = tuple(int(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or min(values) < 1:
        raise argparse.ArgumentTypeError(f"must be whole numbers of 1 or more like 1,3,5,10, not {text!r}")
    return tuple(dict.fromkeys(values))


def run(args: argparse.Namespace) -> int:
    """Evaluates, writes the JSON file and prints the tables. Returns 0.

    Raises:
      InputError: something is missing or wrong; nothing is written then.
    """
    from genhmr_jax.io import compilation_cache
    from genhmr_jax.io.atomic import atomic_path

    _check(args)
    compilation_cache.enable()
    out = Path(args.out or f"eval_{args.dataset}.json")
    if not out.parent.is_dir():
        raise InputError(out, "cannot be written (no such folder)", "choose another --out")
    result, text = (_dataset if args.dataset in DATASETS else _benchmark)(args)
    result = {"dataset": args.dataset, "checkpoint": args.checkpoint or "the model of the package", **result}
    with atomic_path(out) as temporary:
        temporary.write_text(json.dumps(_without_nan(result), indent=1, allow_nan=False) + "\n")
    print(text)
    print(f"all figures: {out}")
    return 0


def _without_nan(value: Any) -> Any:
    """The same with null for what is not a finite number (a correlation of constants, say): JSON has no NaN."""
    if isinstance(value, dict):
        return {name: _without_nan(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _check(args: argparse.Namespace) -> None:
    """Raises InputError for numbers out of range, and for flags that do not belong to the test set."""
    for flag, low in (("batch_size", 1), ("limit", 1), ("refine_steps", 0)):
        value = getattr(args, flag)
        if value is not None and value < low:
            raise InputError(f"--{flag.replace('_', '-')}", f"is {value}", f"give at least {low}")
    if args.model and args.checkpoint == "mean-pose":
        raise InputError(f"--model {args.model}", "does not go with --checkpoint=mean-pose", "leave one of them out")
    if args.context != "all" and args.checkpoint == "mean-pose":
        raise InputError(
            f"--context {args.context}", "does not go with --checkpoint=mean-pose, which sees nothing", "leave one of them out"
        )
    for flag, datasets in _ONLY_FOR.items():
        if getattr(args, flag) and args.dataset not in datasets:
            raise InputError(f"--{flag.replace('_', '-')}", f"means nothing for {args.dataset}", f"it is for {', '.join(datasets)}")


def _dataset(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """What the JSON file holds, and what is printed."""
    from tqdm import tqdm

    import genhmr_jax
    from genhmr_jax.data.sources import find
    from genhmr_jax.evaluate import runner, tables
    from genhmr_jax.evaluate.bodies import load_bodies

    dataset = DATASETS[args.dataset]
    protocols = _protocols(args)
    bodies = load_bodies(args.body_dir, [r for p in protocols for r in p.regressors], {g for p in protocols for g in p.genders})
    report = find(dataset.source).report(args.skip_bad)
    predictor = _predictor(args, bodies.models["neutral"])
    records = tqdm(_records(args.data_dir, dataset.source, dataset.split, report), args.dataset, unit=" people", disable=None)
    measured = runner.evaluate(
        records, predictor, bodies, protocols, report,
        batch_size=args.batch_size, limit=args.limit, frames_per_second=dataset.frames_per_second,
    )  # fmt: skip
    if not measured["people"]:
        raise InputError(args.data_dir, f"has nobody to evaluate on ({report.summary()})", "check the dataset")
    result = {
        "body": bodies.origin,
        "settings": {
            "refine_steps": getattr(predictor, "refine_steps", 0),
            "context": args.context,
            "true_focal": args.true_focal,
            "limit": args.limit,
        },
        "genhmr_jax": genhmr_jax.__version__,
        **measured,
        "skipped": report.listed,
    }
    text = [f"{args.dataset}: {measured['people']} people, {measured['not_found']} of them not found (they count with the mean pose)"]
    text += [f"{bodies.origin}; {report.summary()}"]
    for protocol in protocols:
        figures = measured["protocols"][protocol.name]
        figures["published"] = [dataclasses.asdict(row) for row in tables.published(args.dataset, protocol.name)]
        head = f"\nprotocol {protocol.name}, {figures['people']} people. {protocol.text}\n"
        text += [head, tables.table(args.dataset, protocol.name, figures, measured["seconds"])]
    if not args.body_dir:
        text += [f"\nPublished protocols ({', '.join(dataset.published)}) need your SMPL: give --body-dir."]
    return result, "\n".join(text)


def _protocols(args: argparse.Namespace) -> list[Any]:
    """The protocols asked for, or the dataset's own: the published ones if there is a --body-dir, else the free ones."""
    from genhmr_jax.evaluate.protocols import PROTOCOLS

    dataset = DATASETS[args.dataset]
    known = tuple(dict.fromkeys(dataset.published + dataset.free))
    names = args.protocol or (dataset.published if args.body_dir else dataset.free)
    for name in names:
        if name not in known:
            raise InputError("--protocol", f"{name!r} does not fit {args.dataset}", f"choose {', '.join(known)}")
    return [PROTOCOLS[name] for name in dict.fromkeys(names)]


def _predictor(args: argparse.Namespace, body: Any) -> Any:
    """The model or baseline of --checkpoint, with the body of the protocols."""
    from genhmr_jax.evaluate.predictors import MEAN_POSE, MeanPose, ModelPredictor
    from genhmr_jax.recover import photo

    if args.checkpoint == MEAN_POSE:
        return MeanPose()
    model = photo.load(args.checkpoint, model=args.model)
    steps = model.networks.refine_steps if args.refine_steps is None else args.refine_steps
    iterations = (1,) if model.networks.crops_by_box else args.iterations or ITERATIONS  # a regressor has one answer
    options = photo.RecoverOptions(context=args.context)
    return ModelPredictor(photo.Recoverer(model.networks, model.params, body), iterations, steps, args.true_focal, options)


def _benchmark(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """The same for the free test sets."""
    import genhmr_jax
    from genhmr_jax.core.refinement import RefineSpec
    from genhmr_jax.evaluate import benchmark
    from genhmr_jax.evaluate.bodies import load_bodies
    from genhmr_jax.evaluate.predictors import MEAN_POSE
    from genhmr_jax.recover import photo

    pictures = Path(args.pictures) if args.pictures else None
    model = None
    if args.checkpoint != MEAN_POSE:
        loaded = photo.load(args.checkpoint, model=args.model)
        body = load_bodies(args.body_dir, genders=["neutral"]).models["neutral"]
        model = photo.Recoverer(loaded.networks, loaded.params, body)
    standard = RefineSpec.steps if model is None else model.networks.refine_steps
    steps = standard if args.refine_steps is None else args.refine_steps
    one_answer = model is not None and model.networks.crops_by_box
    if args.uncertainty and one_answer:
        raise InputError("--uncertainty", "needs a model that says how sure it is; a regressor does not", "leave it out")
    if args.dataset == "synthetic":
        found = benchmark.synthetic(
            model, args.data_dir, args.poses, count=args.limit or benchmark.COUNT,
            iterations=(1,) if one_answer else args.iterations or ITERATIONS,
            refine_steps=steps, with_robustness=args.robustness, with_uncertainty=args.uncertainty, pictures=pictures,
            context=args.context, true_keypoints=args.true_keypoints,
        )  # fmt: skip
        text = benchmark.synthetic_table(found)
    else:
        iterations = args.iterations or (1,)
        if model is None or len(iterations) > 1:
            flag, given = ("--checkpoint", MEAN_POSE) if model is None else ("--iterations", ",".join(map(str, iterations)))
            raise InputError(flag, f"{given} does not go with photos", "give a model, and one number of iterations")
        options = photo.RecoverOptions(iterations=iterations[0], refine_steps=steps, context=args.context)
        found = benchmark.photos(model, args.data_dir, options=options, pictures=pictures)
        text = benchmark.photos_table(found)
    if args.context != "all":
        text = f"the model sees the {args.context} alone. {text}"
    if args.true_keypoints:
        text = f"with the true 2D keypoints. {text}"
    given = {"context": args.context, "true_keypoints": args.true_keypoints}
    return {"genhmr_jax": genhmr_jax.__version__, **given, **found}, text


def _records(data_dir: str, source: str, split: str, report: Any) -> Any:
    """The records of a split: of the built dataset if there is one in this folder, else of the release."""
    from genhmr_jax.data import builders
    from genhmr_jax.data.sources import find

    if builders.built_dir(data_dir, source, split).is_dir():
        return iter(builders.open_built(data_dir, source, split))
    return find(source).records(data_dir, split, report)

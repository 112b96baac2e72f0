"""`genhmr eval`. Heavy modules are imported only when the command runs."""

import argparse
import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genhmr_jax.cli import evaluate_angles, evaluate_hands
from genhmr_jax.cli.flag_types import counts, model_kind
from genhmr_jax.core.choices import CONTEXTS
from genhmr_jax.evaluate.datasets import (
    ANGLES,
    BENCHMARKS,
    CLIP_ANGLES,
    CLIPS,
    DATASETS,
    HAND_DATASETS,
    SYNTHETIC,
)
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.paths import path_flag

if TYPE_CHECKING:  # heavy, imported where they are used
    import smpl_jax

    from genhmr_jax.data.sources import Record, Report
    from genhmr_jax.evaluate.protocols import Protocol
    from genhmr_jax.evaluate.runner import Predictor
    from genhmr_jax.recover.photo import Recoverer, RecoverOptions

_BODIES = (*DATASETS, *SYNTHETIC, "photos", CLIPS, CLIP_ANGLES)
_ONLY_FOR = {
    "protocol": tuple(DATASETS),
    "true_focal": (*DATASETS, *HAND_DATASETS, CLIPS),
    "body_dir": (*DATASETS, "photos"),
    "limit": (*DATASETS, *HAND_DATASETS, *SYNTHETIC, CLIPS, ANGLES, CLIP_ANGLES),
    "hand": tuple(HAND_DATASETS),
    "predictions": tuple(HAND_DATASETS),
    "poses": (*SYNTHETIC, CLIPS, CLIP_ANGLES),
    "robustness": tuple(SYNTHETIC),
    "uncertainty": tuple(SYNTHETIC),
    "pictures": (*SYNTHETIC, "photos"),
    "true_keypoints": tuple(SYNTHETIC),
    "skip_bad": (*DATASETS, *HAND_DATASETS),
    "model": _BODIES,  # angles are those of NeurIK
    "context": _BODIES,
    "iterations": (*_BODIES, *HAND_DATASETS),
    "refine_steps": (*_BODIES, *HAND_DATASETS),
}
"""Flags that only some test sets support; for the others they are errors."""
_ONE_SETTING = ("photos", CLIPS, ANGLES, CLIP_ANGLES, *HAND_DATASETS)
"""Test sets on which one setting of one model is measured."""
ITERATIONS = (1, 3, 5, 10)
MEAN_POSE = "mean-pose"
"""The value of --checkpoint for the baseline."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    add = parser.add_argument
    # 1. The test set and the model.
    add(
        "--dataset",
        required=True,
        choices=(*DATASETS, *HAND_DATASETS, *BENCHMARKS),
        help="the test set",
    )
    folder = (
        "folder of the official releases, or of the datasets built by `genhmr data build`; photos: "
        "of the photos; synthetic, clips: of the test set, which is rendered there if it is "
        "missing; angles: of angles.npz, written by `genhmr data angles`"
    )
    add("--data-dir", required=True, type=path_flag, metavar="DIR", help=folder)
    trained = "a trained model, or mean-pose, the baseline (default: the packaged model)"
    add("--checkpoint", type=path_flag, metavar="DIR", help=trained)
    kind = "required kind of the checkpoint, such as genhmr (default: any)"
    add("--model", type=model_kind, metavar="KIND", help=kind)
    protocol = "may be repeated (default: the published protocols of the dataset)"
    add("--protocol", action="append", default=[], metavar="NAME", help=protocol)
    smpl = "your SMPL_{NEUTRAL,MALE,FEMALE}.pkl or .npz, SMPL_to_J19.pkl, J_regressor_h36m.npy"
    add("--body-dir", type=path_flag, metavar="DIR", help=smpl)
    mano = "datasets of hands: your MANO_RIGHT.pkl (default: the free hand)"
    add("--hand", type=path_flag, metavar="PKL", help=mano)
    # 2. Settings of the model.
    sampling = "sampling iterations to evaluate (default: 1,3,5,10; photos, clips: as recover)"
    add("--iterations", type=counts, metavar="N,N", help=sampling)
    steps = "2D refinement steps; 0: only without refinement (default: the model's)"
    add("--refine-steps", type=int, metavar="N", help=steps)
    context = "condition the model on all inputs, on the image only, or on the keypoints only"
    add("--context", choices=CONTEXTS, default="all", help=context)
    focal = "use the labelled focal length instead of a guess from the image size"
    add("--true-focal", action="store_true", help=focal)
    # 3. The run.
    size = "people in a batch; changes only the speed (default: 32)"
    add("--batch-size", type=int, default=32, metavar="N", help=size)
    add("--limit", type=int, metavar="N", help="only the first N people (or clips)")
    bad = "list bad records and continue, instead of stopping at the first one"
    add("--skip-bad", action="store_true", help=bad)
    corpus = "synthetic, clips: the pose corpus from which a missing test set is rendered"
    add("--poses", type=path_flag, metavar="NPZ", help=corpus)
    robustness = (
        "synthetic: measure also under occlusion, truncation, low resolution, changed light, "
        "unusual poses and shapes"
    )
    add("--robustness", action="store_true", help=robustness)
    uncertainty = "synthetic: measure also whether the confidence predicts the error"
    add("--uncertainty", action="store_true", help=uncertainty)
    true = "synthetic: use the true 2D keypoints instead of detected ones"
    add("--true-keypoints", action="store_true", help=true)
    plots = "folder for plots and the worst people (synthetic) or overlays (photos)"
    add("--pictures", type=path_flag, metavar="DIR", help=plots)
    server = "freihand, ho3d: write the pred.json for their servers (needs --hand)"
    add("--predictions", type=path_flag, metavar="JSON", help=server)
    figures = "file for all figures (default: eval_DATASET.json)"
    add("--out", type=path_flag, metavar="JSON", help=figures)


def run(args: argparse.Namespace) -> int:
    """Evaluate a model, write the JSON file and print the tables. Returns 0.

    Raises:
      InputError: a flag, model or test set is wrong or missing; nothing is written then.
    """
    import genhmr_jax
    from genhmr_jax.io import compilation_cache
    from genhmr_jax.io.atomic import atomic_path

    _check(args)
    compilation_cache.enable()
    out = Path(args.out or f"eval_{args.dataset}.json")
    if not out.parent.is_dir():
        raise InputError(out, "cannot be written (no such folder)", "choose another --out")
    ours = dict.fromkeys(SYNTHETIC, _synthetic) | {CLIPS: _clips, "photos": _photos}
    ours |= {ANGLES: evaluate_angles.angles, CLIP_ANGLES: _clip_angles}
    ours |= dict.fromkeys(HAND_DATASETS, evaluate_hands.releases)
    measure = ours.get(args.dataset, _dataset)
    measured, text = measure(args)
    result = {
        "dataset": args.dataset,
        "checkpoint": args.checkpoint or "the model of the package",
        "genhmr_jax": genhmr_jax.__version__,
        **measured,
    }
    with atomic_path(out) as temporary:
        temporary.write_text(json.dumps(_without_nan(result), indent=1, allow_nan=False) + "\n")
    print(text)
    print(f"all figures: {out}")
    return 0


def _without_nan(value: Any) -> Any:
    """The value with None for NaN and Inf, which JSON does not have."""
    if isinstance(value, dict):
        return {name: _without_nan(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _check(args: argparse.Namespace) -> None:
    """Raise InputError for numbers out of range, and for flags that exclude each other."""
    for name, low in (("batch_size", 1), ("limit", 1), ("refine_steps", 0)):
        value = getattr(args, name)
        if value is not None and value < low:
            raise InputError(_flag(name), f"is {value}", f"give at least {low}")
    for name, datasets in _ONLY_FOR.items():
        value = getattr(args, name)
        is_default = value is None or value is False or value in ([], "all")
        if not is_default and args.dataset not in datasets:
            problem = f"does not apply to {args.dataset}"
            raise InputError(_flag(name), problem, f"it is for {', '.join(datasets)}")
    if args.checkpoint == MEAN_POSE:
        problem, remedy = f"does not go with --checkpoint={MEAN_POSE}", "leave one of them out"
        if args.model:
            raise InputError(f"--model {args.model}", problem, remedy)
        if args.context != "all":
            raise InputError(f"--context {args.context}", f"{problem}, which gets no input", remedy)
        if args.dataset in _ONE_SETTING:
            problem = f"{MEAN_POSE} does not go with {args.dataset}"
            raise InputError("--checkpoint", problem, "give a model")
    if args.dataset in _ONE_SETTING and len(args.iterations or ()) > 1:
        problem = f"{','.join(map(str, args.iterations))} does not go with {args.dataset}"
        raise InputError("--iterations", problem, "give one number")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _load(args: argparse.Namespace, body: "smpl_jax.SmplModel") -> "Recoverer | None":
    """The model of --checkpoint with another body; None for the baseline."""
    from genhmr_jax.recover import photo

    if args.checkpoint == MEAN_POSE:
        return None
    return dataclasses.replace(photo.load(args.checkpoint, model=args.model), body=body)


def _iterations(args: argparse.Namespace, model: "Recoverer | None") -> tuple[int, ...]:
    """The numbers of iterations to evaluate.

    A system that does not sample is evaluated with its own number, which is 1 if it has no steps.
    """
    if model is None or model.system.samples:
        return args.iterations or ITERATIONS
    own = model.system.default_iterations(1)
    return (1,) if own == 1 else args.iterations or (own,)


def _refine_steps(args: argparse.Namespace, model: "Recoverer | None") -> int:
    """--refine-steps, or the default of the model."""
    if args.refine_steps is not None:
        return args.refine_steps
    return 0 if model is None else model.system.refinement.steps


def _dataset(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Measure on a labelled data set. Returns the content of the JSON file and the text."""
    from tqdm import tqdm

    from genhmr_jax.data.sources import find
    from genhmr_jax.evaluate import runner, tables
    from genhmr_jax.evaluate.bodies import load_bodies

    # 1. The protocols and the model.
    dataset, protocols = DATASETS[args.dataset], _protocols(args)
    regressors = [name for protocol in protocols for name in protocol.regressors]
    genders = {gender for protocol in protocols for gender in protocol.genders}
    bodies = load_bodies(args.body_dir, regressors, genders)
    report = find(dataset.source).report(args.skip_bad)
    predictor = _predictor(args, bodies.models["neutral"])

    # 2. Measure.
    records = _records(args.data_dir, dataset.source, dataset.split, report)
    measured = runner.evaluate(
        tqdm(records, args.dataset, unit=" people", disable=None),
        predictor,
        bodies,
        protocols,
        report,
        batch_size=args.batch_size,
        limit=args.limit,
        frames_per_second=dataset.frames_per_second,
    )
    people = measured["people"]
    if not people:
        problem = f"holds no people to evaluate ({report.summary()})"
        raise InputError(args.data_dir, problem, "check the dataset")

    # 3. Tables with the published rows.
    text = [
        f"{args.dataset}: {people} people, {measured['not_found']} of them not found "
        "(they count with the mean pose)",
        f"{bodies.origin}; {report.summary()}",
    ]
    for protocol in protocols:
        figures = measured["protocols"][protocol.name]
        rows = tables.published(args.dataset, protocol.name)
        figures["published"] = [dataclasses.asdict(row) for row in rows]
        text.append(f"\nprotocol {protocol.name}, {figures['people']} people. {protocol.text}\n")
        text.append(tables.table(args.dataset, protocol.name, figures, measured["seconds"]))
    if not args.body_dir:
        names = ", ".join(dataset.published)
        text.append(f"\nPublished protocols ({names}) need your SMPL: give --body-dir.")
    settings = {
        "refine_steps": getattr(predictor, "refine_steps", 0),
        "context": args.context,
        "true_focal": args.true_focal,
        "limit": args.limit,
    }
    result = {"body": bodies.origin, "settings": settings, **measured, "skipped": report.listed}
    return result, "\n".join(text)


def _protocols(args: argparse.Namespace) -> "list[Protocol]":
    """The protocols of --protocol, by default those of the dataset.

    The default is the published protocols with --body-dir, and the free ones without.
    """
    from genhmr_jax.evaluate.protocols import PROTOCOLS

    dataset = DATASETS[args.dataset]
    known = tuple(dict.fromkeys(dataset.published + dataset.free))
    names = args.protocol or (dataset.published if args.body_dir else dataset.free)
    for name in names:
        if name not in known:
            problem = f"{name!r} does not fit {args.dataset}"
            raise InputError("--protocol", problem, f"choose {', '.join(known)}")
    return [PROTOCOLS[name] for name in dict.fromkeys(names)]


def _predictor(args: argparse.Namespace, body: "smpl_jax.SmplModel") -> "Predictor":
    """The model or baseline of --checkpoint, with the body of the protocols."""
    from genhmr_jax.evaluate.runner import MeanPose, ModelPredictor
    from genhmr_jax.recover.photo import RecoverOptions

    model = _load(args, body)
    if model is None:
        return MeanPose(body)
    how = (_iterations(args, model), _refine_steps(args, model), args.true_focal)
    return ModelPredictor(model, *how, RecoverOptions(context=args.context))


def _records(data_dir: str, source: str, split: str, report: "Report") -> "Iterator[Record]":
    """The records of a split: of the built dataset if the folder has one, else of the release."""
    from genhmr_jax.data import builders
    from genhmr_jax.data.sources import find

    if builders.built_dir(data_dir, source, split).is_dir():
        return iter(builders.open_built(data_dir, source, split))
    return find(source).records(data_dir, split, report)


def _synthetic(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """As `_dataset`, on the synthetic test set."""
    from genhmr_jax.evaluate import benchmark
    from genhmr_jax.geometry.bodies import load_body

    model = _load(args, load_body())
    if args.uncertainty and model is not None and not model.system.samples:
        problem = f"needs a model with a confidence, and {model.system.kind} has none"
        raise InputError("--uncertainty", problem, "leave it out")
    found = benchmark.synthetic(
        model,
        args.data_dir,
        args.poses,
        version=SYNTHETIC[args.dataset],
        count=args.limit or benchmark.COUNT,
        iterations=_iterations(args, model),
        refine_steps=_refine_steps(args, model),
        with_robustness=args.robustness,
        with_uncertainty=args.uncertainty,
        pictures=Path(args.pictures) if args.pictures else None,
        context=args.context,
        true_keypoints=args.true_keypoints,
    )
    return _benchmark(args, found, benchmark.synthetic_table(found))


def _photos(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """As `_dataset`, on photos."""
    from genhmr_jax.evaluate.bodies import load_bodies
    from genhmr_jax.evaluate.photos import photos, photos_table

    model = _load(args, load_bodies(args.body_dir, genders=["neutral"]).models["neutral"])
    options = _one_setting(args, model)
    pictures = Path(args.pictures) if args.pictures else None
    found = photos(model, args.data_dir, options=options, pictures=pictures)
    return _benchmark(args, found, photos_table(found))


def _clips(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """As `_dataset`, on clips."""
    from genhmr_jax.evaluate import clips
    from genhmr_jax.geometry.bodies import load_body
    from genhmr_jax.recover.clip_recovery import ClipOptions

    model = _load(args, load_body())
    found = clips.measure_clips(
        model,
        args.data_dir,
        args.poses,
        count=args.limit or clips.COUNT,
        options=ClipOptions(photo=_one_setting(args, model)),
        true_focal=args.true_focal,
    )
    return _benchmark(args, found, clips.clips_table(found))


def _clip_angles(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """As `_dataset`, on the joint angles of rendered people."""
    from genhmr_jax.geometry.bodies import load_body

    model = _load(args, load_body())
    return _benchmark(args, *evaluate_angles.clip_angles(args, model, _one_setting(args, model)))


def _one_setting(args: argparse.Namespace, model: "Recoverer") -> "RecoverOptions":
    """The options of the flags for one setting of a model."""
    from genhmr_jax.recover.photo import RecoverOptions

    return RecoverOptions(
        iterations=args.iterations[0] if args.iterations else None,
        refine_steps=_refine_steps(args, model),
        context=args.context,
    )


def _benchmark(
    args: argparse.Namespace, found: dict[str, Any], text: str
) -> tuple[dict[str, Any], str]:
    """The result of a free benchmark, with the inputs of the model."""
    if args.context != "all":
        text = f"the model gets only the {args.context}. {text}"
    if args.true_keypoints:
        text = f"with the true 2D keypoints. {text}"
    return {"context": args.context, "true_keypoints": args.true_keypoints, **found}, text

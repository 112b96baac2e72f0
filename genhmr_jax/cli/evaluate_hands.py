"""The part of `genhmr eval` that measures models of hands on released datasets."""

import argparse
import itertools
from typing import Any

from genhmr_jax.evaluate.datasets import HAND_DATASETS
from genhmr_jax.io.errors import InputError


def releases(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Measure on a release; --checkpoint is a model of hands.

    Returns:
      the content of the JSON file, and the text.

    Raises:
      InputError: the release is not complete, or --predictions does not go with it.
    """
    from tqdm import tqdm

    from genhmr_jax.data.hands.releases import find
    from genhmr_jax.evaluate.hand_predictions import SAMPLES
    from genhmr_jax.evaluate.hand_releases import measure_release, release_table
    from genhmr_jax.recover.hands import load_hands
    from genhmr_jax.recover.photo import RecoverOptions

    dataset = HAND_DATASETS[args.dataset]
    if args.predictions and (dataset.protocol not in SAMPLES or args.limit):
        problem = f"does not apply to {args.dataset}" + (" with --limit" if args.limit else "")
        remedy = f"the servers take all hands of {' and of '.join(SAMPLES)}"
        raise InputError("--predictions", problem, remedy)
    report = find(dataset.source).report(args.skip_bad)
    records = find(dataset.source).records(args.data_dir, dataset.split, report)
    found = measure_release(
        load_hands(args.checkpoint, args.hand or "free"),
        tqdm(itertools.islice(records, args.limit), args.dataset, unit=" hands", disable=None),
        dataset,
        options=RecoverOptions(
            iterations=args.iterations[0] if args.iterations else None,
            refine_steps=args.refine_steps,
        ),
        true_focal=args.true_focal,
        predictions=args.predictions,
    )
    text = release_table(args.dataset, dataset, found)
    if args.predictions:
        text += f"\npredictions: {args.predictions}"
    settings = {"hand": args.hand or "free", "true_focal": args.true_focal, "limit": args.limit}
    return {"settings": settings, **found, "skipped": report.listed}, f"{text}\n{report.summary()}"

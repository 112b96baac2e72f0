"""The part of `genhmr eval` that measures joint angles."""

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # heavy, imported where they are used
    from genhmr_jax.recover.photo import Recoverer, RecoverOptions


def angles(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Measure on joint angles of stored motions; --checkpoint is a model of NeurIK.

    Returns:
      the content of the JSON file, and the text.
    """
    from genhmr_jax.evaluate.angles import angles_table, measure_angles
    from genhmr_jax.recover.photo import default_checkpoint
    from genhmr_jax.systems.biopose.system import load_neurik

    system, params = load_neurik(args.checkpoint or default_checkpoint("neurik"))
    found = measure_angles(system, params, args.data_dir, args.limit)
    return found, angles_table(found)


def clip_angles(
    args: argparse.Namespace, model: "Recoverer", options: "RecoverOptions"
) -> tuple[dict[str, Any], str]:
    """Measure on the people of the rendered clips. Returns as `angles`."""
    from genhmr_jax.evaluate import clip_angles
    from genhmr_jax.recover.clip_recovery import ClipOptions

    found = clip_angles.measure_clip_angles(
        model,
        args.data_dir,
        args.poses,
        count=args.limit or clip_angles.COUNT,
        options=ClipOptions(photo=options),
    )
    return found, clip_angles.clip_angles_table(found)

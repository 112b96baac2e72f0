"""`genhmr angles`. JAX is imported only when it runs."""

import argparse
from pathlib import Path

from genhmr_jax.cli import recover
from genhmr_jax.cli.flag_types import number
from genhmr_jax.io.paths import path_flag


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    add = parser.add_argument
    result = "STEM.npz of `genhmr recover CLIP`, or a video, which is recovered first"
    add("result", type=path_flag, metavar="RESULT_OR_CLIP", help=result)
    made = "folder for the results; made if missing"
    add("--out", required=True, type=path_flag, metavar="DIR", help=made)
    height = "height of the people, metres (default: as recovered)"
    add("--height", type=number(float, 0.5, 2.6), metavar="M", help=height)
    mass = "mass of the people, kg (default: from the volume of the body)"
    add("--mass", type=number(float, 1, 500), metavar="KG", help=mass)
    cutoff = "cutoff of the low-pass filter, Hz; 0: none (default: %(default)s)"
    add("--filter", type=number(float, 0, 1000), default=6.0, metavar="HZ", help=cutoff)
    how = "network (NeurIK), inverse kinematics, or rotations of the body (default: %(default)s)"
    add("--method", choices=("neurik", "ik", "reading"), default="neurik", help=how)
    bodies = "the body of the result (default: neutral, or that of the clip)"
    add("--body", type=path_flag, help=bodies)


def run(args: argparse.Namespace) -> int:
    """Recover the clip, if it is none yet, and write its angles; see recover.angles_command.run."""
    from genhmr_jax.io.video import is_video
    from genhmr_jax.recover import angles_command

    if is_video(args.result):
        parser = argparse.ArgumentParser()
        recover.add_flags(parser)
        flags = [args.result, "--out", args.out, "--no-overlay"]
        flags += ["--body", args.body] if args.body else []
        flags += ["--height", str(args.height)] if args.height else []
        code = recover.run(parser.parse_args([str(flag) for flag in flags]))
        if code:
            return code
        args.result = str(Path(args.out) / f"{Path(args.result).stem}.npz")
    return angles_command.run(args)

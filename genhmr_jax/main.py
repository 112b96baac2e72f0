"""Training: `python -m genhmr_jax.main --config=configs/SYSTEM/RECIPE.py --workdir=DIR`.

Flags only; see train/loop.py.
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from genhmr_jax.io.atomic import disk_error
from genhmr_jax.io.errors import InputError, Preempted
from genhmr_jax.io.paths import FlagError, path_flag

RESUME = 75  # EX_TEMPFAIL: the run was told to stop and has saved; the same command goes on


def build_parser() -> argparse.ArgumentParser:
    """The flags. What it leaves over must be overrides of config fields."""
    parser = argparse.ArgumentParser(
        prog="genhmr_jax.main",
        description="Trains what a config describes, or goes on with it. Any field of the config: --config.FIELD.FIELD=VALUE.",
    )
    add = parser.add_argument
    file = "a file of configs/, such as configs/genhmr/tiny.py, or configs/genhmr/vit.py:b"
    add("--config", required=True, type=path_flag, metavar="FILE:ARG", help=file)
    folder = "checkpoints, metrics.jsonl and the exported model; may be gs://"
    add("--workdir", required=True, type=path_flag, metavar="DIR", help=folder)
    parser.add_argument(
        "--evaluate",
        action="store_true",
        help="only evaluate the newest checkpoint, and export it to DIR/model",
    )
    parser.add_argument(
        "--coordinator",
        metavar="HOST:PORT",
        help="process 0, where it is not detected (launch/README.md)",
    )
    parser.add_argument(
        "--num_processes", type=int, metavar="N", help="how many processes train together"
    )
    parser.add_argument("--process_id", type=int, metavar="I", help="which of them this is, from 0")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Trains (or evaluates) what the config describes."""
    parser = build_parser()
    try:
        args, rest = parser.parse_known_args(argv)
    except FlagError as error:
        sys.exit(f"genhmr_jax.main: {error}")
    if unknown := [text for text in rest if not (text.startswith("--config.") and "=" in text)]:
        parser.error(
            f"unrecognized arguments: {' '.join(unknown)} (fields of the config are set with --config.FIELD=VALUE)"
        )
    logging.basicConfig(
        level=logging.WARNING,
        format="%(asctime)s %(message)s",
        datefmt="%H:%M:%S",
        stream=sys.stderr,
        force=True,
    )
    logging.getLogger("genhmr_jax").setLevel(logging.INFO)
    from absl import flags  # after the flags: --help must not wait for JAX

    from genhmr_jax.io.config_files import load_config
    from genhmr_jax.train import distributed

    flags.FLAGS.mark_as_parsed()  # grain reads absl's flags
    try:
        config = load_config(args.config, rest)
        distributed.initialize(args.coordinator, args.num_processes, args.process_id)
        from genhmr_jax.systems import registry  # after that: they touch devices
        from genhmr_jax.train import loop

        task = registry.make_task(config)
        run = loop.evaluate if args.evaluate else loop.train
        run(task, config, args.workdir)
    except InputError as error:
        distributed.leave(f"genhmr_jax.main: {error}")
    except Preempted as stop:
        print(f"genhmr_jax.main: {stop}; run the same command to go on", file=sys.stderr)
        sys.exit(RESUME)
    except Exception as error:
        found = disk_error(error, args.workdir)
        if found is None or os.environ.get("GENHMR_DEBUG"):
            raise
        distributed.leave(f"genhmr_jax.main: {found}")


if __name__ == "__main__":
    main()

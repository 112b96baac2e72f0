"""Training: `python -m genhmr_jax.main --config=configs/SYSTEM/RECIPE.py --workdir=DIR`.

This module parses the flags and reports errors. The loop is train/loop.py.
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from genhmr_jax.io.atomic import disk_error
from genhmr_jax.io.errors import InputError, Preempted
from genhmr_jax.io.paths import FlagError, path_flag

RESUME = 75  # EX_TEMPFAIL: the run was preempted and has saved; the same command resumes it


def build_parser() -> argparse.ArgumentParser:
    """The parser of the flags. Arguments that it does not know must override config fields."""
    parser = argparse.ArgumentParser(
        prog="genhmr_jax.main",
        description="Trains the model of a config, or resumes its training. "
        "--config.FIELD.FIELD=VALUE overrides any field of the config.",
    )
    add = parser.add_argument
    file = "a config file, such as configs/genhmr/tiny.py, or configs/genhmr/vit.py:b"
    add("--config", required=True, type=path_flag, metavar="FILE:ARG", help=file)
    folder = "checkpoints, metrics.jsonl and the exported model; may be gs://"
    add("--workdir", required=True, type=path_flag, metavar="DIR", help=folder)
    only = "only evaluate: the newest checkpoint, which is exported to DIR/model, or --config.init"
    add("--evaluate", action="store_true", help=only)
    address = "address of process 0, if it cannot be detected (launch/README.md)"
    add("--coordinator", metavar="HOST:PORT", help=address)
    add("--num_processes", type=int, metavar="N", help="number of processes of the training")
    add("--process_id", type=int, metavar="I", help="index of this process, from 0")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Train or evaluate the model of a config."""
    parser = build_parser()
    try:
        args, rest = parser.parse_known_args(argv)
    except FlagError as error:
        sys.exit(f"genhmr_jax.main: {error}")
    if unknown := [text for text in rest if not (text.startswith("--config.") and "=" in text)]:
        remedy = "fields of the config are set with --config.FIELD=VALUE"
        parser.error(f"unrecognized arguments: {' '.join(unknown)} ({remedy})")
    logging.basicConfig(
        level=logging.WARNING,
        format="%(asctime)s %(message)s",
        datefmt="%H:%M:%S",
        stream=sys.stderr,
        force=True,
    )
    logging.getLogger("genhmr_jax").setLevel(logging.INFO)
    from absl import flags  # imported late: --help must not wait for JAX

    from genhmr_jax.io.config_files import load_config
    from genhmr_jax.train import distributed

    flags.FLAGS.mark_as_parsed()  # grain reads the flags of absl
    try:
        config = load_config(args.config, rest)
        distributed.initialize(args.coordinator, args.num_processes, args.process_id)
        from genhmr_jax.systems import registry  # after `initialize`: it uses devices
        from genhmr_jax.train import loop

        task = registry.make_task(config)
        run = loop.evaluate if args.evaluate else loop.train
        run(task, config, args.workdir)
    except InputError as error:
        distributed.leave(f"genhmr_jax.main: {error}")
    except Preempted as stop:
        print(f"genhmr_jax.main: {stop}; run the same command to resume", file=sys.stderr)
        sys.exit(RESUME)
    except Exception as error:
        found = disk_error(error, args.workdir)
        if found is None or os.environ.get("GENHMR_DEBUG"):
            raise
        distributed.leave(f"genhmr_jax.main: {found}")


if __name__ == "__main__":
    main()

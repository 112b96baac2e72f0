"""Training and evaluation: `python -m genhmr_jax.main --config=configs/X.py:arg --workdir=DIR`. Flags only; see train/loop.py."""

import logging
import sys

from absl import app, flags
from ml_collections import config_flags

from genhmr_jax.errors import InputError

_CONFIG = config_flags.DEFINE_config_file("config", None, "A file of configs/, with an argument: configs/genhmr.py:tiny", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for checkpoints, metrics.jsonl and the exported model.")
_EVALUATE = flags.DEFINE_bool("evaluate", False, "Only evaluate the newest checkpoint of the workdir, and export it to its model folder.")
flags.mark_flags_as_required(["config", "workdir"])


def main(argv: list[str]) -> None:
    """Trains (or evaluates) what the config describes."""
    if len(argv) > 1:
        raise app.UsageError(f"what is {' '.join(argv[1:])}?")
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr, force=True)
    logging.getLogger("genhmr_jax").setLevel(logging.INFO)
    from genhmr_jax.train import loop, tasks  # after the flags: --help must not wait for JAX

    try:
        task = tasks.make_task(_CONFIG.value)
        run = loop.evaluate if _EVALUATE.value else loop.train
        run(task, _CONFIG.value, _WORKDIR.value)
    except InputError as error:
        sys.exit(f"genhmr_jax.main: {error}")


if __name__ == "__main__":
    app.run(main)

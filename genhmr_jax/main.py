"""Training and evaluation: `python -m genhmr_jax.main --config=configs/X.py:arg --workdir=DIR`. Flags only; see train/loop.py."""

import logging
import sys

from absl import app, flags
from ml_collections import config_flags

from genhmr_jax.errors import InputError, Preempted

_CONFIG = config_flags.DEFINE_config_file("config", None, "A file of configs/, with an argument: configs/genhmr.py:tiny", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for checkpoints, metrics.jsonl and the exported model.")
_EVALUATE = flags.DEFINE_bool("evaluate", False, "Only evaluate the newest checkpoint of the workdir, and export it to its model folder.")
_COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, where it is not detected (docs: launch/README.md).")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes train together.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.")
flags.mark_flags_as_required(["config", "workdir"])

RESUME = 75  # EX_TEMPFAIL: the run was told to stop and has saved; the same command goes on


def main(argv: list[str]) -> None:
    """Trains (or evaluates) what the config describes."""
    if len(argv) > 1:
        raise app.UsageError(f"what is {' '.join(argv[1:])}?")
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr, force=True)
    logging.getLogger("genhmr_jax").setLevel(logging.INFO)
    from genhmr_jax.train import distributed  # after the flags: --help must not wait for JAX

    try:
        distributed.initialize(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
        from genhmr_jax.train import loop, tasks  # after that: they touch devices

        task = tasks.make_task(_CONFIG.value)
        run = loop.evaluate if _EVALUATE.value else loop.train
        run(task, _CONFIG.value, _WORKDIR.value)
    except InputError as error:
        distributed.leave(f"genhmr_jax.main: {error}")
    except Preempted as stop:
        print(f"genhmr_jax.main: {stop}; run the same command to go on", file=sys.stderr)
        sys.exit(RESUME)


if __name__ == "__main__":
    app.run(main)

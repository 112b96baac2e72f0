"""genhmr_jax.main with an input that takes its time, so that a test can interrupt a run between two
steps; see processes_test.py."""

import time

from genhmr_jax import main
from genhmr_jax.data import poses

SECONDS = (
    0.7  # a batch; orbax needs about one second to agree on the step at which all processes stop
)


def load(source, numbers, fast=poses.PoseSource.load):
    time.sleep(SECONDS)
    return fast(source, numbers)


if __name__ == "__main__":
    poses.PoseSource.load = load
    main.main()

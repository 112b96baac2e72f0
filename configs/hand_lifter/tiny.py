"""A toy lifter of hands on the rows in runs/hand_lifter_rows, for tests.

Seconds on 2 CPU cores:

    python -m genhmr_jax.main --config=configs/hand_lifter/tiny.py --workdir=runs/hand_lifter_tiny
"""

import ml_collections

from genhmr_jax.io.config_files import start_from


def get_config() -> ml_collections.ConfigDict:
    c = start_from(__file__, "base.py")
    c.image_batch_size = 4
    c.steps = 10
    c.log_every = 5
    c.evaluate_every = 10
    c.checkpoint_every = 5
    c.model.map_channels = 2
    c.model.map_features = 8
    c.model.width = 16
    c.model.depth = 1
    return c

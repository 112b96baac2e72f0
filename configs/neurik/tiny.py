"""A toy model, for tests.

    python -m genhmr_jax.main --config=configs/neurik/tiny.py --workdir=runs/neurik_tiny \\
        --config.data.angles=angles.npz
"""

import ml_collections

from genhmr_jax.io.config_files import start_from


def get_config() -> ml_collections.ConfigDict:
    c = start_from(__file__, "base.py")
    c.batch_size = 8
    c.steps = 20
    c.log_every = 5
    c.evaluate_every = 10
    c.checkpoint_every = 10
    c.evaluate_windows = 8
    c.model.marker_width = 8
    c.model.marker_blocks = 1
    c.model.width = 16
    c.model.layers = 1
    c.model.heads = 2
    c.model.window = 8
    c.optim.warmup = 5
    return c

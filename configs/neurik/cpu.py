"""A model for 2 CPU cores: the recipe of the shipped model.

    genhmr data angles --poses poses.npz --out angles.npz
    python -m genhmr_jax.main --config=configs/neurik/cpu.py --workdir=runs/neurik \\
        --config.data.angles=angles.npz
"""

import ml_collections

from genhmr_jax.io.config_files import start_from


def get_config() -> ml_collections.ConfigDict:
    c = start_from(__file__, "base.py")
    c.batch_size = 24
    c.steps = 2500
    c.evaluate_every = 500
    c.checkpoint_every = 250
    c.evaluate_windows = 96
    c.model.marker_width = 24
    c.model.marker_blocks = 2
    c.model.width = 160
    c.model.heads = 5
    c.model.window = 32
    c.optim.learning_rate = 1.2e-3
    c.optim.warmup = 200
    c.optim.ema_decay = 0.998
    return c

"""Two layers beside the MLP of cpu.py, whose model is trained first. 20 minutes on 2 CPU cores.

    python -m genhmr_jax.main --config=configs/posturehmr/cpu_layers.py \\
        --workdir=runs/posturehmr_layers --config.data.poses=cmu_poses.npz
"""

import ml_collections

from genhmr_jax.io.config_files import start_from


def get_config() -> ml_collections.ConfigDict:
    c = start_from(__file__, "cpu.py")
    c.init = "runs/posturehmr/model"
    c.batch_size = 16
    c.image_batch_size = 16
    c.steps = 900
    c.evaluate_every = 900
    c.model.layers = 2
    c.optim.learning_rate = 5e-4
    c.optim.warmup = 50
    c.optim.ema_decay = 0.99
    return c

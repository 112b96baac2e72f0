"""A decoder for 2 CPU cores: the recipe of the shipped model.

It is an MLP over all markers, on straight paths of the vertices. `cpu_layers.py` adds the layers.
40 minutes. docs/training.md has the commands that make runs/detections.

    python -m genhmr_jax.main --config=configs/posturehmr/cpu.py --workdir=runs/posturehmr \\
        --config.data.poses=cmu_poses.npz
"""

import ml_collections

from genhmr_jax.io.config_files import start_from


def get_config() -> ml_collections.ConfigDict:
    c = start_from(__file__, "base.py")
    c.batch_size = 128
    c.image_batch_size = 128
    c.steps = 5000
    c.evaluate_every = 1000
    c.model.width = 64
    c.model.layers = 0
    c.model.keys = "markers"
    c.model.whole_width = 384
    c.model.whole_depth = 2
    c.model.process = "linear"
    c.training.steps_per_sample = 4
    c.training.rollout_prob = 0.5
    c.training.true_mesh2d = 0.3
    c.loss.posture = 0.001
    c.optim.learning_rate = 1e-3
    c.optim.warmup = 200
    c.optim.weight_decay = 0.01
    c.optim.ema_decay = 0.998
    return c

"""MQ-HMR for 2 CPU cores: over the maps of the frozen detector, of rendered people.

The rows are those of the shipped GenHMR (docs/training.md has the commands):

    python -m genhmr_jax.main --config=configs/regressors/mqhmr_cpu.py --workdir=runs/mqhmr \\
        --config.data.images=runs/detections
"""

import ml_collections

from genhmr_jax.io.config_files import start_from


def get_config() -> ml_collections.ConfigDict:
    c = start_from(__file__, "mqhmr.py")
    c.image_batch_size = 128
    c.steps = 3000
    c.log_every = 50
    c.evaluate_every = 1000
    c.checkpoint_every = 250

    c.model.encoder = "detector"
    c.model.queries.width = 128
    c.model.queries.layers = 2
    c.model.queries.heads = 4
    c.model.queries.mlp_ratio = 2
    c.model.queries.activation = "relu"

    c.data.images = "runs/detections"

    c.optim.learning_rate = 1e-3
    c.optim.warmup = 200
    c.optim.final = 0.02
    c.optim.b2 = 0.98
    c.optim.weight_decay = 0.02

    c.precision = "float32"
    c.remat = "none"
    c.drop_path = 0.0
    c.mesh.data = -1
    c.mesh.fsdp = 1
    return c

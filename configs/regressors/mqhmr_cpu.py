"""MQ-HMR for 2 CPU cores: over BlazePose's frozen maps of rendered people.

docs/training.md has the commands that make runs/maps:

    python -m genhmr_jax.main --config=configs/regressors/mqhmr_cpu.py --workdir=runs/mqhmr \\
        --config.data.images=runs/maps
"""

import ml_collections

from genhmr_jax.io.config_files import start_from


def get_config() -> ml_collections.ConfigDict:
    c = start_from(__file__, "mqhmr.py")
    c.image_batch_size = 64
    c.steps = 1500
    c.log_every = 50
    c.evaluate_every = 500
    c.checkpoint_every = 250

    c.model.encoder = "blazepose_full"
    c.model.queries.width = 128
    c.model.queries.layers = 2
    c.model.queries.heads = 4
    c.model.queries.mlp_ratio = 2
    c.model.queries.activation = "relu"

    c.data.images = "runs/maps"

    c.optim.learning_rate = 1e-3
    c.optim.warmup = 200
    c.optim.final = 0.02
    c.optim.b2 = 0.98
    c.optim.weight_decay = 0.01

    c.precision = "float32"
    c.remat = "none"
    c.drop_path = 0.0
    c.mesh.data = -1
    c.mesh.fsdp = 1
    return c

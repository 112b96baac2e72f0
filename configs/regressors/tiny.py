"""A toy HMR2.0 of one layer on people that are rendered on the spot, for tests. It needs no data.

A minute on 2 CPU cores, most of it compilation:

    python -m genhmr_jax.main --config=configs/regressors/tiny.py --workdir=runs/hmr2_tiny
"""

import ml_collections

from genhmr_jax.io.config_files import start_from


def get_config() -> ml_collections.ConfigDict:
    c = start_from(__file__, "base.py")
    c.image_batch_size = 4
    c.steps = 20
    c.log_every = 5
    c.evaluate_every = 10
    c.checkpoint_every = 10
    c.evaluate_poses = 8

    c.model.encoder = "vit_s"
    c.model.encoder_depth = 1
    c.model.decoder.width = 32
    c.model.decoder.layers = 1
    c.model.decoder.heads = 2
    c.model.decoder.head_dim = 16
    c.model.decoder.mlp = 32

    c.data.poses = "made-up"
    c.data.mixture = "rendered"
    c.data.people_val = "rendered:val"

    c.optim.learning_rate = 1e-3
    c.optim.warmup = 2

    c.precision = "float32"
    c.remat = "none"
    c.drop_path = 0.0
    c.mesh.data = -1
    c.mesh.fsdp = 1
    return c

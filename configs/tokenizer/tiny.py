"""A toy tokenizer on made-up poses, for tests. It needs no data.

Half a minute on 2 CPU cores, most of it compilation:

    python -m genhmr_jax.main --config=configs/tokenizer/tiny.py --workdir=runs/tokenizer_tiny
"""

import ml_collections

from genhmr_jax.io.config_files import start_from


def get_config() -> ml_collections.ConfigDict:
    c = start_from(__file__, "base.py")
    c.batch_size = 16
    c.steps = 20
    c.log_every = 5
    c.evaluate_every = 10
    c.checkpoint_every = 10
    c.evaluate_poses = 32
    c.model.codebook_size = 64
    c.model.width = 32
    c.model.depth = 1
    c.data.poses = "made-up"
    return c

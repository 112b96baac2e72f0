"""A toy model on keypoints of made-up poses, for tests. It needs no data.

A minute on 2 CPU cores, most of it compilation; configs/tokenizer/tiny.py is trained first:

    python -m genhmr_jax.main --config=configs/genhmr/tiny.py --workdir=runs/genhmr_tiny
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
    c.tokenizer = "runs/tokenizer_tiny/model"
    c.model.transformer.width = 24
    c.model.transformer.layers = 1
    c.model.transformer.heads = 2
    c.model.context_width = 32
    c.model.context_depth = 1
    c.model.score_width = 16
    c.data.poses = "made-up"
    return c

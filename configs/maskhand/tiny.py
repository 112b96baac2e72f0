"""A toy model of hands on made-up poses, for tests. It needs no data.

configs/hand_tokenizer/tiny.py is trained first:

    python -m genhmr_jax.main --config=configs/maskhand/tiny.py --workdir=runs/maskhand_tiny
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
    c.evaluate_poses = 16
    c.tokenizer = "runs/hand_tokenizer_tiny/model"
    c.model.gapr_blocks = 1
    c.model.branch_blocks = 1
    c.model.feedback = True
    c.model.correction_width = 16
    c.model.correction_depth = 1
    c.model.token_features = 8
    c.model.score_width = 16
    c.model.transformer.width = 16
    c.model.transformer.layers = 1
    c.model.transformer.heads = 2
    c.model.transformer.mlp_ratio = 2
    c.data.poses = "made-up"
    return c

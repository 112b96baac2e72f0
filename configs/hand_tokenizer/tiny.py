"""A toy tokenizer of hands on made-up poses, for tests. It needs no data.

    python -m genhmr_jax.main --config=configs/hand_tokenizer/tiny.py \\
        --workdir=runs/hand_tokenizer_tiny
"""

import ml_collections

from genhmr_jax.io.config_files import start_from


def get_config() -> ml_collections.ConfigDict:
    c = start_from(__file__, "base.py")
    tiny = start_from(__file__, "../tokenizer/tiny.py")
    for name in ("batch_size", "steps", "log_every", "evaluate_every", "checkpoint_every"):
        c[name] = tiny[name]
    c.evaluate_poses = tiny.evaluate_poses
    c.model.codebook_size = 32
    c.model.width = 16
    c.model.depth = 1
    c.data.poses = "made-up"
    return c

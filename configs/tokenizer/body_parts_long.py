"""`body_parts.py` for a GPU: larger batches, 67 times as many poses. It has not been run.

    python -m genhmr_jax.main --config=configs/tokenizer/body_parts_long.py \\
        --workdir=runs/tokenizer_long --config.data.poses=cmu_poses.npz
"""

import ml_collections

from genhmr_jax.io.config_files import start_from


def get_config() -> ml_collections.ConfigDict:
    c = start_from(__file__, "body_parts.py")
    c.batch_size = 1024
    c.steps = 200_000
    return c

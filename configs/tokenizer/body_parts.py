"""The shipped tokenizer: tokens for each body part, 30 tokens x 1024 codes.

25 minutes on 2 CPU cores:

    python -m genhmr_jax.main --config=configs/tokenizer/body_parts.py --workdir=runs/tokenizer \\
        --config.data.poses=cmu_poses.npz
"""

import ml_collections

from genhmr_jax.io.config_files import start_from


def get_config() -> ml_collections.ConfigDict:
    return start_from(__file__, "base.py")

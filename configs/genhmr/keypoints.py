"""Keypoints alone, simulated: `image_and_keypoints.py` without an image.

It needs a pose corpus and the tokenizer of configs/tokenizer/body_parts.py. An hour on 2 CPU
cores:

    python -m genhmr_jax.main --config=configs/genhmr/keypoints.py --workdir=runs/keypoints \\
        --config.data.poses=cmu_poses.npz --config.tokenizer=runs/tokenizer/model
"""

import ml_collections

from genhmr_jax.io.config_files import start_from


def get_config() -> ml_collections.ConfigDict:
    return start_from(__file__, "base.py")

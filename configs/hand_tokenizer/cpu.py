"""The tokenizer of the shipped model of hands: 29 tokens x 512 codes.

8 minutes on 2 CPU cores:

    genhmr data hand-poses --out hand_poses.npz
    python -m genhmr_jax.main --config=configs/hand_tokenizer/cpu.py \\
        --workdir=runs/hand_tokenizer --config.data.poses=hand_poses.npz
"""

import ml_collections

from genhmr_jax.io.config_files import start_from


def get_config() -> ml_collections.ConfigDict:
    return start_from(__file__, "base.py")

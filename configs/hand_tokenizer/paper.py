"""The paper's tokenizer of hands: 64 tokens by convolutions along the joints, four for each.

The codebook and the sizes of the layers are not published. Here they are those of the tokenizer of
poses in TokenHMR, on which the paper builds: 2048 codes of 256 dims, 512 channels. It has been
traced at this size, and not been trained.

    python -m genhmr_jax.main --config=configs/hand_tokenizer/paper.py \\
        --workdir=runs/hand_tokenizer_paper --config.data.poses=hand_poses.npz
"""

import ml_collections

from genhmr_jax.io.config_files import start_from


def get_config() -> ml_collections.ConfigDict:
    c = start_from(__file__, "base.py")
    c.steps = 200_000
    c.model.arch = "conv"
    c.model.num_tokens = 64
    c.model.codebook_size = 2048
    c.model.code_dim = 256
    c.model.width = 512
    c.optim.learning_rate = 2e-4
    c.optim.final = 0.05
    return c

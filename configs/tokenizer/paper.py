"""The paper's tokenizer: 96 tokens x 2048 codes x 256 dims, convolutions along the joints.

200,000 steps of 256 poses of AMASS and MOYO, mixed with TokenHMR's weights (docs/data.md). It has
been compiled at this size, and not been trained.

    genhmr data poses --data-dir data --source amass,moyo --out amass_moyo.npz
    python -m genhmr_jax.main --config=configs/tokenizer/paper.py --workdir=runs/tokenizer_paper
"""

import ml_collections

from genhmr_jax.io.config_files import start_from


def get_config() -> ml_collections.ConfigDict:
    c = start_from(__file__, "base.py")
    c.steps = 200_000
    c.model.arch = "conv"
    c.model.codebook_size = 2048
    c.model.code_dim = 256
    c.model.width = 512
    c.data.poses = "amass_moyo.npz"
    # The paper turns all poses about all axes; half of ours stay nearly upright.
    c.data.view.free_rotation = 0.5
    c.optim.learning_rate = 2e-4
    c.optim.final = 0.05
    return c

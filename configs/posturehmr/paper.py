"""The decoder with the paper's sizes and losses, for accelerators.

The learning rate is halved after 30 of 40 epochs in the paper; here it follows a cosine to half of
it.

    python -m genhmr_jax.main --config=configs/posturehmr/paper.py --workdir=runs/posturehmr \\
        --config.data.poses=amass.npz --config.data.images=runs/features \\
        --config.mesh2d=runs/mesh2d_paper/model
"""

import ml_collections

from genhmr_jax.io.config_files import start_from


def get_config() -> ml_collections.ConfigDict:
    c = start_from(__file__, "base.py")
    c.batch_size = 0
    c.image_batch_size = 32
    c.steps = 400000  # 40 epochs of about 320,000 images
    c.evaluate_every = 10000
    c.checkpoint_every = 5000
    c.optim.final = 0.5
    return c

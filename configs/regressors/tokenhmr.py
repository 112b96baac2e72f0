"""TokenHMR as published: 100,000 steps of 192 crops from ViTPose's backbone.

DATA holds what `genhmr data build` made (docs/data.md). It has been run at toy size only.

    python -m genhmr_jax.main --config=configs/regressors/tokenhmr.py --workdir=runs/tokenhmr \\
        --config.init=models/vitpose_h --config.tokenizer=models/tokenhmr \\
        --config.data.people=DATA

Argument: the size of the ViT, `h` (the default, the published one) or `b`.
"""

import ml_collections

from genhmr_jax.io.config_files import start_from


def get_config(size: str = "h") -> ml_collections.ConfigDict:
    c = start_from(__file__, f"hmr2.py:{size}")
    c.image_batch_size = 192  # 48 on each of 4 GPUs
    c.steps = 100_000
    c.model.kind = "tokenhmr"
    c.data.mixture = "tokenhmr"
    c.loss.loose.weight = 0.05
    c.optim.learning_rate = 5e-6
    return c

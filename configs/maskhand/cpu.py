"""A model for 2 CPU cores: the recipe of the shipped model.

The rows are those of `python -m genhmr_jax.data.hands.write` (docs/systems/maskhand.md).

    python -m genhmr_jax.main --config=configs/maskhand/cpu.py --workdir=runs/maskhand \\
        --config.data.poses=hand_poses.npz --config.data.images=runs/hand_images
"""

import ml_collections

from genhmr_jax.io.config_files import start_from


def get_config() -> ml_collections.ConfigDict:
    c = start_from(__file__, "base.py")
    c.batch_size = 64
    c.image_batch_size = 128
    c.steps = 5000
    c.evaluate_every = 1000
    c.model.encoder = "hand_landmarks"
    c.model.transformer.width = 96
    c.model.transformer.layers = 2
    c.model.transformer.activation = "relu"
    c.model.feedback = True
    c.model.correction_depth = 2
    c.model.token_features = 32
    return c

"""Keypoints and image, iterations with feedback: the recipe of the shipped model.

Two and a half hours on 2 CPU cores, and an hour and a half for its data. The shipped weights are of
1,800 steps and then 2,800 from these (its model card).

docs/training.md has the commands that make runs/detections.

    python -m genhmr_jax.main --config=configs/genhmr/image_and_keypoints.py \\
        --workdir=runs/image_and_keypoints --config.data.poses=cmu_poses.npz \\
        --config.tokenizer=runs/tokenizer/model
"""

import ml_collections

from genhmr_jax.io.config_files import start_from


def get_config() -> ml_collections.ConfigDict:
    c = start_from(__file__, "base.py")
    c.batch_size = 128
    c.image_batch_size = 128
    c.steps = 4600
    c.evaluate_every = 2300
    c.evaluate_poses = 1024
    c.model.encoder = "detector"
    c.model.encoder_channels = (288, 288)
    c.data.images = "runs/detections"
    c.masking.drop_keypoints = 0.2
    c.masking.drop_image = 0.2
    c.optim.weight_decay = 0.02
    return c

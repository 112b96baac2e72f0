"""Keypoints, and BlazePose's inner maps of plain crops of rendered people.

It has been run on small sets only. docs/training.md has the commands that make runs/maps:

    python -m genhmr_jax.main --config=configs/genhmr/keypoints_and_blazepose_maps.py \\
        --workdir=runs/keypoints_and_blazepose_maps --config.data.poses=cmu_poses.npz \\
        --config.data.images=runs/maps --config.init=runs/keypoints/model
"""

import ml_collections

from genhmr_jax.io.config_files import start_from


def get_config() -> ml_collections.ConfigDict:
    c = start_from(__file__, "base.py")
    c.batch_size = 64
    c.image_batch_size = 64
    c.model.encoder_channels = (80, 136, 288)
    c.data.images = "runs/features"
    c.masking.drop_keypoints = 0.3
    return c

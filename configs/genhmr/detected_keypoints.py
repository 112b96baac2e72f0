"""The keypoints that the detector finds, in 2D and 3D, on rendered people: the second training of
stage 2 of the shipped model.

It continues `keypoints.py`; half of its rows are still simulated. docs/training.md has the
commands that make runs/features. An hour on 2 CPU cores:

    python -m genhmr_jax.main --config=configs/genhmr/detected_keypoints.py \\
        --workdir=runs/detected_keypoints --config.data.poses=cmu_poses.npz
"""

import ml_collections

from genhmr_jax.io.config_files import start_from


def get_config() -> ml_collections.ConfigDict:
    c = start_from(__file__, "base.py")
    c.batch_size = 64
    c.image_batch_size = 64
    c.steps = 3200
    c.evaluate_every = 800
    c.evaluate_poses = 1024
    c.init = "runs/keypoints/model"
    c.model.keypoints3d = True
    c.data.images = "runs/features"
    c.masking.unroll = 0.4
    c.optim.learning_rate = 4e-4
    c.optim.warmup = 100
    return c

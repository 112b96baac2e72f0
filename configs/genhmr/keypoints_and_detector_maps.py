"""Keypoints of the lifter, maps of the detector, or both: one model for all three.

It continues `lifted_keypoints.py` and `detector_maps.py`; its model is not shipped
(docs/experiments.md). An hour on 2 CPU cores:

    python -m genhmr_jax.main --config=configs/genhmr/keypoints_and_detector_maps.py \\
        --workdir=runs/keypoints_and_detector_maps --config.data.poses=cmu_poses.npz \\
        --config.data.images=runs/detections_of_all
"""

import ml_collections

from genhmr_jax.io.config_files import start_from


def get_config() -> ml_collections.ConfigDict:
    c = start_from(__file__, "base.py")
    c.batch_size = 32
    c.image_batch_size = 112
    c.steps = 3200
    c.evaluate_every = 1600
    # What both have is taken from the second.
    c.init = "runs/lifted_keypoints/model,runs/detector_maps/model"
    c.model.keypoints3d = True
    c.model.context_depth = 2
    c.model.encoder = "detector"
    c.model.encoder_channels = (288, 288)
    c.data.images = "runs/detections"
    c.masking.all_masked = 0.5
    c.masking.drop_keypoints = 0.5
    c.optim.learning_rate = 6e-4
    c.optim.weight_decay = 0.05
    return c

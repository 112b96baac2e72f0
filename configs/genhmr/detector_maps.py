"""The image alone, by the maps that the detector leaves of each person (encoder "detector").

It starts from the shipped model, `lifted_keypoints.py`; its own model is not shipped.
docs/training.md has the commands that make runs/detections_of_all. A quarter of an hour on 2 CPU
cores:

    python -m genhmr_jax.main --config=configs/genhmr/detector_maps.py \\
        --workdir=runs/detector_maps --config.data.images=runs/detections_of_all
"""

import ml_collections

from genhmr_jax.io.config_files import start_from


def get_config() -> ml_collections.ConfigDict:
    c = start_from(__file__, "base.py")
    c.batch_size = 0
    c.image_batch_size = 128
    c.steps = 800
    c.evaluate_every = 800
    c.init = "runs/lifted_keypoints/model"
    c.model.num_keypoints = 0
    c.model.encoder = "detector"
    c.model.encoder_channels = (288, 288)
    c.data.images = "runs/detections"
    c.masking.all_masked = 0.5
    c.masking.drop_image = 0.0
    c.optim.weight_decay = 0.05
    return c

"""The keypoints of the lifter, on more rendered people: the last training of the shipped model.

It continues `detected_keypoints.py`, with runs/features made again by a detector with the lifter
of configs/lifter/rendered_people.py (docs/training.md). Half an hour on 2 CPU cores:

    python -m genhmr_jax.main --config=configs/genhmr/lifted_keypoints.py \\
        --workdir=runs/lifted_keypoints --config.data.poses=cmu_poses.npz
"""

import ml_collections

from genhmr_jax.io.config_files import start_from


def get_config() -> ml_collections.ConfigDict:
    c = start_from(__file__, "detected_keypoints.py")
    c.batch_size = 32
    c.image_batch_size = 96
    c.steps = 2600
    c.evaluate_every = 1300
    c.init = "runs/detected_keypoints/model"
    # One iteration gives the best single answer, and all tokens are masked in it: so they are in
    # half of the samples.
    c.masking.all_masked = 0.5
    return c

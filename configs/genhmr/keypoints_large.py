"""`keypoints.py` for a GPU: a wider network, larger batches, more steps. It has not been run.

    python -m genhmr_jax.main --config=configs/genhmr/keypoints_large.py \\
        --workdir=runs/keypoints_large --config.data.poses=cmu_poses.npz
"""

import ml_collections

from genhmr_jax.io.config_files import start_from


def get_config() -> ml_collections.ConfigDict:
    c = start_from(__file__, "keypoints.py")
    c.batch_size = 1024
    c.steps = 100_000
    c.model.transformer.width = 512
    c.model.transformer.layers = 6
    c.model.transformer.heads = 8
    c.optim.learning_rate = 5e-4
    return c

"""A toy decoder on made-up poses, for tests. It needs no data.

configs/mesh2d/tiny.py is trained first:

    python -m genhmr_jax.main --config=configs/posturehmr/tiny.py --workdir=runs/posturehmr_tiny
"""

import ml_collections

from genhmr_jax.io.config_files import start_from


def get_config() -> ml_collections.ConfigDict:
    c = start_from(__file__, "base.py")
    c.batch_size = 8
    c.image_batch_size = 0
    c.steps = 20
    c.log_every = 5
    c.evaluate_every = 10
    c.checkpoint_every = 10
    c.evaluate_poses = 16
    c.mesh2d = "runs/mesh2d_tiny/model"
    c.model.width = 16
    c.model.layers = 1
    c.model.heads = 2
    c.training.steps_per_sample = 2
    c.training.rollout_prob = 0.5
    c.training.true_mesh2d = 0.5
    c.data.poses = "made-up"
    c.data.images = ""
    c.optim.learning_rate = 1e-3
    return c

"""A toy first stage of PostureHMR on made-up poses, for tests. It needs no data.

python -m genhmr_jax.main --config=configs/mesh2d/tiny.py --workdir=runs/mesh2d_tiny
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
    c.model.encoder_channels = ()
    c.model.width = 32
    c.model.depth = 1
    c.model.point_width = 4
    c.data.poses = "made-up"
    c.data.images = ""
    c.silhouette.size = 16
    c.silhouette.band = 2
    c.loss.silhouette = 1.0
    return c

"""Every field of the first stage of PostureHMR, which estimates 2D meshes, with the values of
`cpu.py`.

A recipe starts from this file and overrides what differs.
"""

import ml_collections

from genhmr_jax.data.views import ViewSpec
from genhmr_jax.train import defaults


def get_config() -> ml_collections.ConfigDict:
    c = defaults.runtime()
    c.stage = "mesh2d"
    c.seed = 0
    c.batch_size = 128  # simulated views a step
    c.image_batch_size = 128  # stored rows of rendered people a step
    c.steps = 6000
    c.log_every = 100  # steps
    c.evaluate_every = 2000
    c.checkpoint_every = 500
    c.evaluate_poses = 1024  # simulated views
    c.init = ""  # model folders to start from, with commas between them

    # systems/posturehmr/spec.py:Mesh2dSpec.
    c.model = ml_collections.ConfigDict()
    c.model.vertices = 431  # of the coarse mesh
    c.model.markers = 64  # of them, those that are points of this stage beside 17 keypoints
    c.model.num_keypoints = 23
    c.model.encoder = "detector"  # of core/encoders.py, one whose maps are inputs
    c.model.encoder_channels = (288, 288)  # of its maps, finest first; (): without image
    c.model.cell_width = 8  # channels to which the cells of a map are reduced
    c.model.cells = 8  # to which a map is pooled, in each direction
    c.model.width = 320
    c.model.depth = 2
    c.model.point_width = 16  # features of a point
    c.model.adaptive = False  # whether the matrix from points to vertices depends on confidences

    c.data = ml_collections.ConfigDict()
    c.data.poses = "cmu_poses.npz"  # a corpus of `genhmr data poses`, for simulated views
    c.data.rare_poses = 0.5  # share of training poses drawn by their rarity
    c.data.images = "runs/detections"  # rows of `python -m genhmr_jax.data.features`
    # The stage is trained on stored rows only, not on photos.
    c.data.people = ""
    c.data.people_val = ""
    c.data.mixture = ""
    c.data.body = "neutral"
    c.data.view = defaults.fields_of(ViewSpec())

    # The loss of the silhouette (PostureHMR, eq. 1). Its size and band are not published.
    c.silhouette = ml_collections.ConfigDict()
    c.silhouette.size = 64  # px
    c.silhouette.band = 4  # px from the true edge

    c.loss = ml_collections.ConfigDict()
    c.loss.points = 10.0
    c.loss.mesh = 10.0
    c.loss.confidence = 0.1
    c.loss.silhouette = 0.0  # the paper's weight is 10

    c.optim = defaults.optimizer()
    c.optim.learning_rate = 1e-3
    c.optim.warmup = 200
    c.optim.weight_decay = 0.02
    c.optim.ema_decay = 0.998
    return c

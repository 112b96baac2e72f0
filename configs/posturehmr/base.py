"""Every field of PostureHMR's second stage, the decoder from the template to the person.

The values are the paper's where it gives them. A recipe starts from this file and overrides what
differs.
"""

import ml_collections

from genhmr_jax.data.views import ViewSpec
from genhmr_jax.train import defaults


def get_config() -> ml_collections.ConfigDict:
    c = defaults.runtime()
    c.stage = "posturehmr"
    c.seed = 0
    c.batch_size = 32  # simulated views a step
    c.image_batch_size = 32  # stored rows of rendered people a step
    c.steps = 6000
    c.log_every = 100  # steps
    c.evaluate_every = 2000
    c.checkpoint_every = 500
    c.evaluate_poses = 512  # simulated views
    c.mesh2d = "runs/mesh2d/model"  # model folder of the first stage
    c.init = ""  # model folders to start from, with commas between them

    # systems/posturehmr/spec.py:PostureSpec.
    c.model = ml_collections.ConfigDict()
    c.model.width = 512
    c.model.layers = 4  # not published; MeshGraphormer's
    c.model.heads = 4  # not published; MeshGraphormer's
    c.model.mlp_ratio = 2  # not published; MeshGraphormer's
    # Of an MLP over all markers at once, whose velocity is added; 0 wide: without it, as the paper.
    c.model.whole_width = 0
    c.model.whole_depth = 2
    c.model.whole_rank = 96  # velocity fields on the mesh
    c.model.steps = 10  # T
    c.model.process = "kinematic"  # or "linear", "noise"
    c.model.condition = "mesh2d"  # or "global"
    c.model.keys = "vertices"  # or "markers": what the attention of a vertex reads

    c.training = ml_collections.ConfigDict()
    c.training.steps_per_sample = 10  # the paper adds the losses of all T steps
    # Share of the rows whose steps start from the network's own mesh, not from that of the forward
    # process. The paper has none.
    c.training.rollout_prob = 0.0
    c.training.true_mesh2d = 0.0  # share of the rows that get the true 2D mesh

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

    # Lengths are in mm. The weights of all but the first are those of VirtualMarker's config.
    c.loss = ml_collections.ConfigDict()
    c.loss.posture = 1.0  # squared displacements
    c.loss.vertices = 0.1
    c.loss.joints = 0.1
    c.loss.normals = 0.1
    c.loss.edges = 0.01

    c.optim = defaults.optimizer()
    c.optim.learning_rate = 5e-5
    c.optim.warmup = 0
    c.optim.weight_decay = 0.0
    return c

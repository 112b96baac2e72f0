"""Every field of stage 1, the pose tokenizer, with the values of `body_parts.py`.

A recipe starts from this file and overrides what differs.
"""

import ml_collections

from genhmr_jax.train import defaults


def get_config() -> ml_collections.ConfigDict:
    c = defaults.runtime()
    c.stage = "tokenizer"
    c.seed = 0
    c.batch_size = 256  # poses a step
    c.steps = 12_000
    c.log_every = 200  # steps
    c.evaluate_every = 4000
    c.checkpoint_every = 2000
    c.evaluate_poses = 4096  # of split val

    # core/tokenizer.py:TokenizerSpec.
    c.model = ml_collections.ConfigDict()
    c.model.skeleton = "body"  # or "hand"
    c.model.arch = "parts"  # an MLP for each body part; or "conv", convolutions along the joints
    c.model.part_tokens = (5, 5, 5, 5, 5, 5)  # of "parts": root, trunk, legs, arms
    c.model.num_tokens = 96  # of "conv"
    c.model.codebook_size = 1024
    c.model.code_dim = 16
    c.model.width = 256
    c.model.depth = 2
    c.model.dilation_growth = 3  # of "conv"

    c.data = ml_collections.ConfigDict()
    c.data.poses = "cmu_poses.npz"  # a corpus of `genhmr data poses`
    c.data.body = "neutral"  # of a hand: "free"
    # Overrides of data/views.py:ViewSpec; angles in radians.
    c.data.view = ml_collections.ConfigDict()
    c.data.view.mirror = 0.5  # share of samples
    c.data.view.tilt_pitch = 0.3
    c.data.view.tilt_roll = 0.15
    c.data.view.free_rotation = 0.1  # share of samples turned by any rotation
    c.data.view.pose_noise = 0.03  # added to each body joint

    # Weights of squared errors (TokenHMR's).
    c.loss = ml_collections.ConfigDict()
    c.loss.rotation = 20.0
    c.loss.vertices = 100.0
    c.loss.joints = 100.0
    c.loss.commit = 1.0  # distance of the encoder's output from its code
    c.loss.codebook_decay = 0.99  # of the moving averages that are the codes
    c.loss.reset_below = 1.0  # average use of a code, below which it is replaced

    c.optim = defaults.optimizer()
    c.optim.learning_rate = 1e-3
    c.optim.warmup = 500
    c.optim.final = 0.01
    c.optim.b2 = 0.99
    c.optim.weight_decay = 1e-5
    c.optim.clip_norm = 1.0
    c.optim.ema_decay = 0.999
    return c

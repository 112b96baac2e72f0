"""Every field of the lifter of hands, with the values of `rendered_hands.py`.

A recipe starts from this file and overrides what differs.
"""

import ml_collections

from genhmr_jax.train import defaults


def get_config() -> ml_collections.ConfigDict:
    c = defaults.runtime()
    c.stage = "hand_lifter"
    c.seed = 0
    c.image_batch_size = 64  # crops a step
    c.steps = 8000
    c.log_every = 100  # steps
    c.evaluate_every = 1000
    c.checkpoint_every = 250

    # detect/lifter.py:LifterSpec.
    c.model = ml_collections.ConfigDict()
    c.model.map_channels = 32  # to which the trunk's map is reduced
    c.model.map_features = 128  # into which that map is gathered
    c.model.width = 256
    c.model.depth = 1
    c.model.drop = 0.2  # share of the inputs that training hides

    c.data = ml_collections.ConfigDict()
    # Rows of `python -m genhmr_jax.data.hands.lifter_rows`.
    c.data.images = "runs/hand_lifter_rows"

    # Weights of absolute errors.
    c.loss = ml_collections.ConfigDict()
    c.loss.points2d = 10.0  # in sides of the detector's region
    c.loss.points3d = 50.0  # in metres
    c.loss.spread2d = 0.05  # of the expected errors of points2d

    c.optim = defaults.optimizer()
    c.optim.learning_rate = 1e-3
    c.optim.warmup = 200
    c.optim.weight_decay = 0.05
    c.optim.clip_norm = 1.0
    c.optim.ema_decay = 0.998
    return c

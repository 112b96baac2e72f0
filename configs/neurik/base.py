"""Every field of NeurIK: joint angles from the markers of a window of frames.

The paper gives neither sizes nor weights: the values are ours. A recipe starts from this file and
overrides what differs.
"""

import ml_collections

from genhmr_jax.train import defaults


def get_config() -> ml_collections.ConfigDict:
    c = defaults.runtime()
    c.stage = "neurik"
    c.seed = 0
    c.batch_size = 256  # windows a step
    c.steps = 100_000
    c.log_every = 100  # steps
    c.evaluate_every = 2000
    c.checkpoint_every = 1000
    c.evaluate_windows = 128
    c.init = ""  # model folders to start from, with commas between them

    # systems/biopose/spec.py:NeurIkSpec.
    c.model = ml_collections.ConfigDict()
    c.model.marker_width = 64
    c.model.marker_blocks = 3
    c.model.width = 256
    c.model.layers = 4
    c.model.heads = 8
    c.model.mlp_ratio = 2
    c.model.causal = False
    c.model.window = 64
    c.model.least_rate = 20.0  # frames a second
    c.model.most_rate = 60.0

    c.data = ml_collections.ConfigDict()
    c.data.angles = "angles.npz"  # of `genhmr data angles`
    c.data.body = "neutral"

    # Errors of markers: systems/biopose/samples.py:NoiseSpec.
    c.data.noise = ml_collections.ConfigDict()
    c.data.noise.clean = 0.3
    c.data.noise.white = 0.014
    c.data.noise.slow = 0.010
    c.data.noise.constant = 0.008
    c.data.noise.shift = 0.012
    c.data.noise.turn = 0.08
    c.data.noise.shortest = 0.05
    c.data.noise.longest = 0.6

    # Weights of the terms: radians and metres.
    c.loss = ml_collections.ConfigDict()
    c.loss.angle = 1.0
    c.loss.pelvis = 0.3
    c.loss.scale = 0.5
    c.loss.marker = 2.0
    c.loss.joint = 1.0
    c.loss.velocity = 0.5
    c.loss.spread = 0.01

    c.optim = defaults.optimizer()
    c.optim.learning_rate = 1e-3
    c.optim.warmup = 500
    c.optim.final = 0.01
    c.optim.b2 = 0.98
    c.optim.weight_decay = 0.01
    c.optim.clip_norm = 1.0
    c.optim.ema_decay = 0.999
    return c

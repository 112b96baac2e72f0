"""Every field of MaskHand's second stage, the masked transformer of hands.

The paper gives neither sizes nor weights of its losses: the values are ours. A recipe starts from
this file and overrides what differs.
"""

import ml_collections

from genhmr_jax.data.hands.views import HandViewSpec
from genhmr_jax.train import defaults


def get_config() -> ml_collections.ConfigDict:
    c = defaults.runtime()
    c.stage = "maskhand"
    c.seed = 0
    c.batch_size = 128  # simulated views a step
    c.image_batch_size = 0  # stored rows of rendered hands a step
    c.steps = 6000
    c.log_every = 100  # steps
    c.evaluate_every = 2000
    c.checkpoint_every = 500
    c.evaluate_poses = 1024  # simulated views
    c.tokenizer = "runs/hand_tokenizer/model"  # model folder of configs/hand_tokenizer/cpu.py
    c.init = ""  # model folders to start from, with commas between them

    # systems/maskhand/spec.py:MaskHandSpec.
    c.model = ml_collections.ConfigDict()
    c.model.gapr_blocks = 2
    c.model.branch_blocks = 2  # graph convolutions of the 2D pose branch
    c.model.pose_tokens = 6  # of the 2D pose: 1 (the paper's), 6 or 21
    # Of the image: "" (none), hand_landmarks (the frozen network's map), or vit_s .. vit_h, which
    # is part of the model and gets the pixels. Stored rows hold the one or the other.
    c.model.encoder = ""
    c.model.encoder_depth = 0  # a ViT's first layers alone; 0: all of them
    c.model.pyramid_scales = (4.0, 2.0, 1.0)  # of a ViT's map
    # Whether each step gets the projection of the estimate of the step before it; the paper's model
    # has no feedback. Then the next four are of the networks that read the estimate.
    c.model.feedback = False
    c.model.correction_width = 256
    c.model.correction_depth = 3
    c.model.token_features = 64  # of each token, that the estimate gives
    c.model.score_width = 128  # of the network that scores answers
    c.model.transformer = ml_collections.ConfigDict()
    c.model.transformer.width = 128
    c.model.transformer.layers = 3
    c.model.transformer.heads = 4
    c.model.transformer.mlp_ratio = 4
    c.model.transformer.points = 4  # of the cross-attention, for each map, token and head
    c.model.transformer.activation = "gelu"  # or "relu"
    c.model.transformer.geometric = True
    c.model.transformer.head_rank = 0

    c.masking = ml_collections.ConfigDict()
    c.masking.schedule = "cosine"
    c.masking.min_ratio = 0.0
    c.masking.corrupt = 0.1  # share of visible tokens replaced by a random one
    # With feedback: number of steps that are trained one after the other, and the share of samples
    # whose visible tokens are the network's own confident guesses in place of true tokens.
    c.masking.steps = 2
    c.masking.unroll = 0.7
    c.masking.drop_lifted = 0.1  # share of stored rows without 3D keypoints

    c.data = ml_collections.ConfigDict()
    c.data.poses = "hand_poses.npz"  # of `genhmr data hand-poses`
    c.data.images = "runs/hand_images"  # stored rows
    c.data.body = "free"
    c.data.view = defaults.fields_of(HandViewSpec())

    # Weights of the terms; lengths are in metres, 2D in half sides of the crop.
    c.loss = ml_collections.ConfigDict()
    c.loss.token = 0.3
    c.loss.rotation = 2.0
    c.loss.keypoints3d = 100.0
    c.loss.keypoints2d = 2.0
    c.loss.betas = 0.05
    c.loss.camera = 2.0  # in units of a hand
    c.loss.score = 0.5  # of the scorer, with feedback; it has its own parameters

    c.optim = defaults.optimizer()
    c.optim.learning_rate = 1e-3
    c.optim.warmup = 200
    c.optim.final = 0.02
    c.optim.b2 = 0.98
    c.optim.weight_decay = 0.01
    c.optim.clip_norm = 1.0
    c.optim.ema_decay = 0.999
    return c

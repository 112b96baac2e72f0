"""Every field of stage 2, the image-conditioned masked transformer, with the values of
`keypoints.py`.

A recipe starts from this file and overrides what differs. A step has `batch_size` simulated views
(keypoints alone) and `image_batch_size` image rows: stored ones (`data.images`) or photos
(`data.people`, `data.mixture`).
"""

import ml_collections

from genhmr_jax.data.augment import AugmentSpec
from genhmr_jax.data.turns import TurnSpec
from genhmr_jax.data.views import ViewSpec
from genhmr_jax.train import defaults


def get_config() -> ml_collections.ConfigDict:
    c = defaults.runtime()
    c.stage = "genhmr"
    c.seed = 0
    c.batch_size = 128  # simulated views a step
    c.image_batch_size = 0  # image rows a step, beside them
    c.steps = 4800
    c.log_every = 50  # steps
    c.evaluate_every = 500
    c.checkpoint_every = 250
    c.evaluate_poses = 2048  # simulated views, and photos of data.people_val
    c.tokenizer = "runs/tokenizer/model"  # model folder of stage 1
    # Model folders to start from, with commas between them. Arrays that do not fit are left fresh,
    # and the log names them.
    c.init = ""

    # systems/genhmr/spec.py:GenHmrSpec.
    c.model = ml_collections.ConfigDict()
    c.model.transformer = ml_collections.ConfigDict()
    c.model.transformer.width = 128
    c.model.transformer.layers = 2
    c.model.transformer.heads = 4
    c.model.transformer.mlp_ratio = 2
    c.model.transformer.points = 4  # of deformable attention, for each head and map
    c.model.transformer.activation = "relu"  # or "gelu"
    c.model.transformer.geometric = True  # input and output use the code vectors
    c.model.transformer.head_rank = 48  # dims of the logits' products; 0: a full linear head
    c.model.num_keypoints = 23  # 0: an image-only model
    # Whether each step gets the projection of the estimate of the step before it. Then the next two
    # are of the network that reads it. The paper's model has no feedback; the two are then of the
    # network that makes context tokens of the keypoints.
    c.model.feedback = True
    c.model.context_width = 640
    c.model.context_depth = 3
    c.model.context_tokens = 6  # that all keypoints become, without feedback
    c.model.score_width = 256  # of the network that scores answers, with feedback
    c.model.encoder = "blazepose_full"  # of core/encoders.py
    c.model.encoder_channels = ()  # of its maps, finest first; (): a model without image
    c.model.pyramid = "project"  # maps at several scales; or "simple", a ViT's one map
    c.model.pyramid_scales = (4.0, 2.0, 1.0)  # of "simple"
    # A context token of the box of the crop alone. Models with keypoints always have it mixed with
    # the keypoints.
    c.model.box_token = False

    c.data = ml_collections.ConfigDict()
    c.data.poses = "cmu_poses.npz"  # a corpus of `genhmr data poses`, for simulated views
    # Share of training poses drawn by their rarity (data/rarity.py), rendered or simulated.
    c.data.rare_poses = 0.5
    c.data.images = ""  # rows of rendered people (`python -m genhmr_jax.data.features`)
    # Datasets of photos (`genhmr data build --data-dir DIR`), instead of data.images; "" if all
    # people are rendered.
    c.data.people = ""
    # hmr2, tokenhmr, tokenhmr_bedlam, or NAME=WEIGHT,NAME=WEIGHT. "rendered" renders people with
    # the poses of data.poses.
    c.data.mixture = "tokenhmr"
    # Of rendered people: a folder of tools/fetch_backgrounds.py; "": procedural rooms.
    c.data.backgrounds = ""
    c.data.render_on_device = False  # rasterise them on the accelerator, not on CPU cores
    # DATASET:SPLIT of data.people to measure on, such as threedpw:validation.
    c.data.people_val = ""
    c.data.augment = defaults.fields_of(AugmentSpec())
    c.data.body = "neutral"
    c.data.view = defaults.fields_of(ViewSpec())
    c.data.turn = defaults.fields_of(TurnSpec())  # of stored rows without maps

    c.masking = ml_collections.ConfigDict()
    c.masking.schedule = "cosine"  # law of the mask ratio: cosine, linear, square, cubic, sqrt
    c.masking.min_ratio = 0.0  # MaskGIT: 0.5
    c.masking.corrupt = 0.1  # share of visible tokens replaced by a random one
    # With feedback: number of steps that are trained one after the other, and the share of samples
    # whose visible tokens are the network's own confident guesses in place of true tokens.
    c.masking.steps = 3
    c.masking.unroll = 0.7
    # Shares of image samples: without keypoints, which train the model for the image alone, and
    # without image.
    c.masking.drop_keypoints = 0.0
    c.masking.drop_image = 0.1

    c.loss = ml_collections.ConfigDict()
    c.loss.token = 0.3
    c.loss.label_smoothing = 0.0
    # How losses of the body reach the logits: expected, straight_through, none.
    c.loss.differentiable_sampling = "expected"
    c.loss.rotation = 2.0
    c.loss.joints3d = 10.0
    c.loss.joints2d = 2.0
    c.loss.betas = 0.05
    c.loss.camera = 2.0
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

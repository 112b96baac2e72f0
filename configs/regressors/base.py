"""Every field of the baselines HMR2.0 and TokenHMR, with the values of `hmr2.py`.

They have the images, the loop and the evaluation of stage 2. A recipe starts from this file and
overrides what differs.
"""

import ml_collections

from genhmr_jax.data.augment import AugmentSpec
from genhmr_jax.train import defaults

# The terms of TokenHMR's thresholds (44 for keypoints, 23 for joints) do not allow us to publish
# them: these follow rules of our own.
# Keypoints: 7 % of the crop's side at the hips, where the crop camera of 5000 px is right, 13 % at
# the ends of the limbs, 9 and 11 % between them: perspective grows with the distance from the
# middle of the body. In the order of geometry/keypoints.py:DETECTED.
POINTS2D = (
    0.09, 0.09, 0.09, 0.09, 0.09,  # nose, eyes, ears
    0.07, 0.07, 0.09, 0.09, 0.11, 0.11,  # shoulders, elbows, wrists
    0.07, 0.07, 0.09, 0.09, 0.11, 0.11,  # hips, knees, ankles
    0.13, 0.13, 0.11, 0.11, 0.13, 0.13,  # toes, heels, fingers
)  # fmt: skip
# Joints: the root's 0.46 rad is published. Limbs have 0.3 rad; back and collars, which turn less,
# 0.15; toes and hands, which no 2D keypoint determines, 0.6. In the order of SMPL's joints.
ANGLES = (
    0.46,
    # hips, back, knees, back, ankles, back, toes
    0.3, 0.3, 0.15, 0.3, 0.3, 0.15, 0.3, 0.3, 0.15, 0.6, 0.6,
    # neck, collars, head, shoulders, elbows, wrists, hands
    0.3, 0.15, 0.15, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.6, 0.6,
)  # fmt: skip
# Datasets whose bodies are measured or made.
EXACT = (
    "rendered",
    "synthetic",
    "bedlam",
    "hmr2_h36m",
    "human36m",
    "mpi_inf_3dhp",
    "threedpw",
    "emdb",
)


def get_config() -> ml_collections.ConfigDict:
    c = defaults.runtime()
    c.stage = "regressor"
    c.seed = 0
    c.image_batch_size = 384  # HMR2.0: 48 on each of 8 GPUs
    c.steps = 1_000_000
    c.log_every = 100  # steps
    c.evaluate_every = 10_000
    c.checkpoint_every = 2000
    c.evaluate_poses = 2048  # photos of data.people_val
    # Of TokenHMR: the model folder of a TokenHMR, whose token decoder and codebook are taken;
    # "random" to try things out.
    c.tokenizer = ""
    # A folder of `genhmr convert` to start from: a backbone, or a regressor. Arrays that do not fit
    # are left fresh, and the log names them.
    c.init = ""

    # systems/regressors/model.py:RegressorSpec.
    c.model = ml_collections.ConfigDict()
    c.model.kind = "hmr2"  # or "tokenhmr", "mqhmr"
    c.model.encoder = "vit_h"
    c.model.encoder_depth = 0  # its first layers alone; 0: all of them
    c.model.layout = "columns"  # of HMR2.0's 6D rotations
    c.model.decoder = ml_collections.ConfigDict()
    c.model.decoder.width = 1024
    c.model.decoder.layers = 6
    c.model.decoder.heads = 8
    c.model.decoder.head_dim = 64
    c.model.decoder.mlp = 1024
    # Of MQ-HMR in place of the decoder: systems/regressors/multi_query.py:MultiQuerySpec.
    c.model.queries = ml_collections.ConfigDict()
    c.model.queries.queries = 24
    c.model.queries.width = 1024
    c.model.queries.layers = 6
    c.model.queries.heads = 8
    c.model.queries.mlp_ratio = 4
    c.model.queries.points = 4
    c.model.queries.activation = "gelu"
    c.model.queries.scales = (4.0, 2.0, 1.0)  # of the pyramid of a ViT's map

    c.data = ml_collections.ConfigDict()
    c.data.poses = "cmu_poses.npz"  # of rendered people
    # Share of training poses drawn by their rarity (data/rarity.py).
    c.data.rare_poses = 0.5
    c.data.images = ""  # stored crops (`python -m genhmr_jax.data.features --encoder vit_h`)
    # Datasets of photos (`genhmr data build --data-dir DIR`), instead of data.images; "" if all
    # people are rendered.
    c.data.people = ""
    # hmr2, tokenhmr, tokenhmr_bedlam, or NAME=WEIGHT,NAME=WEIGHT. "rendered" renders people with
    # the poses of data.poses.
    c.data.mixture = "hmr2"
    # Of rendered people: a folder of tools/fetch_backgrounds.py; "": procedural rooms.
    c.data.backgrounds = ""
    c.data.render_on_device = False  # rasterise them on the accelerator, not on CPU cores
    # DATASET:SPLIT to measure on, such as threedpw:validation or rendered:val.
    c.data.people_val = ""
    c.data.augment = defaults.fields_of(AugmentSpec())
    c.data.augment.occlude = 0.0
    c.data.body = "neutral"

    # The published weights of sums. Ours are of 24 joints and 23 keypoints where theirs are of 44
    # keypoints.
    c.loss = ml_collections.ConfigDict()
    c.loss.joints3d = 0.05 * 44 / 24
    c.loss.joints2d = 0.01 * 44 / 23
    c.loss.orient = 0.001
    c.loss.pose = 0.001
    c.loss.betas = 0.0005
    # TokenHMR's loose supervision. Of datasets that are not exact, 3D joints do not count at all,
    # and rotations only loosely. Rows of data.images are exact.
    c.loss.loose = ml_collections.ConfigDict()
    c.loss.loose.weight = 1.0  # of terms below their threshold; 1: no thresholds
    c.loss.loose.points2d = POINTS2D
    c.loss.loose.angles = ANGLES
    c.loss.loose.exact = EXACT

    c.optim = defaults.optimizer()
    c.optim.learning_rate = 1e-5
    c.optim.warmup = 1000
    c.optim.final = 1.0
    c.optim.b2 = 0.999
    c.optim.weight_decay = 1e-4
    c.optim.clip_norm = 1.0
    c.optim.ema_decay = 0.999

    c.precision = "bfloat16"
    c.remat = "blocks"
    c.drop_path = 0.55
    c.mesh.data = 1
    c.mesh.fsdp = -1
    return c

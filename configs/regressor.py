"""The baselines HMR2.0 and TokenHMR, trained here: same images, same loop, same evaluation as stage 2.

    python -m genhmr_jax.main --config=configs/regressor.py:hmr2 --workdir=runs/hmr2 \\
        --config.init=models/vitpose_h --config.data.people=DATA
    python -m genhmr_jax.main --config=configs/regressor.py:tokenhmr --workdir=runs/tokenhmr --config.init=models/hmr2 \\
        --config.tokenizer=models/tokenhmr --config.data.people=DATA

Args: `hmr2` and `tokenhmr` (the published recipes, ViT-H; `hmr2_b` and `tokenhmr_b` over a ViT-B), `tiny` and `tiny_tokenhmr` (one layer,
on people that are rendered on the spot; for tests). Images come from the same fields as in configs/genhmr.py.
"""

import ml_collections

from genhmr_jax.train import defaults

# TokenHMR's thresholds (44 for keypoints, 23 for joints) are under terms that do not let us pass them on: these follow rules of our own.
# Keypoints: 7 % of the crop's side at the hips, where the crop camera of 5000 px is right, 13 % at the ends of the limbs, between
# them 9 and 11 %: perspective grows with the distance from the body's middle. In the order of body/keypoints.py:DETECTED.
POINTS2D = (
    0.09, 0.09, 0.09, 0.09, 0.09,  # nose, eyes, ears
    0.07, 0.07, 0.09, 0.09, 0.11, 0.11,  # shoulders, elbows, wrists
    0.07, 0.07, 0.09, 0.09, 0.11, 0.11,  # hips, knees, ankles
    0.13, 0.13, 0.11, 0.11, 0.13, 0.13,  # toes, heels, fingers
)  # fmt: skip
# Joints: the root's 0.46 rad is published; limbs 0.3 rad, back and collars, which turn less, 0.15, toes and hands, which no 2D keypoint
# holds, 0.6. In the order of SMPL's joints.
ANGLES = (
    0.46,
    0.3, 0.3, 0.15, 0.3, 0.3, 0.15, 0.3, 0.3, 0.15, 0.6, 0.6,  # hips, back, knees, back, ankles, back, toes
    0.3, 0.15, 0.15, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.6, 0.6,  # neck, collars, head, shoulders, elbows, wrists, hands
)  # fmt: skip


def get_config(arg: str = "hmr2") -> ml_collections.ConfigDict:
    c = defaults.runtime()
    c.stage = "regressor"
    c.seed = 0
    c.image_batch_size, c.steps = 384, 1_000_000  # HMR2.0: 48 on each of 8 GPUs
    c.log_every, c.evaluate_every, c.checkpoint_every, c.evaluate_poses = 100, 10_000, 2000, 2048
    c.init = ""  # a folder of `genhmr convert`: a backbone, or a regressor; arrays that do not fit are left fresh, and named
    c.tokenizer = ""  # TokenHMR: the folder of a TokenHMR, whose token decoder and codebook are taken; "random" for trying things out

    c.model = ml_collections.ConfigDict({"kind": "hmr2", "encoder": "vit_h", "encoder_depth": 0, "layout": "columns"})
    c.model.decoder = ml_collections.ConfigDict({"width": 1024, "layers": 6, "heads": 8, "head_dim": 64, "mlp": 1024})

    c.data = ml_collections.ConfigDict()
    c.data.poses = "cmu_poses.npz"  # of rendered people
    c.data.images = ""  # stored crops (genhmr_jax/data/features.py, with --encoder vit_h), ...
    c.data.people = ""  # ... or built datasets of photos (genhmr data build --data-dir DIR)
    c.data.mixture = "hmr2"  # hmr2, tokenhmr, tokenhmr_bedlam, or NAME=WEIGHT,NAME=WEIGHT; "rendered" makes people of data.poses
    c.data.backgrounds = ""
    c.data.render_on_device = False
    c.data.people_val = ""  # DATASET:SPLIT to measure on, such as threedpw:validation or rendered:val
    c.data.augment = ml_collections.ConfigDict({"occlude": 0.0})  # overrides of data/augment.py:AugmentSpec
    c.data.body = "neutral"

    # The published weights of sums; ours are of 24 joints and 23 keypoints where theirs are of 44 keypoints.
    c.loss = ml_collections.ConfigDict(
        {"joints3d": 0.05 * 44 / 24, "joints2d": 0.01 * 44 / 23, "orient": 0.001, "pose": 0.001, "betas": 0.0005}
    )
    # Terms that are below their threshold weigh this much (1: no thresholds). `exact`: datasets whose bodies are measured or made; of all
    # others 3D joints do not count at all, and rotations only loosely. Rows of data.images are exact.
    c.loss.loose = ml_collections.ConfigDict({"weight": 1.0, "points2d": POINTS2D, "angles": ANGLES})
    c.loss.loose.exact = ("rendered", "synthetic", "bedlam", "hmr2_h36m", "human36m", "mpi_inf_3dhp", "threedpw", "emdb")

    c.optim = defaults.optimizer()
    c.optim.learning_rate, c.optim.warmup, c.optim.final, c.optim.b2 = 1e-5, 1000, 1.0, 0.999
    c.optim.weight_decay, c.optim.clip_norm, c.optim.ema_decay = 1e-4, 1.0, 0.999
    c.precision, c.remat, c.drop_path = "bfloat16", "blocks", 0.55
    c.mesh.data, c.mesh.fsdp = 1, -1

    kind, _, size = arg.partition("_")
    if "tokenhmr" in arg:
        c.model.kind, c.data.mixture, c.loss.loose.weight = "tokenhmr", "tokenhmr", 0.05
        c.image_batch_size, c.steps, c.optim.learning_rate = 192, 100_000, 5e-6  # the paper's, from ViTPose; 48 on each of 4 GPUs
    if kind in ("hmr2", "tokenhmr") and size == "b":
        c.model.encoder, c.drop_path = "vit_b", 0.1
    elif arg in ("tiny", "tiny_tokenhmr"):
        c.model.encoder, c.model.encoder_depth = "vit_s", 1
        c.model.decoder.update({"width": 32, "layers": 1, "heads": 2, "head_dim": 16, "mlp": 32})
        c.tokenizer = "random" if c.model.kind == "tokenhmr" else ""
        c.data.poses, c.data.mixture, c.data.people_val = "made-up", "rendered", "rendered:val"  # needs no data
        c.image_batch_size, c.steps, c.log_every, c.evaluate_every, c.checkpoint_every, c.evaluate_poses = 4, 20, 5, 10, 10, 8
        c.optim.learning_rate, c.optim.warmup = 1e-3, 2
        c.precision, c.remat, c.drop_path, c.mesh.data, c.mesh.fsdp = "float32", "none", 0.0, -1, 1
    elif arg not in ("hmr2", "tokenhmr"):
        raise ValueError(f"configs/regressor.py:{arg}: choose hmr2, tokenhmr, hmr2_b, tokenhmr_b, tiny or tiny_tokenhmr")
    return c

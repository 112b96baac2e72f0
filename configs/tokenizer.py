"""Stage 1, the pose tokenizer.

    python -m genhmr_jax.main --config=configs/tokenizer.py --workdir=runs/tokenizer --config.data.poses=cmu_poses.npz
    python -m genhmr_jax.main --config=configs/tokenizer.py:paper --workdir=runs/tokenizer_paper --config.data.poses=amass_moyo.npz

Args: `default` (the shipped model: body parts, 30 tokens x 1024 codes; half an hour on 2 CPU cores), `gpu` (longer),
`paper` (96 tokens x 2048 codes x 256 dims, convolutions along the joints, 200k steps of 256 poses on AMASS and MOYO, which
`genhmr data poses --source amass,moyo --out amass_moyo.npz` mixes with TokenHMR's weights: docs/data.md), `tiny` (seconds; for tests).
"""

import ml_collections

from genhmr_jax.train import defaults


def get_config(arg: str = "default") -> ml_collections.ConfigDict:
    c = defaults.runtime()
    c.stage = "tokenizer"
    c.seed = 0
    c.batch_size = 256
    c.steps = 12_000
    c.log_every, c.evaluate_every, c.checkpoint_every, c.evaluate_poses = 200, 4000, 2000, 4096

    c.model = ml_collections.ConfigDict()
    c.model.arch = "parts"
    c.model.part_tokens = (5, 5, 5, 5, 5, 5)  # root, trunk, legs, arms
    c.model.num_tokens = 96  # read by arch "conv"
    c.model.codebook_size = 1024
    c.model.code_dim = 16
    c.model.width = 256
    c.model.depth = 2
    c.model.dilation_growth = 3

    c.data = ml_collections.ConfigDict()
    c.data.poses = "cmu_poses.npz"
    c.data.body = "neutral"
    c.data.view = ml_collections.ConfigDict({"mirror": 0.5, "tilt_pitch": 0.3, "tilt_roll": 0.15, "free_rotation": 0.1, "pose_noise": 0.03})

    c.loss = ml_collections.ConfigDict({"rotation": 20.0, "vertices": 100.0, "joints": 100.0, "commit": 1.0})
    c.loss.codebook_decay = 0.99
    c.loss.reset_below = 1.0

    c.optim = defaults.optimizer()
    c.optim.learning_rate, c.optim.warmup, c.optim.final, c.optim.b2 = 1e-3, 500, 0.01, 0.99
    c.optim.weight_decay, c.optim.clip_norm, c.optim.ema_decay = 1e-5, 1.0, 0.999

    if arg == "gpu":
        c.batch_size, c.steps = 1024, 200_000
    elif arg == "paper":
        c.model.arch, c.model.codebook_size, c.model.code_dim, c.model.width = "conv", 2048, 256, 512
        c.optim.learning_rate, c.optim.final, c.steps, c.data.poses = 2e-4, 0.05, 200_000, "amass_moyo.npz"
        c.data.view.free_rotation = 0.5  # the paper turns poses about all axes; half of ours stay near upright
    elif arg == "tiny":
        c.data.poses = "made-up"  # needs no data
        c.model.width, c.model.codebook_size, c.model.depth = 32, 64, 1
        c.batch_size, c.steps, c.log_every, c.evaluate_every, c.checkpoint_every, c.evaluate_poses = 16, 20, 5, 10, 10, 32
    elif arg != "default":
        raise ValueError(f"configs/tokenizer.py:{arg}: choose default, gpu, paper or tiny")
    return c

"""The lifter: 3D keypoints from what the detector sees (genhmr_jax/detect/lifter_net.py), learned on rendered people.

    python -m genhmr_jax.main --config=configs/lifter.py --workdir=runs/lifter --config.data.images=runs/looks

runs/looks: `python -m genhmr_jax.data.features --encoder look`. The model of the run is what genhmr_jax/assets/lifter holds.
Args: `default` (five minutes on 2 CPU cores), `tiny` (seconds).
"""

import ml_collections

from genhmr_jax.train import defaults


def get_config(arg: str = "default") -> ml_collections.ConfigDict:
    c = defaults.runtime()
    c.stage = "lifter"
    c.seed = 0
    c.image_batch_size, c.steps = 256, 1600
    c.log_every, c.evaluate_every, c.checkpoint_every, c.evaluate_poses = 200, 400, 400, 4096
    c.model = ml_collections.ConfigDict({"map_channels": 48, "map_features": 384, "width": 512, "depth": 3, "drop": 0.35})
    c.data = ml_collections.ConfigDict({"images": "runs/looks", "people": "", "people_val": "", "mixture": "", "body": "neutral"})
    c.loss = ml_collections.ConfigDict({"points2d": 10.0, "points3d": 10.0})
    c.optim = defaults.optimizer()
    c.optim.learning_rate, c.optim.warmup, c.optim.weight_decay, c.optim.clip_norm, c.optim.ema_decay = 1e-3, 200, 0.1, 1.0, 0.998
    if arg == "tiny":
        c.model.map_channels, c.model.map_features, c.model.width, c.model.depth = 2, 8, 16, 1
        c.image_batch_size, c.steps, c.log_every, c.evaluate_every, c.checkpoint_every = 4, 10, 5, 10, 5
    elif arg != "default":
        raise ValueError(f"configs/lifter.py:{arg}: choose default or tiny")
    return c

"""The shipped model and its tokenizer, trained further on your own photos (docs/finetuning.md).

The steps are so few and so small that the model changes little. It has been run for a few steps
only.

    genhmr data build own_photos --manual-dir downloads --data-dir data
    python -m genhmr_jax.main --config=configs/genhmr/finetune_shipped.py --workdir=runs/mine
"""

import json
import pathlib

import ml_collections

import genhmr_jax
from genhmr_jax.io.config_files import start_from

SHIPPED = pathlib.Path(genhmr_jax.__file__).parent / "assets" / "default"


def get_config() -> ml_collections.ConfigDict:
    c = start_from(__file__, "base.py")
    # The sizes are those of the shipped model.
    spec = json.loads((SHIPPED / "config.json").read_text())["spec"]
    transformer = spec.pop("transformer")
    for name in c.model.transformer:
        c.model.transformer[name] = transformer[name]
    for name in set(c.model) - {"transformer"}:
        value = spec[name]
        c.model[name] = tuple(value) if isinstance(value, list) else value

    c.batch_size = 0
    c.image_batch_size = 64
    c.steps = 1000
    c.log_every = 20
    c.evaluate_every = 250
    c.checkpoint_every = 250
    c.evaluate_poses = 512
    c.init = str(SHIPPED)
    c.tokenizer = str(SHIPPED)

    c.data.people = "data"
    c.data.mixture = "own_photos"
    c.data.people_val = "own_photos:val"

    c.masking.drop_keypoints = 0.3 if c.model.encoder_channels else 0.0

    c.optim.learning_rate = 1e-4
    c.optim.warmup = 50
    c.optim.ema_decay = 0.99
    return c

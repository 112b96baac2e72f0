"""A model of `vit.py`, trained further on your own photos on one GPU (docs/finetuning.md).

64 crops a step, 16 at a time. The encoder is frozen, with arrays of rank 8 beside its kernels. It
has been run at toy size only.

    python -m genhmr_jax.main --config=configs/genhmr/finetune_vit.py:h --workdir=runs/mine_h \\
        --config.init=runs/vit_h/model --config.tokenizer=runs/vit_h/model

Argument: the size of the ViT, `h` (the default), `l`, `b` or `s`.
"""

import ml_collections

from genhmr_jax.io.config_files import start_from


def get_config(size: str = "h") -> ml_collections.ConfigDict:
    c = start_from(__file__, f"vit.py:{size}")
    c.image_batch_size = 64
    c.accumulate = 4
    c.steps = 5000
    c.log_every = 50
    c.evaluate_every = 500
    c.checkpoint_every = 500
    c.evaluate_poses = 512
    c.init = f"runs/vit_{size}/model"

    c.data.mixture = "own_photos"
    c.data.people_val = "own_photos:val"

    c.optim.warmup = 200
    c.optim.groups = ()
    c.optim.layer_decay = 1.0
    c.optim.frozen = (r"encoder/.*",)

    c.lora.rank = 8
    c.drop_path = 0.0
    c.remat = "blocks"  # for the memory of one GPU
    c.mesh.data = -1
    c.mesh.fsdp = 1
    return c

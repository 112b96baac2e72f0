"""The paper's scale: the image alone, a ViT that is trained with the decoder, 96 tokens.

It starts from ViTPose's backbone in models/vitpose_h (docs/pretrained.md), over the tokenizer of
configs/tokenizer/paper.py, and is trained on HMR2.0's datasets, which BEDLAM is not among: 410 M
crops, as many as HMR2.0 was trained on (1 M steps of 8 x 48). For ViT-H the compiler's estimate is
at least 1.0 hours on 256 chips of TPU v6e, 2.8 on 256 of v5e, 5.3 on 64 of v5p (docs/scaling.md).
It has been compiled at this size and run at toy size.

    python -m genhmr_jax.main --config=configs/genhmr/vit.py:h --workdir=runs/vit_h

These estimates are for a mesh of 16 x 16 (`--config.mesh.data=16 --config.mesh.fsdp=16`; v5p: 64
x 1). The default splits the parameters over all chips, which suits few. With several slices `data`
must be a multiple of their number.

Argument: the size of the ViT, `h` (the default), `l`, `b` or `s`.
"""

import ml_collections

from genhmr_jax.io.config_files import start_from

WIDTHS = {"h": 1280, "l": 1024, "b": 768, "s": 384}


def get_config(size: str = "h") -> ml_collections.ConfigDict:
    if size not in WIDTHS:
        raise ValueError(f"there is no ViT of size {size!r}: choose {', '.join(WIDTHS)}")
    c = start_from(__file__, "base.py")
    c.batch_size = 0
    c.image_batch_size = 4096
    c.steps = 100_000
    c.log_every = 100
    c.evaluate_every = 5000
    c.checkpoint_every = 1000
    c.tokenizer = "runs/tokenizer_paper/model"
    c.init = f"models/vitpose_{size}"

    c.model.transformer.width = 1024
    c.model.transformer.layers = 6
    c.model.transformer.heads = 8
    c.model.transformer.mlp_ratio = 4
    c.model.transformer.activation = "gelu"
    c.model.transformer.geometric = False
    c.model.transformer.head_rank = 0
    c.model.feedback = False
    c.model.num_keypoints = 0
    c.model.encoder = f"vit_{size}"
    c.model.encoder_channels = (WIDTHS[size],)
    c.model.pyramid = "simple"

    c.data.people = "data"
    c.data.mixture = "hmr2"
    c.data.people_val = "threedpw:validation"

    c.masking.corrupt = 0.0
    c.loss.token = 1.0
    c.masking.drop_image = 0.0

    c.optim.learning_rate = 1e-4
    c.optim.warmup = 2000
    c.optim.groups = ((r"encoder/.*", 0.1),)  # HMR2.0's rate of 1e-5
    c.optim.layer_decay = 0.9

    c.precision = "bfloat16"
    c.remat = "products"
    c.drop_path = 0.1
    c.mesh.data = 1
    c.mesh.fsdp = -1
    return c

"""The paper's scale: a ViT that is trained with the decoder, one token of the 2D pose, 64 tokens.

The paper gives the encoder (ViT-H/16 with an upsampler), the two GAPR blocks, the pose token and
the 64 tokens. Width, layers and heads, the batch, the schedule and the weights of the losses are
not published: the sizes are those of configs/genhmr/vit.py, the rates HaMeR's (1e-5) for the
encoder and ten times that for the rest. It starts from HaMeR's backbone in models/hamer_vit
(docs/pretrained.md), over the tokenizer of configs/hand_tokenizer/paper.py. It has been compiled
for a TPU slice at this size, and run at toy size.

    python -m genhmr_jax.main --config=configs/maskhand/paper.py:h --workdir=runs/maskhand_h

Argument: the size of the ViT, `h` (the default), `l`, `b` or `s`.
"""

import ml_collections

from genhmr_jax.io.config_files import start_from

SIZES = ("h", "l", "b", "s")


def get_config(size: str = "h") -> ml_collections.ConfigDict:
    if size not in SIZES:
        raise ValueError(f"there is no ViT of size {size!r}: choose {', '.join(SIZES)}")
    c = start_from(__file__, "base.py")
    c.batch_size = 0
    c.image_batch_size = 4096
    c.steps = 50_000
    c.evaluate_every = 5000
    c.checkpoint_every = 1000
    c.tokenizer = "runs/hand_tokenizer_paper/model"
    c.init = "models/hamer_vit" if size == "h" else f"models/vitpose_{size}"

    c.model.pose_tokens = 1
    c.model.encoder = f"vit_{size}"
    c.model.transformer.width = 1024
    c.model.transformer.layers = 6
    c.model.transformer.heads = 8
    c.model.transformer.geometric = False

    c.masking.corrupt = 0.0
    c.data.images = "runs/hand_pixels"
    c.loss.token = 1.0

    c.optim.learning_rate = 1e-4
    c.optim.warmup = 2000
    c.optim.groups = ((r"encoder/.*", 0.1),)
    c.optim.layer_decay = 0.9

    c.precision = "bfloat16"
    c.remat = "products"
    c.drop_path = 0.1
    c.mesh.data = 1
    c.mesh.fsdp = -1
    return c

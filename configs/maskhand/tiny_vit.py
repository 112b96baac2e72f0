"""A toy model of hands with a ViT of one layer that is trained with it, for tests.

configs/hand_tokenizer/tiny.py is trained first. The rows are rendered; both splits are needed:

    python -m genhmr_jax.data.hands.write --poses made-up --pixels --count 20 --split train \\
        --out runs/hand_pixels_tiny/train
    python -m genhmr_jax.main --config=configs/maskhand/tiny_vit.py --workdir=runs/maskhand_vit_tiny
"""

import ml_collections

from genhmr_jax.io.config_files import start_from


def get_config() -> ml_collections.ConfigDict:
    c = start_from(__file__, "tiny.py")
    c.batch_size = 0
    c.image_batch_size = 8
    c.data.images = "runs/hand_pixels_tiny"
    c.model.feedback = False
    c.model.encoder = "vit_s"
    c.model.encoder_depth = 1
    c.model.pyramid_scales = (2.0, 1.0)
    return c

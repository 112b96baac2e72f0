"""`vit.py` on TokenHMR's datasets, 18 % of them BEDLAM. It takes as long as `vit.py`.

    python -m genhmr_jax.main --config=configs/genhmr/vit_bedlam.py:h --workdir=runs/vit_h_bedlam

Argument: the size of the ViT, `h` (the default), `l`, `b` or `s`.
"""

import ml_collections

from genhmr_jax.io.config_files import start_from


def get_config(size: str = "h") -> ml_collections.ConfigDict:
    c = start_from(__file__, f"vit.py:{size}")
    c.data.mixture = "tokenhmr"
    return c

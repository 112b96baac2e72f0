"""HMR2.0 as published: 1 M steps of 384 crops from ViTPose's backbone.

DATA holds what `genhmr data build` made (docs/data.md). It has been run at toy size only.

    python -m genhmr_jax.main --config=configs/regressors/hmr2.py --workdir=runs/hmr2 \\
        --config.init=models/vitpose_h --config.data.people=DATA

Argument: the size of the ViT, `h` (the default, the published one) or `b`.
"""

import ml_collections

from genhmr_jax.io.config_files import start_from

DROP_PATH = {"h": 0.55, "b": 0.1}


def get_config(size: str = "h") -> ml_collections.ConfigDict:
    if size not in DROP_PATH:
        raise ValueError(f"there is no ViT of size {size!r}: choose {' or '.join(DROP_PATH)}")
    c = start_from(__file__, "base.py")
    c.model.encoder = f"vit_{size}"
    c.drop_path = DROP_PATH[size]
    return c

"""MQ-HMR, the image network of BioPose, at the scale of HMR2.0: 1 M steps of 384 crops.

The paper gives neither sizes nor a schedule: the encoder, the data, the losses and the schedule are
those of HMR2.0 (`hmr2.py`), the decoder has the sizes of GenHMR's (`configs/genhmr/vit.py`). It has
been compiled for a pod at this size (docs/systems/biopose.md), and never run.

    python -m genhmr_jax.main --config=configs/regressors/mqhmr.py --workdir=runs/mqhmr \\
        --config.init=models/vitpose_h --config.data.people=DATA

Argument: the size of the ViT, `h` (the default) or `b`.
"""

import ml_collections

from genhmr_jax.io.config_files import start_from


def get_config(size: str = "h") -> ml_collections.ConfigDict:
    c = start_from(__file__, f"hmr2.py:{size}")
    c.model.kind = "mqhmr"
    return c

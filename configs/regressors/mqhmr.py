"""MQ-HMR, the image network of BioPose, at the scale of HMR2.0: 1 M steps of 384 crops.

The paper gives neither sizes nor a schedule: the encoder, the data, the losses and the schedule are
those of HMR2.0 (`hmr2.py`), the decoder has the sizes of GenHMR's (`configs/genhmr/vit.py`). It has
been compiled at this size and run at toy size only.

    python -m genhmr_jax.main --config=configs/regressors/mqhmr.py --workdir=runs/mqhmr \\
        --config.init=models/vitpose_h --config.data.people=DATA

Argument: the size of the ViT, `h` (the default) or `b`.
"""

import ml_collections

from genhmr_jax.io.config_files import start_from


def get_config(size: str = "h") -> ml_collections.ConfigDict:
    c = start_from(__file__, f"hmr2.py:{size}")
    c.model.kind = "mqhmr"

    # systems/regressors/multi_query.py:MultiQuerySpec.
    c.model.decoder = ml_collections.ConfigDict()
    c.model.decoder.queries = 24
    c.model.decoder.width = 1024
    c.model.decoder.layers = 6
    c.model.decoder.heads = 8
    c.model.decoder.mlp_ratio = 4
    c.model.decoder.points = 4
    c.model.decoder.activation = "gelu"
    c.model.decoder.scales = (4.0, 2.0, 1.0)
    return c

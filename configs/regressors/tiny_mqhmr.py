"""A toy MQ-HMR: `tiny.py` with queries, for tests.

A minute on 2 CPU cores, most of it compilation:

    python -m genhmr_jax.main --config=configs/regressors/tiny_mqhmr.py --workdir=runs/mqhmr_tiny
"""

import ml_collections

from genhmr_jax.io.config_files import start_from


def get_config() -> ml_collections.ConfigDict:
    c = start_from(__file__, "tiny.py")
    c.model.kind = "mqhmr"
    c.model.queries.width = 32
    c.model.queries.layers = 1
    c.model.queries.heads = 2
    c.model.queries.mlp_ratio = 2
    c.model.queries.scales = (2.0, 1.0)
    return c

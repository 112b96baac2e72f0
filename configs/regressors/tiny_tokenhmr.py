"""A toy TokenHMR over a random tokenizer: `tiny.py` with TokenHMR's head, for tests.

A minute on 2 CPU cores, most of it compilation:

    python -m genhmr_jax.main --config=configs/regressors/tiny_tokenhmr.py \\
        --workdir=runs/tokenhmr_tiny
"""

import ml_collections

from genhmr_jax.io.config_files import start_from


def get_config() -> ml_collections.ConfigDict:
    c = start_from(__file__, "tiny.py")
    c.tokenizer = "random"
    c.model.kind = "tokenhmr"
    c.loss.loose.weight = 0.05
    return c

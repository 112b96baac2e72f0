"""NeurIK for a slice of a TPU pod, causal as in BioPose's figure: a frame from those before it.

    python -m genhmr_jax.main --config=configs/neurik/paper.py --workdir=runs/neurik_paper \\
        --config.data.angles=angles.npz
"""

import ml_collections

from genhmr_jax.io.config_files import start_from


def get_config() -> ml_collections.ConfigDict:
    c = start_from(__file__, "base.py")
    c.batch_size = 2048
    c.model.causal = True
    return c
